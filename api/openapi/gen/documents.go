package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/api/codec"
)

var info = &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: "v1.36.3"}}

const definitions = "#/definitions/"

// makeDocuments makes all documents by their name in the archive.
func makeDocuments() (map[string][]byte, error) {
	scheme := codec.Scheme()
	named := openapi.NewDefinitionNamer(scheme).GetDefinitionName
	var names []string
	for _, k := range builtin.Kinds() {
		names = append(names, modelName(k.New()))
		if k.NewList != nil {
			names = append(names, modelName(k.NewList()))
		}
	}
	for _, n := range []string{"Eviction", "TokenRequest", "Scale", "Binding", "Status", "DeleteOptions", "Patch", "WatchEvent"} {
		names = append(names, nameOfKind(n))
	}
	slices.Sort(names)
	names = slices.Compact(names)

	security := spec.SecurityDefinitions{"BearerToken": {SecuritySchemeProps: spec.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}}}
	v2, err := builder.BuildOpenAPIDefinitionsForResources(&common.Config{Info: info, GetDefinitions: GetOpenAPIDefinitions,
		GetDefinitionName: named, SecurityDefinitions: &security}, names...)
	if err != nil {
		return nil, err
	}
	// Readers of Swagger 2.0 would take defaults for something else.
	for name, d := range v2.Definitions {
		v2.Definitions[name] = *withoutDefaults(&d)
	}
	v2.SecurityDefinitions = security
	v2.Security = []map[string][]string{{"BearerToken": {}}}
	v3definitions, err := builder3.BuildOpenAPIDefinitionsForResources(&common.OpenAPIV3Config{Info: info,
		GetDefinitions: GetOpenAPIDefinitions, GetDefinitionName: named}, names...)
	if err != nil {
		return nil, err
	}

	docs := map[string][]byte{}
	all := &spec.Paths{Paths: map[string]spec.PathItem{}}
	byVersion := map[schema.GroupVersion]*spec.Paths{}
	var versions []schema.GroupVersion
	for _, k := range builtin.Kinds() {
		gv := k.GroupVersion()
		if byVersion[gv] == nil {
			byVersion[gv] = &spec.Paths{Paths: map[string]spec.PathItem{}}
			versions = append(versions, gv)
		}
		for path, item := range pathsOf(k) {
			all.Paths[path], byVersion[gv].Paths[path] = item, item
		}
	}
	v2.Paths = all
	if docs["v2"], err = json.Marshal(v2); err != nil {
		return nil, err
	}
	for _, gv := range versions {
		doc, err := v3Document(byVersion[gv], v3definitions)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", gv, err)
		}
		docs["v3/"+gv.String()] = doc
	}
	return docs, nil
}

// v3Document is the paths of one group-version with the definitions that they lead to.
func v3Document(paths *spec.Paths, all map[string]*spec.Schema) ([]byte, error) {
	v3 := openapiconv.ConvertV2ToV3(&spec.Swagger{SwaggerProps: spec.SwaggerProps{Info: info, Paths: paths}})
	v3.Version = "3.0.0"
	v3.Components = &spec3.Components{Schemas: map[string]*spec.Schema{}, SecuritySchemes: spec3.SecuritySchemes{
		"BearerToken": {SecuritySchemeProps: spec3.SecuritySchemeProps{
			Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}}}}
	b, err := json.Marshal(v3.Paths)
	if err != nil {
		return nil, err
	}
	pending := refs(b)
	for len(pending) > 0 {
		name := pending[0]
		pending = pending[1:]
		if v3.Components.Schemas[name] != nil {
			continue
		}
		s, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("no definition of %s", name)
		}
		v3.Components.Schemas[name] = s
		if b, err = json.Marshal(s); err != nil {
			return nil, err
		}
		pending = append(pending, refs(b)...)
	}
	return json.Marshal(v3)
}

const schemaRef = `"$ref":"#/components/schemas/`

func refs(b []byte) []string {
	var out []string
	for _, part := range strings.Split(string(b), schemaRef)[1:] {
		out = append(out, part[:strings.IndexByte(part, '"')])
	}
	return out
}

// modelName is the definition's name of a Go type ("io.k8s.api.core.v1.Pod").
func modelName(obj any) string {
	if n, ok := obj.(interface{ OpenAPIModelName() string }); ok {
		return n.OpenAPIModelName()
	}
	panic(fmt.Sprintf("%s has no model name", reflect.TypeOf(obj)))
}

// nameOfKind finds a body that is no row of the table.
func nameOfKind(kind string) string {
	switch kind {
	case "Eviction":
		return "io.k8s.api.policy.v1.Eviction"
	case "TokenRequest":
		return "io.k8s.api.authentication.v1.TokenRequest"
	case "Scale":
		return "io.k8s.api.autoscaling.v1.Scale"
	case "Binding":
		return "io.k8s.api.core.v1.Binding"
	}
	return "io.k8s.apimachinery.pkg.apis.meta.v1." + kind
}

func ref(name string) *spec.Schema { return spec.RefSchema(definitions + name) }

func bodyName(k *api.Kind, s *api.Subresource) string {
	if s == nil || s.Kind == "" || s.Kind == k.Kind {
		return modelName(k.New())
	}
	return nameOfKind(s.Kind)
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
