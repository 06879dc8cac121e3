package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	admissionv1 "k8s.io/api/admission/v1"
	admissionv1beta1 "k8s.io/api/admission/v1beta1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/api/builtin"
)

var info = &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: "1.36"}}

const unauthorized = "Unauthorized"

// makeDocuments makes all documents by their name in the archive: "v2", "v3/" and the path below /openapi/v3, and each in
// protobuf with ".pb" after the first part; and the templates of custom resources' under "custom/".
func makeDocuments() (map[string][]byte, error) {
	names, err := definitionNames()
	if err != nil {
		return nil, err
	}
	byPath, paths := routesByPath()
	docs := map[string][]byte{}
	var all []common.RouteContainer
	for _, path := range paths {
		c := &container{root: "/" + path, routes: byPath[path]}
		all = append(all, c)
		if err := addV3(docs, path, c, names); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := addV2(docs, all, names); err != nil {
		return nil, err
	}
	return docs, addCustom(docs, all, names)
}

// routesByPath are all routes by the path of their version 3 document.
func routesByPath() (byPath map[string][]common.Route, paths []string) {
	byPath = map[string][]common.Route{}
	add := func(path string, routes ...common.Route) {
		if byPath[path] == nil {
			paths = append(paths, path)
		}
		byPath[path] = append(byPath[path], routes...)
	}
	for path, routes := range rootRoutes() {
		add(path, routes...)
	}
	for _, k := range builtin.Kinds() {
		gv := k.GroupVersion()
		if group := "apis/" + gv.Group; gv.Group != "" && byPath[group] == nil {
			add(group, groupRoute(gv.Group))
		}
		path := strings.TrimPrefix(rootOf(gv), "/")
		if byPath[path] == nil {
			add(path, versionRoute(gv))
		}
		add(path, routesOf(k)...)
	}
	return byPath, paths
}

// namer gives a Go type its name in the documents, and the kinds that it stands for.
type namer func(string) (string, spec.Extensions)

// definitionNames knows all versions of all kinds that upstream knows: types that belong to every version (DeleteOptions)
// are marked with all of them.
func definitionNames() (namer, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, admissionv1.AddToScheme, admissionv1beta1.AddToScheme,
		imagepolicyv1alpha1.AddToScheme, apiextensionsv1.AddToScheme, apiextensionsv1beta1.AddToScheme, apiregistrationv1.AddToScheme, apiregistrationv1beta1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return namesOf(s), nil
}

func namesOf(s *runtime.Scheme) namer { return openapi.NewDefinitionNamer(s).GetDefinitionName }

func addV2(docs map[string][]byte, all []common.RouteContainer, names namer) error {
	v2, err := swagger(all, GetOpenAPIDefinitions, names)
	if err != nil {
		return err
	}
	b, err := json.Marshal(v2)
	if err != nil {
		return err
	}
	doc, err := openapiv2.ParseDocument(b)
	if err != nil {
		return err
	}
	docs["v2"] = b
	docs["v2.pb"], err = proto.MarshalOptions{Deterministic: true}.Marshal(doc)
	return err
}

// swagger is the version 2 document of all routes.
func swagger(all []common.RouteContainer, definitions common.GetOpenAPIDefinitions, names namer) (*spec.Swagger, error) {
	v2, err := builder.BuildOpenAPISpecFromRoutes(all, &common.Config{Info: info, ProtocolList: []string{"https"}, GetDefinitions: definitions,
		GetDefinitionName: names, GetOperationIDAndTagsFromRoute: nameAndTag,
		CommonResponses: map[int]spec.Response{401: {ResponseProps: spec.ResponseProps{Description: unauthorized}}},
		SecurityDefinitions: &spec.SecurityDefinitions{"BearerToken": {SecuritySchemeProps: spec.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}}},
		DefaultSecurity: []map[string][]string{{"BearerToken": {}}}})
	if err != nil {
		return nil, err
	}
	// Readers of Swagger 2.0 would take defaults for something else.
	for name, d := range v2.Definitions {
		v2.Definitions[name] = *withoutDefaults(&d)
	}
	return v2, nil
}

func v3Config(definitions common.GetOpenAPIDefinitions, names namer) *common.OpenAPIV3Config {
	return &common.OpenAPIV3Config{Info: info, GetDefinitions: definitions,
		GetDefinitionName: names, GetOperationIDAndTagsFromRoute: nameAndTag,
		CommonResponses: map[int]*spec3.Response{401: {ResponseProps: spec3.ResponseProps{Description: unauthorized}}},
		SecuritySchemes: spec3.SecuritySchemes{"BearerToken": {SecuritySchemeProps: spec3.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}}}}
}

func addV3(docs map[string][]byte, path string, c common.RouteContainer, names namer) error {
	v3, err := builder3.BuildOpenAPISpecFromRoutes([]common.RouteContainer{c}, v3Config(GetOpenAPIDefinitions, names))
	if err != nil {
		return err
	}
	for _, d := range v3.Components.Schemas {
		own(d, path)
	}
	b, err := json.Marshal(v3)
	if err != nil {
		return err
	}
	docs["v3/"+path] = b
	docs["v3.pb/"+path], err = handler3.ToV3ProtoBinary(b)
	return err
}

func withoutDefaults(s *spec.Schema) *spec.Schema {
	out := *s
	out.Default = nil
	if s.Properties != nil {
		out.Properties = map[string]spec.Schema{}
		for name, p := range s.Properties {
			out.Properties[name] = *withoutDefaults(&p)
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		out.Items = &spec.SchemaOrArray{Schema: withoutDefaults(s.Items.Schema)}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		out.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: withoutDefaults(s.AdditionalProperties.Schema)}
	}
	return &out
}

// own leaves of the kinds that a shared type stands for those of the core group and of the document's own group-version.
func own(d *spec.Schema, path string) {
	const key = "x-kubernetes-group-version-kind"
	kinds, ok := d.Extensions[key].([]any)
	if !ok || len(kinds) < 2 {
		return
	}
	d.Extensions[key] = slices.DeleteFunc(slices.Clone(kinds), func(k any) bool {
		m, ok := k.(map[string]any)
		return ok && m["group"] != "" && path != fmt.Sprintf("apis/%s/%s", m["group"], m["version"])
	})
}
