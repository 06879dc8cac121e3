package crd

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	openapiv2 "k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

// This file publishes the schemas of custom resources. Their paths and the metadata that they refer to are made after
// those of a built-in kind.

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
			s = openapiv2.ToStructuralOpenAPIV2(s)
		}
		out = s.ToKubeOpenAPI()
		p.addMeta(out)
		p.addEmbedded(out)
	}
	names := v.crd.Status.AcceptedNames
	out.AddExtension("x-kubernetes-group-version-kind", []any{map[string]any{"group": v.crd.Spec.Group, "version": v.spec.Name, "kind": names.Kind}})
	if len(v.spec.SelectableFields) > 0 {
		var fields []any
		for _, f := range v.spec.SelectableFields {
			fields = append(fields, map[string]any{"fieldPath": strings.TrimPrefix(f.JSONPath, ".")})
		}
		out.AddExtension("x-kubernetes-selectable-fields", fields)
	}
	return out
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
	return s
}

// models are the schemas of metadata, for apply. They are parsed once and shared.
var models = sync.OnceValues(func() (map[string]*spec.Schema, error) {
	t, err := template3()
	if err != nil {
		return nil, err
	}
	out := map[string]*spec.Schema{}
	for name, raw := range t.schemas {
		s := &spec.Schema{}
		if err := json.Unmarshal(raw, s); err != nil {
			return nil, err
		}
		out[name] = s
	}
	return out, nil
})

// typeConverter knows the version's lists and maps for apply; without a structural schema it takes everything to be atomic.
func (v *version) typeConverter() managedfields.TypeConverter {
	shared, err := models()
	if err != nil || v.published() == nil {
		return managedfields.NewDeducedTypeConverter()
	}
	all := map[string]*spec.Schema{modelName(v.crd.Spec.Group, v.spec.Name, v.crd.Status.AcceptedNames.Kind): v.schema(publication{bare: true})}
	for name, s := range shared {
		all[name] = s
	}
	types, err := managedfields.NewTypeConverter(all, v.crd.Spec.PreserveUnknownFields)
	if err != nil {
		return managedfields.NewDeducedTypeConverter()
	}
	return types
}

// template is a built-in kind's part of a document that others are made after.
type template struct {
	paths   map[string]any
	schemas map[string]json.RawMessage
}

const (
	templateRoot = "/apis/autoscaling/v1"
	templateKind = "HorizontalPodAutoscaler"
	templatePath = "horizontalpodautoscalers"
)

func templateOf(paths map[string]json.RawMessage, schemas map[string]json.RawMessage) (*template, error) {
	t := &template{paths: map[string]any{}, schemas: map[string]json.RawMessage{}}
	for path, raw := range paths {
		if !strings.HasPrefix(path, templateRoot+"/") || strings.HasPrefix(path, templateRoot+"/watch/") {
			continue
		}
		var tree any
		if err := json.Unmarshal(raw, &tree); err != nil {
			return nil, err
		}
		t.paths[path] = tree
	}
	for name, raw := range schemas {
		if strings.HasPrefix(name, "io.k8s.apimachinery.") {
			t.schemas[name] = raw
		}
	}
	return t, nil
}

var template3 = sync.OnceValues(func() (*template, error) {
	b, err := docs.V3("autoscaling/v1")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Paths      map[string]json.RawMessage
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	return templateOf(doc.Paths, doc.Components.Schemas)
})

var template2 = sync.OnceValues(func() (*template, error) {
	b, err := docs.V2()
	if err != nil {
		return nil, err
	}
	var doc struct{ Paths map[string]json.RawMessage }
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	return templateOf(doc.Paths, nil)
})

// pathsOf are a version's paths, made after the template's.
func (t *template) pathsOf(v *version) map[string]any {
	crd, names := v.crd, v.crd.Status.AcceptedNames
	gv := crd.Spec.Group + "/" + v.spec.Name
	tag := strings.NewReplacer(".", "", "-", "").Replace(crd.Spec.Group)
	namespaced := crd.Spec.Scope == apiextensionsv1.NamespaceScoped
	rename := strings.NewReplacer(templateRoot, "/apis/"+gv, "io.k8s.api.autoscaling.v1."+templateKind+"List", modelName(crd.Spec.Group, v.spec.Name, names.ListKind),
		"io.k8s.api.autoscaling.v1."+templateKind, modelName(crd.Spec.Group, v.spec.Name, names.Kind),
		"autoscaling_v1", tag+"_"+v.spec.Name, "AutoscalingV1", title(tag)+title(v.spec.Name),
		templateKind, names.Kind, templatePath, names.Plural)
	out := map[string]any{}
	for path, tree := range t.paths {
		if strings.HasSuffix(path, "/status") && !v.hasStatus() || !namespaced && path == templateRoot+"/"+templatePath {
			continue
		}
		if !namespaced {
			path = strings.Replace(path, "/namespaces/{namespace}", "", 1)
		}
		c := renamer{rename: rename, gvk: map[string]any{"group": crd.Spec.Group, "version": v.spec.Name, "kind": names.Kind}, namespaced: namespaced}
		out[rename.Replace(path)] = c.tree(tree)
	}
	return out
}

func title(s string) string {
	for i, r := range s {
		return string(unicode.ToUpper(r)) + s[i+len(string(r)):]
	}
	return s
}

