package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/api"
)

// This file makes the templates of custom resources' documents: those of a kind whose names are the placeholders that
// openapi.Custom lists. It has all subresources that a custom resource can have.

const (
	customGroup, customVersion = "skiffgroup", "skiffversion"
	customModel, customList    = "skiff.Model", "skiff.ModelList"
)

type customObject struct{ metav1.PartialObjectMetadata }

func (customObject) OpenAPIModelName() string { return customModel }

type customObjects struct {
	metav1.PartialObjectMetadataList
}

func (customObjects) OpenAPIModelName() string { return customList }

// withCustom adds the placeholders to the definitions.
func withCustom(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	out := GetOpenAPIDefinitions(ref)
	for _, name := range []string{customModel, customList} {
		out[name] = common.OpenAPIDefinition{Schema: spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}}
	}
	return out
}

// customRoutes are the routes of a custom resource, which differ from those of a built-in kind in what they are spoken in
// and in a few options.
func customRoutes(namespaced bool) []common.Route {
	k := &api.Kind{Group: customGroup, Version: customVersion, Kind: "SkiffKind", Plural: "skiffplurals", Singular: "skiffplural", Namespaced: namespaced,
		Verbs:   []string{"create", "delete", "deletecollection", "get", "list", "patch", "update"},
		New:     func() api.Object { return &customObject{} },
		NewList: func() runtime.Object { return &customObjects{} },
		Subresources: []api.Subresource{{Name: "status", Verbs: []string{"get", "patch", "update"}, Type: api.StatusSub},
			{Name: "scale", Kind: "Scale", Verbs: []string{"get", "patch", "update"}, Type: api.ScaleSub}}}
	routes := routesOf(k)
	for _, x := range routes {
		r := x.(*route)
		r.produces = media[:2]
		r.gvk = map[string]string{"group": k.Group, "version": k.Version, "kind": k.Kind}
		for i, p := range r.params {
			if p.Name() == "name" {
				r.params[i] = inPath("name", "name of the "+k.Kind)
			}
		}
		switch r.consumes = media[:2]; r.action {
		case "get":
			r.params = append(r.params, options(metav1.GetOptions{})...)
		case "patch":
			r.consumes = []string{patchMedia[0], patchMedia[1], patchMedia[3]}
			r.answers = r.answers[:1]
		case "deletecollection":
			r.body = nil
			r.params = slices.DeleteFunc(r.params, func(p common.Parameter) bool { return p.Kind() != common.PathParameterKind && p.Name() != "pretty" })
			r.params = append(r.params, options(metav1.ListOptions{})...)
		}
	}
	return routes
}

// addCustom makes the templates. all are the routes of the built-in kinds, with which version 2 shares its parameters.
func addCustom(docs map[string][]byte, all []common.RouteContainer, names namer) error {
	for name, namespaced := range map[string]bool{"namespaced": true, "cluster": false} {
		c := &container{root: "/apis/" + customGroup + "/" + customVersion, routes: customRoutes(namespaced)}
		v2, err := swagger(append(slices.Clone(all), c), withCustom, names)
		if err != nil {
			return err
		}
		maps.DeleteFunc(v2.Paths.Paths, func(path string, _ spec.PathItem) bool { return !strings.HasPrefix(path, c.root) })
		if docs["custom/v2/"+name], err = json.Marshal(map[string]any{"paths": v2.Paths}); err != nil {
			return err
		}
		v3, err := builder3.BuildOpenAPISpecFromRoutes([]common.RouteContainer{c}, v3Config(withCustom, customNames()))
		if err != nil {
			return err
		}
		delete(v3.Components.Schemas, customModel)
		delete(v3.Components.Schemas, customList)
		if docs["custom/v3/"+name], err = json.Marshal(map[string]any{"paths": v3.Paths.Paths, "schemas": v3.Components.Schemas}); err != nil {
			return err
		}
	}
	return nil
}

// customNames knows the kinds of client-go alone, and the placeholders by themselves.
func customNames() namer {
	named := namesOf(scheme.Scheme)
	return func(name string) (string, spec.Extensions) {
		if name == customModel || name == customList {
			return name, nil
		}
		return named(name)
	}
}
