package crd

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

// documents say what the custom resources' part of the OpenAPI documents is, without holding it: the parts are made for
// each request, and their hashes come from what they are made of.
type documents struct {
	served      map[string][]*version // by the path of their version 3 document: "apis/example.com/v1"
	hash        map[string]string
	fingerprint string // of the version 2 document; "" where there is nothing
}

// newDocuments are those of the served versions.
func newDocuments(all []*definition) *documents {
	d := &documents{served: map[string][]*version{}, hash: map[string]string{}}
	states := map[string][]string{}
	for _, def := range all {
		for _, k := range def.rows {
			path := "apis/" + k.GroupVersion().String()
			d.served[path] = append(d.served[path], def.versions[k.Version])
			// A definition's generation changes with its specification, and its names once they are accepted.
			states[path] = append(states[path], fmt.Sprintf("%s %d %v", def.crd.UID, def.crd.Generation, def.crd.Status.AcceptedNames))
		}
	}
	sum := sha512.New()
	for _, path := range slices.Sorted(maps.Keys(states)) {
		d.hash[path] = fmt.Sprintf("%X", sha512.Sum512(fmt.Append(nil, path, states[path])))
		fmt.Fprintln(sum, d.hash[path])
	}
	if len(d.hash) > 0 {
		d.fingerprint = fmt.Sprintf("%X", sum.Sum(nil))
	}
	return d
}

// published are the documents of what is served now.
func (s *Server) published() *documents {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.docs == nil {
		s.docs = newDocuments(slices.SortedFunc(maps.Values(s.installed), func(a, b *definition) int { return strings.Compare(a.crd.Name, b.crd.Name) }))
	}
	return s.docs
}

// Paths are the paths and hashes of the custom resources' version 3 documents.
func (s *Server) Paths() map[string]string { return s.published().hash }

// V3 makes the document of a path; nil if there is none.
func (s *Server) V3(path string) ([]byte, error) {
	versions := s.published().served[path]
	if len(versions) == 0 {
		return nil, nil
	}
	paths, schemas := map[string]json.RawMessage{}, map[string]any{}
	for _, v := range versions {
		t, err := templateOf(v, true)
		if err != nil {
			return nil, err
		}
		maps.Copy(paths, t.Paths)
		for name, raw := range t.Schemas {
			if v.scale() != nil || !strings.HasPrefix(name, "io.k8s.api.autoscaling.") {
				schemas[name] = raw
			}
		}
		name, list := v.models()
		schemas[name], schemas[list] = v.schema(publication{}), v.list(publication{})
	}
	return json.Marshal(map[string]any{"openapi": "3.0.0", "info": map[string]any{"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
		"paths": paths, "components": map[string]any{"schemas": schemas}})
}

// V2Hash changes with what V2Parts returns, and is "" where there are no custom resources.
func (s *Server) V2Hash() string { return s.published().fingerprint }

// V2Parts makes the members of the version 2 document's paths and definitions, each followed by a comma.
func (s *Server) V2Parts() (paths, definitions []byte, err error) {
	d := s.published()
	for _, path := range slices.Sorted(maps.Keys(d.served)) {
		for _, v := range d.served[path] {
			t, err := templateOf(v, false)
			if err != nil {
				return nil, nil, err
			}
			name, list := v.models()
			two := publication{v2: true}
			if paths, err = members(paths, t.Paths); err != nil {
				return nil, nil, err
			}
			if definitions, err = members(definitions, map[string]any{name: v.schema(two), list: v.list(two)}); err != nil {
				return nil, nil, err
			}
		}
	}
	return paths, definitions, nil
}

// members appends the members of a JSON object, each followed by a comma.
func members[T any](to []byte, m map[string]T) ([]byte, error) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		key, err := json.Marshal(k)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m[k])
		if err != nil {
			return nil, err
		}
		to = append(append(append(to, key...), ':'), value...)
		to = append(to, ',')
	}
	return to, nil
}

// models are the names of a version's kind and of its list in the documents.
func (v *version) models() (one, list string) {
	names := v.crd.Status.AcceptedNames
	return modelName(v.crd.Spec.Group, v.spec.Name, names.Kind), modelName(v.crd.Spec.Group, v.spec.Name, names.ListKind)
}

// template is the part of the documents that is the same for all custom resources but for their names.
type template struct {
	Paths, Schemas map[string]json.RawMessage
}

// templateOf is the template with a version's names, and without the subresources that it has not.
func templateOf(v *version, version3 bool) (*template, error) {
	b, err := docs.Custom(version3, v.crd.Spec.Scope == apiextensionsv1.NamespaceScoped)
	if err != nil {
		return nil, err
	}
	group, names := v.crd.Spec.Group, v.crd.Status.AcceptedNames
	one, list := v.models()
	tag := camel(group)
	for _, r := range [][2]string{ // longer names before those that are a part of them
		{"skiffgroup_skiffversion", tag + "_" + v.spec.Name}, {"SkiffgroupSkiffversion", title(tag) + title(v.spec.Name)},
		{"skiff.ModelList", list}, {"skiff.Model", one},
		{"skiffgroup", group}, {"skiffversion", v.spec.Name}, {"skiffplurals", names.Plural},
		{" a SkiffKind", " " + article(names.Kind) + names.Kind}, {"SkiffKind", names.Kind}} {
		b = bytes.ReplaceAll(b, []byte(r[0]), []byte(r[1]))
	}
	t := &template{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, err
	}
	maps.DeleteFunc(t.Paths, func(path string, _ json.RawMessage) bool {
		return strings.HasSuffix(path, "/{name}/status") && !v.hasStatus() || strings.HasSuffix(path, "/{name}/scale") && v.scale() == nil
	})
	return t, nil
}

// article is the indefinite article before a kind, as upstream's documents have it: none before what looks like a plural.
func article(kind string) string {
	switch {
	case strings.HasSuffix(kind, "s") && !strings.HasSuffix(kind, "ss"):
		return ""
	case kind != "" && strings.ContainsAny(kind[:1], "AEIOUaeiou"):
		return "an "
	}
	return "a "
}

// camel is a group in the names of operations: "crd.example.com" is crdExampleCom, and Kubernetes' own domain is left out.
func camel(group string) string {
	parts := strings.FieldsFunc(strings.TrimSuffix(group, ".k8s.io"), func(r rune) bool { return r == '.' || r == '-' })
	for i := 1; i < len(parts); i++ {
		parts[i] = title(parts[i])
	}
	return strings.Join(parts, "")
}

func title(s string) string {
	for i, r := range s {
		return string(unicode.ToUpper(r)) + s[i+len(string(r)):]
	}
	return s
}
