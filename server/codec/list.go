package codec

import (
	"bytes"
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// YAML turns JSON into YAML.
func YAML(j []byte) ([]byte, error) { return yaml.JSONToYAML(j) }

// RawOf is any object's protobuf message without an envelope.
func RawOf(obj runtime.Object) ([]byte, error) { return rawOf(obj) }

// Item is an entry's JSON as lists have it, but for its opening brace, so that nothing is copied: built-in kinds leave
// out apiVersion and kind there.
func Item(k *api.Kind, e *store.Entry) ([]byte, error) {
	if k.Hub == nil {
		b, err := JSON(e)
		if err != nil {
			return nil, err
		}
		head := `{"kind":"` + k.Kind + `","apiVersion":"` + k.GroupVersion().String() + `",`
		if rest, ok := bytes.CutPrefix(b, []byte(head)); ok {
			return rest, nil
		}
		return b[1:], nil
	}
	obj, err := Convert(e.Object, k.Hub, k)
	if err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // a conversion's result is private
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	return b[1:], nil
}

// ProtobufList is the pieces of a list's body: every Kubernetes list has its metadata in field 1 and its items in 2.
func ProtobufList(list schema.GroupVersionKind, meta metav1.ListMeta, items [][]byte) ([][]byte, error) {
	lm, err := meta.Marshal()
	if err != nil {
		return nil, err
	}
	first := appendBytes(nil, 1, lm)
	size := len(first)
	pieces := make([][]byte, 1, 2*len(items)+3)
	heads := make([]byte, 0, 6*len(items)) // never grows, so that slices of it stay
	pieces = append(pieces, first)
	for _, it := range items {
		at := len(heads)
		heads = append(heads, 2<<3|2)
		heads = appendVarint(heads, uint64(len(it)))
		pieces = append(pieces, heads[at:len(heads):len(heads)], it)
		size += len(heads) - at + len(it)
	}
	head, tail := Envelope(list, size)
	pieces[0] = head
	return append(pieces, tail), nil
}

// columns are a row's printer columns, or the usual two.
func columns(k *api.Kind) []api.Column {
	if k.Columns != nil {
		return k.Columns
	}
	return []api.Column{
		{Name: "Name", Type: "string", Format: "name", Description: "Name must be unique within a namespace.",
			Cell: func(o api.Object) any { return o.GetName() }},
		{Name: "Age", Type: "string", Description: "The time since the object was created.", Age: true},
	}
}

// Table is the Table of some entries as JSON. Without headers it has no column definitions, as all but a watch's first.
func Table(k *api.Kind, version string, entries []*store.Entry, meta metav1.ListMeta, include metav1.IncludeObjectPolicy, headers bool, now time.Time) ([]byte, error) {
	cols := columns(k)
	lm, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(`{"kind":"Table","apiVersion":"meta.k8s.io/` + version + `","metadata":`)
	b.Write(lm)
	b.WriteString(`,"columnDefinitions":`)
	if headers {
		defs := make([]metav1.TableColumnDefinition, len(cols))
		for i, c := range cols {
			defs[i] = metav1.TableColumnDefinition{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority}
		}
		d, err := json.Marshal(defs)
		if err != nil {
			return nil, err
		}
		b.Write(d)
	} else {
		b.WriteString("null")
	}
	b.WriteString(`,"rows":[`)
	for i, e := range entries {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := tableRow(&b, k, cols, e, version, include, now); err != nil {
			return nil, err
		}
	}
	b.WriteString("]}")
	return b.Bytes(), nil
}

func tableRow(b *bytes.Buffer, k *api.Kind, cols []api.Column, e *store.Entry, version string, include metav1.IncludeObjectPolicy, now time.Time) error {
	obj := e.Object
	if k.Hub != nil {
		var err error
		if obj, err = Convert(obj, k.Hub, k); err != nil {
			return err
		}
	}
	cells := make([]any, len(cols))
	for i := range cols {
		cells[i] = cols[i].Value(obj, now)
	}
	c, err := json.Marshal(cells)
	if err != nil {
		return err
	}
	b.WriteString(`{"cells":`)
	b.Write(c)
	b.WriteString(`,"object":`)
	var o []byte
	switch include {
	case metav1.IncludeNone:
		o = []byte("null")
	case metav1.IncludeObject:
		if k.Hub != nil {
			o, err = json.Marshal(obj)
		} else {
			o, err = JSON(e)
		}
	default:
		o, err = Metadata(e)
		if version != "v1" {
			o = bytes.Replace(o, []byte("meta.k8s.io/v1"), []byte("meta.k8s.io/"+version), 1)
		}
	}
	b.Write(o)
	b.WriteByte('}')
	return err
}