// renamer copies a part of a document for another kind.
type renamer struct {
	rename     *strings.Replacer
	gvk        map[string]any
	namespaced bool
}

// foreign media types are those that custom resources are not spoken in.
func foreign(mediaType string) bool {
	return strings.Contains(mediaType, "protobuf") || strings.Contains(mediaType, "cbor") || strings.Contains(mediaType, "strategic-merge-patch")
}

func (c renamer) tree(t any) any {
	switch t := t.(type) {
	case string:
		if !c.namespaced {
			t = strings.Replace(t, "Namespaced"+templateKind, templateKind, 1)
		}
		return c.rename.Replace(t)
	case []any:
		out := make([]any, 0, len(t))
		for _, item := range t {
			if s, ok := item.(string); ok && foreign(s) {
				continue
			}
			if m, ok := item.(map[string]any); ok && !c.namespaced && m["name"] == "namespace" && m["in"] == "path" {
				continue
			}
			out = append(out, c.tree(item))
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, item := range t {
			switch {
			case k == "x-kubernetes-group-version-kind":
				out[k] = c.gvk
			case !foreign(k):
				out[k] = c.tree(item)
			}
		}
		return out
	}
	return t
}

// documents are all custom resources' part of the OpenAPI documents.
type documents struct {
	v3          map[string][]byte // by path: "apis/example.com/v1"
	hash        map[string]string
	paths2      []byte // members of a JSON object, each followed by a comma
	schemas2    []byte
	fingerprint string
}

// newDocuments makes the documents of the served versions.
func newDocuments(all []*definition) (*documents, error) {
	d := &documents{v3: map[string][]byte{}, hash: map[string]string{}}
	if len(all) == 0 {
		return d, nil
	}
	t3, err := template3()
	if err != nil {
		return nil, err
	}
	t2, err := template2()
	if err != nil {
		return nil, err
	}
	type doc struct{ paths, schemas map[string]any }
	byPath := map[string]*doc{}
	var paths, schemas bytes.Buffer
	for _, def := range all {
		names := def.crd.Status.AcceptedNames
		for _, k := range def.rows {
			v := def.versions[k.Version]
			name, list := modelName(k.Group, k.Version, k.Kind), modelName(k.Group, k.Version, names.ListKind)
			path := "apis/" + k.GroupVersion().String()
			one := byPath[path]
			if one == nil {
				one = &doc{paths: map[string]any{}, schemas: map[string]any{}}
				for n, s := range t3.schemas {
					one.schemas[n] = s
				}
				byPath[path] = one
			}
			one.schemas[name], one.schemas[list] = v.schema(publication{}), v.list(publication{})
			for p, item := range t3.pathsOf(v) {
				one.paths[p] = item
			}
			two := publication{v2: true}
			members(&schemas, map[string]any{name: v.schema(two), list: v.list(two)})
			members(&paths, t2.pathsOf(v))
		}
	}
	for path, one := range byPath {
		b := mustJSON(map[string]any{"openapi": "3.0.0", "info": map[string]any{"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
			"paths": one.paths, "components": map[string]any{"schemas": one.schemas}})
		d.v3[path], d.hash[path] = b, fmt.Sprintf("%X", sha512.Sum512(b))
	}
	d.paths2, d.schemas2 = paths.Bytes(), schemas.Bytes()
	sum := sha512.Sum512(append(slices.Clip(d.paths2), d.schemas2...))
	d.fingerprint = fmt.Sprintf("%X", sum[:16])
	return d, nil
}

func members(b *bytes.Buffer, m map[string]any) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b.Write(mustJSON(k))
		b.WriteByte(':')
		b.Write(mustJSON(m[k]))
		b.WriteByte(',')
	}
}

// Paths are the paths and hashes of the custom resources' documents.
func (s *Server) Paths() map[string]string { return s.published().hash }

// V3 is the document of a path, nil if there is none.
func (s *Server) V3(path string) []byte { return s.published().v3[path] }

// V2 puts the custom resources into the Swagger 2.0 document of the built-in kinds. The fingerprint is "" where there are none.
func (s *Server) V2(base []byte) (doc []byte, fingerprint string) {
	d := s.published()
	if d.fingerprint == "" {
		return base, ""
	}
	var b bytes.Buffer
	b.Grow(len(base) + len(d.paths2) + len(d.schemas2))
	for _, part := range []struct {
		key string
		add []byte
	}{{`"paths":{`, d.paths2}, {`"definitions":{`, d.schemas2}} {
		before, after, ok := bytes.Cut(base, []byte(part.key))
		if !ok {
			continue
		}
		b.Write(before)
		b.WriteString(part.key)
		b.Write(part.add)
		base = after
	}
	b.Write(base)
	return b.Bytes(), d.fingerprint
}

// published are the documents of what is served now.
func (s *Server) published() *documents {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs == nil {
		all := make([]*definition, 0, len(s.installed))
		for _, d := range s.installed {
			all = append(all, d)
		}
		slices.SortFunc(all, func(a, b *definition) int { return strings.Compare(a.crd.Name, b.crd.Name) })
		docs, err := newDocuments(all)
		if err != nil {
			s.Log.Error("custom resources are missing in the OpenAPI documents", "error", err)
			docs = &documents{}
		}
		s.docs = docs
	}
	return s.docs
}
