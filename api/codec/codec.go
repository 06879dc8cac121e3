// Package codec turns objects into the bytes that upstream Kubernetes keeps in etcd, and back.
//
// Invariant: what upstream stored is understood, in every version of a kind that upstream has kept since it was beta, and
// what is written here upstream reads: the protobuf envelope ("k8s\x00" and a runtime.Unknown) for built-in kinds, JSON for
// custom resources and for the kinds of apiextensions.k8s.io and apiregistration.k8s.io, always in the row's version.
// Decoding looks at the bytes, not at the kind, to tell them apart.
//
// server and daemon import codec; it imports api and api/builtin only.
package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "sigs.k8s.io/json"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

// Magic is the prefix of every protobuf envelope.
var Magic = []byte{'k', '8', 's', 0}

// Codec encodes the objects of one row. It is safe for concurrent use.
type Codec struct {
	kind *api.Kind // the storage row
	json bool
}

// For returns the codec of the row's stored type.
func For(k *api.Kind) *Codec {
	k = k.Storage()
	return &Codec{kind: k, json: k.CRD || k.Group == "apiextensions.k8s.io" || k.Group == "apiregistration.k8s.io"}
}

// GroupResource names what the codec is for, in metrics.
func (c *Codec) GroupResource() schema.GroupResource { return c.kind.GroupResource() }

// Decode makes an object of the row's type with its apiVersion and kind, its resourceVersion set to rev (0: left
// empty) and its defaults filled in. Nothing of value is kept.
func (c *Codec) Decode(value []byte, rev int64) (api.Object, error) {
	obj, err := c.decode(value)
	if err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", c.kind, err)
	}
	if rev != 0 {
		obj.SetResourceVersion(strconv.FormatInt(rev, 10))
	}
	if c.kind.Default != nil {
		c.kind.Default(obj)
	}
	return obj, nil
}

func (c *Codec) decode(value []byte) (api.Object, error) {
	if !bytes.HasPrefix(value, Magic) {
		return c.decodeJSON(value)
	}
	apiVersion, kind, raw, err := openEnvelope(value[len(Magic):])
	if err != nil {
		return nil, err
	}
	row, older, err := c.row(apiVersion, kind)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return c.decodeOlder(older, raw, nil)
	}
	obj := row.New()
	m, ok := obj.(interface{ Unmarshal([]byte) error })
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	if err := m.Unmarshal(raw); err != nil {
		return nil, err
	}
	return c.toStored(row, obj)
}

func (c *Codec) decodeJSON(value []byte) (api.Object, error) {
	if c.kind.CRD {
		u := &unstructured.Unstructured{}
		if err := utiljson.UnmarshalCaseSensitivePreserveInts(value, &u.Object); err != nil {
			return nil, err
		}
		return u, nil
	}
	var t struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(value, &t); err != nil {
		return nil, err
	}
	row, older, err := c.row(t.APIVersion, t.Kind)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return c.decodeOlder(older, nil, value)
	}
	obj := row.New()
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(value, obj); err != nil {
		return nil, err
	}
	return c.toStored(row, obj)
}

// row is the row that the bytes were written with: the codec's own, or another version of the same kind. For a version
// that has no row it is nil, and older says what it is.
func (c *Codec) row(apiVersion, kind string) (row *api.Kind, older schema.GroupVersionKind, err error) {
	if kind == c.kind.Kind && apiVersion == c.kind.GroupVersion().String() {
		return c.kind, older, nil
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, older, err
	}
	if k, ok := builtin.Table().Kind(gv.WithKind(kind)); ok && k.Storage() == c.kind {
		return k, older, nil
	}
	return nil, gv.WithKind(kind), nil
}

func (c *Codec) toStored(row *api.Kind, obj api.Object) (api.Object, error) {
	if row != c.kind {
		var err error
		if obj, err = row.ToHub(obj); err != nil {
			return nil, err
		}
	}
	obj.GetObjectKind().SetGroupVersionKind(c.kind.GroupVersionKind())
	return obj, nil
}

// Encode makes the bytes to store. obj is not changed; its resourceVersion is left out.
func (c *Codec) Encode(obj api.Object) ([]byte, error) {
	if obj.GetResourceVersion() != "" {
		obj = withoutRevision(obj)
	}
	if c.json {
		return c.encodeJSON(obj)
	}
	b, err := Envelope(obj, c.kind.GroupVersionKind())
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.kind, err)
	}
	return b, nil
}

func (c *Codec) encodeJSON(obj api.Object) ([]byte, error) {
	if !c.kind.CRD && obj.GetObjectKind().GroupVersionKind() != c.kind.GroupVersionKind() {
		obj = shallow(obj)
		obj.GetObjectKind().SetGroupVersionKind(c.kind.GroupVersionKind())
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.kind, err)
	}
	return append(b, '\n'), nil
}

// shallow copies the object's top structure and shares everything below it.
func shallow(obj api.Object) api.Object {
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	return v.Interface().(api.Object)
}

func withoutRevision(obj api.Object) api.Object {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		obj = shallow(obj)
		obj.SetResourceVersion("")
		return obj
	}
	top := make(map[string]any, len(u.Object))
	for k, v := range u.Object {
		top[k] = v
	}
	if meta, ok := u.Object["metadata"].(map[string]any); ok {
		m := make(map[string]any, len(meta))
		for k, v := range meta {
			if k != "resourceVersion" {
				m[k] = v
			}
		}
		top["metadata"] = m
	}
	return &unstructured.Unstructured{Object: top}
}

// Envelope writes any protobuf-capable object (lists and statuses too) as Kubernetes' protobuf representation, in
// one allocation.
func Envelope(obj runtime.Object, gvk schema.GroupVersionKind) ([]byte, error) {
	m, ok := obj.(runtime.ProtobufMarshaller)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}}
	size := m.(interface{ Size() int }).Size()
	// The fields around the raw bytes: their own length, and a tag with a varint of at most ten bytes.
	b := make([]byte, len(Magic)+unknown.Size()+size+12)
	n := copy(b, Magic)
	w, err := unknown.NestedMarshalTo(b[n:], m, uint64(size))
	if err != nil {
		return nil, err
	}
	return b[:n+w], nil
}

// openEnvelope reads a runtime.Unknown without copying its raw bytes.
func openEnvelope(b []byte) (apiVersion, kind string, raw []byte, err error) {
	err = eachField(b, func(n protowire.Number, v []byte) error {
		switch n {
		case 1:
			return eachField(v, func(n protowire.Number, v []byte) error {
				switch n {
				case 1:
					apiVersion = string(v)
				case 2:
					kind = string(v)
				}
				return nil
			})
		case 2:
			raw = v
		}
		return nil
	})
	return apiVersion, kind, raw, err
}

func eachField(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
