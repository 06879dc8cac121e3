package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/validation/spec"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

// merger puts what custom resources and extension servers have into the version 2 document of the built-in kinds, which it
// never takes apart as a whole: that would cost a hundred times the memory.
type merger struct {
	// Members of JSON objects, each followed by a comma.
	paths, definitions, parameters []byte
	known                          map[string]json.RawMessage // the built-in definitions
	shared                         map[string]json.RawMessage // the built-in parameters
}

// add takes in an extension server's document. A definition that is there already under the same name is shared where it
// says the same, and else gets another name.
func (m *merger) add(doc *spec.Swagger) error {
	if doc.Paths == nil || len(doc.Paths.Paths) == 0 {
		return nil
	}
	if m.known == nil {
		if err := m.load(); err != nil {
			return err
		}
	}
	all, err := clone(doc)
	if err != nil {
		return err
	}
	base := &spec.Swagger{SwaggerProps: spec.SwaggerProps{Paths: &spec.Paths{Paths: map[string]spec.PathItem{}},
		Definitions: spec.Definitions{}, Parameters: map[string]spec.Parameter{}}}
	for name := range all.Definitions {
		if raw, ok := m.known[name]; ok {
			var s spec.Schema
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			base.Definitions[name] = s
		}
	}
	for name := range all.Parameters {
		if raw, ok := m.shared[name]; ok {
			var p spec.Parameter
			if err := json.Unmarshal(raw, &p); err != nil {
				return err
			}
			base.Parameters[name] = p
		}
	}
	if err := aggregator.MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters(base, all); err != nil {
		return err
	}
	for name, s := range base.Definitions {
		if _, ok := m.known[name]; !ok {
			if m.definitions, m.known[name], err = member(m.definitions, name, s); err != nil {
				return err
			}
		}
	}
	for name, p := range base.Parameters {
		if _, ok := m.shared[name]; !ok {
			if m.parameters, m.shared[name], err = member(m.parameters, name, p); err != nil {
				return err
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(base.Paths.Paths)) {
		if m.paths, _, err = member(m.paths, path, base.Paths.Paths[path]); err != nil {
			return err
		}
	}
	return nil
}

// load reads the built-in definitions and parameters, unparsed.
func (m *merger) load() error {
	b, err := docs.V2()
	if err != nil {
		return err
	}
	var doc struct{ Definitions, Parameters map[string]json.RawMessage }
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	m.known, m.shared = doc.Definitions, doc.Parameters
	if m.shared == nil {
		m.shared = map[string]json.RawMessage{}
	}
	return nil
}

func clone(doc *spec.Swagger) (*spec.Swagger, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	out := &spec.Swagger{}
	return out, json.Unmarshal(b, out)
}

// member appends a member of a JSON object and a comma, and returns the value's JSON too.
func member(to []byte, name string, value any) (out []byte, raw json.RawMessage, err error) {
	key, err := json.Marshal(name)
	if err != nil {
		return nil, nil, err
	}
	if raw, err = json.Marshal(value); err != nil {
		return nil, nil, err
	}
	to = append(append(append(to, key...), ':'), raw...)
	return append(to, ','), raw, nil
}

// json writes the members into the built-in document. Where its sections begin is found without reading it as JSON, which
// would be most of the work: the generator writes paths, definitions and parameters in this order, nothing in the paths is
// called definitions, and no object called parameters comes after the section of that name.
func (m *merger) json(base []byte) ([]byte, error) {
	out := make([]byte, 0, len(base)+len(m.paths)+len(m.definitions)+len(m.parameters)+32)
	for _, part := range []struct {
		key  string
		find func(s, sep []byte) int
		add  []byte
	}{{`"paths":{`, bytes.Index, m.paths}, {`"definitions":{`, bytes.Index, m.definitions}, {`"parameters":{`, bytes.LastIndex, m.parameters}} {
		if len(part.add) == 0 {
			continue
		}
		at := part.find(base, []byte(part.key))
		if at < 0 {
			return nil, fmt.Errorf("the document has no section %s}", part.key)
		}
		at += len(part.key)
		out = append(append(out, base[:at]...), part.add...)
		if base = base[at:]; base[0] == '}' {
			out = out[:len(out)-1] // an empty section: no member follows the comma
		}
	}
	return append(out, base...), nil
}

// protobuf writes the members behind the built-in document's protobuf form: messages that stand one after the other are
// read as one whose fields are merged.
func (m *merger) protobuf(base []byte) ([]byte, error) {
	small, err := m.json([]byte(`{"swagger":"2.0","info":{"title":"","version":""},"paths":{},"definitions":{},"parameters":{}}`))
	if err != nil {
		return nil, err
	}
	doc, err := openapiv2.ParseDocument(small)
	if err != nil {
		return nil, err
	}
	doc.Swagger, doc.Info = "", nil
	b, err := proto.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return append(base, b...), nil
}

func compress(w io.Writer, b []byte) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err == nil {
		_ = z.Close()
	}
	return nil
}
