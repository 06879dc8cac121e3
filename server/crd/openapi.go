package crd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

// This file publishes the schemas of custom resources.

const metaPrefix = "io.k8s.apimachinery.pkg.apis.meta.v1."

// modelName is a kind's name in the documents: "com.example.v1.Widget".
func modelName(group, version, kind string) string {
	parts := strings.Split(group, ".")
	slices.Reverse(parts)
	return strings.Join(parts, ".") + "." + version + "." + kind
}

// publication says for whom a schema is written.
type publication struct {
	v2   bool // Swagger 2.0, which knows less
	bare bool // only what apply needs: no value validations
}

func (p publication) ref(name string) string {
	if p.v2 {
		return "#/definitions/" + name
	}
	return "#/components/schemas/" + name
}

// schema is the published schema of one version.
func (v *version) schema(p publication) *spec.Schema {
	out := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}}}
	s := v.published()
	loose := s != nil && (s.XPreserveUnknownFields || v.crd.Spec.PreserveUnknownFields)
	if s != nil && (!p.v2 || !loose) {
		s = s.Unfold()
		if p.bare {
			s = s.StripValueValidations().StripNullable()
		}
		if p.v2 {
			s = withoutDefaults(openapiv2.ToStructuralOpenAPIV2(s))
		}
		out = s.ToKubeOpenAPI()
		p.addMeta(out)
		p.addEmbedded(out)
	}
	names := v.crd.Status.AcceptedNames
	out.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": v.crd.Spec.Group, "version": v.spec.Name, "kind": names.Kind}})
	v.addSelectable(out)
	return out
}

func (v *version) addSelectable(s *spec.Schema) {
	if len(v.spec.SelectableFields) == 0 {
		return
	}
	var fields []any
	for _, f := range v.spec.SelectableFields {
		fields = append(fields, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
	}
	s.AddExtension("x-kubernetes-selectable-fields", fields)
}

// withoutDefaults drops the defaults of a schema, which is the caller's own: version 2 documents have none.
func withoutDefaults(s *structural.Structural) *structural.Structural {
	if s == nil {
		return nil
	}
	s.Default = structural.JSON{}
	for name, p := range s.Properties {
		s.Properties[name] = *withoutDefaults(&p)
	}
	withoutDefaults(s.Items)
	if s.AdditionalProperties != nil {
		withoutDefaults(s.AdditionalProperties.Structural)
	}
	return s
}

// published is the schema as far as it can be published; nil if it is none or not structural.
func (v *version) published() *structural.Structural {
	props := internalSchema(v.spec)
	if props == nil {
		return nil
	}
	s, err := structural.NewStructural(props)
	if err != nil || len(structural.ValidateStructural(nil, s)) > 0 {
		return nil
	}
	return s
}

var typeDocs = metav1.TypeMeta{}.SwaggerDoc()

func (p publication) addMeta(s *spec.Schema) {
	p.addTypeMeta(s)
	s.SetProperty("metadata", *p.refTo(metaPrefix+"ObjectMeta", "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"))
}

func (p publication) addTypeMeta(s *spec.Schema) {
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription(typeDocs["apiVersion"]))
	s.SetProperty("kind", *spec.StringProperty().WithDescription(typeDocs["kind"]))
}

func (p publication) refTo(name, description string) *spec.Schema {
	if p.v2 || p.bare {
		return spec.RefSchema(p.ref(name)).WithDescription(description)
	}
	// A reference has no words of its own in version 3.
	return (&spec.Schema{SchemaProps: spec.SchemaProps{AllOf: []spec.Schema{*spec.RefSchema(p.ref(name))}}}).WithDescription(description)
}

// addEmbedded gives objects inside the object (x-kubernetes-embedded-resource) their metadata.
func (p publication) addEmbedded(s *spec.Schema) {
	for name, child := range s.Properties {
		p.addEmbedded(&child)
		s.Properties[name] = child
	}
	if s.Items != nil && s.Items.Schema != nil {
		p.addEmbedded(s.Items.Schema)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		p.addEmbedded(s.AdditionalProperties.Schema)
	}
	// Version 2 clients refuse what is not named beside metadata, so that open objects get none.
	if open, ok := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); ok && open && p.v2 {
		return
	}
	if embedded, ok := s.Extensions.GetBool("x-kubernetes-embedded-resource"); !ok || !embedded {
		return
	}
	p.addMeta(s)
	s.SetProperty("apiVersion", *spec.StringProperty().WithDescription("apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"))
	s.SetProperty("kind", *spec.StringProperty().WithDescription("kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"))
	for _, name := range []string{"kind", "apiVersion"} {
		if !slices.Contains(s.Required, name) {
			s.Required = append(s.Required, name)
		}
	}
}

// list is the published schema of a version's list.
func (v *version) list(p publication) *spec.Schema {
	names := v.crd.Status.AcceptedNames
	s := new(spec.Schema).Typed("object", "").WithRequired("items").
		WithDescription(fmt.Sprintf("%s is a list of %s", names.ListKind, names.Kind))
	item := spec.RefSchema(p.ref(modelName(v.crd.Spec.Group, v.spec.Name, names.Kind)))
	s.SetProperty("items", *spec.ArrayProperty(item).WithDescription(fmt.Sprintf("List of %s. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", names.Plural)))
	s.SetProperty("metadata", *p.refTo(metaPrefix+"ListMeta", "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"))
	p.addTypeMeta(s)
	s.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": v.crd.Spec.Group, "version": v.spec.Name, "kind": names.ListKind}})
	v.addSelectable(s)
	return s
}

// models are the schemas of metadata, for apply. They are parsed once and shared.
var models = sync.OnceValues(func() (map[string]*spec.Schema, error) {
	b, err := docs.Custom(true, true)
	if err != nil {
		return nil, err
	}
	var t struct{ Schemas map[string]*spec.Schema }
	return t.Schemas, json.Unmarshal(b, &t)
})

// typeConverter knows all versions' lists and maps for apply; without structural schemas it takes everything to be atomic.
func (d *definition) typeConverter() managedfields.TypeConverter {
	shared, err := models()
	if err != nil {
		return managedfields.NewDeducedTypeConverter()
	}
	all := map[string]*spec.Schema{}
	for _, v := range d.versions {
		if v.published() == nil {
			return managedfields.NewDeducedTypeConverter()
		}
		all[modelName(d.crd.Spec.Group, v.spec.Name, d.crd.Status.AcceptedNames.Kind)] = v.schema(publication{bare: true})
	}
	for name, s := range shared {
		all[name] = s
	}
	types, err := managedfields.NewTypeConverter(all, d.crd.Spec.PreserveUnknownFields)
	if err != nil {
		return managedfields.NewDeducedTypeConverter()
	}
	return types
}
