// Package codec turns objects into the negotiated formats of the wire and back: JSON, YAML, protobuf, and the Table and
// PartialObjectMetadata views. The values of the store are api/codec's.
//
// Invariant: objects given to an encoder are never changed; every decoded object of a built-in kind carries its
// apiVersion and kind. The cached encodings beside a store entry (JSON, protobuf without its envelope, metadata) are
// made here and nowhere else.
//
// Only server and its folders import codec.
package codec

import (
	"bytes"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	apicodec "github.com/skiff-sh/skiff/api/codec"
	"github.com/skiff-sh/skiff/server/codec/plan"
	"github.com/skiff-sh/skiff/store"
)

// Scheme knows the Go types of all built-in kinds. It never changes.
var Scheme = apicodec.Scheme

// Message is the protobuf side of a built-in type.
type Message interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
	Unmarshal([]byte) error
}

// magic opens every protobuf value and body of Kubernetes.
var magic = []byte("k8s\x00")

// AppendJSON appends the object's JSON, without a final newline.
func AppendJSON(b []byte, e *store.Entry) ([]byte, error) {
	return e.Append(b, store.JSON, func(b []byte) ([]byte, error) { return plan.Append(b, e.Object) })
}

// AppendRaw appends the object's protobuf message without the envelope. RawSize is its length.
func AppendRaw(b []byte, e *store.Entry) ([]byte, error) {
	return e.Append(b, store.Protobuf, func(b []byte) ([]byte, error) { return AppendRawOf(b, e.Object) })
}

// RawSize is the length in bytes of the object's protobuf message without the envelope.
func RawSize(e *store.Entry) (int, error) {
	if b, ok := e.Kept(store.Protobuf); ok {
		return len(b), nil
	}
	m, ok := e.Object.(Message)
	if !ok {
		return 0, fmt.Errorf("%T has no protobuf form", e.Object)
	}
	return m.Size(), nil
}

// AppendMetadata appends the object's PartialObjectMetadata as JSON.
func AppendMetadata(b []byte, e *store.Entry) ([]byte, error) {
	return e.Append(b, store.Metadata, func(b []byte) ([]byte, error) {
		if whole, ok := e.Kept(store.JSON); ok {
			if meta := metadataIn(whole, e.Object); meta != nil {
				b = append(b, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":`...)
				return append(append(b, meta...), '}'), nil
			}
		}
		return plan.Append(b, Partial(e.Object))
	})
}

// metadataIn cuts the metadata out of an object's JSON as plan writes it, a tenth of the work of writing it again; nil
// where it is not found.
func metadataIn(whole []byte, obj runtime.Object) []byte {
	apiVersion, kind := obj.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	rest, ok := bytes.CutPrefix(whole, []byte(`{"kind":"`+kind+`","apiVersion":"`+apiVersion+`","metadata":`))
	if !ok {
		return nil
	}
	depth, inText := 0, false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{':
			depth++
		case c == '}':
			if depth--; depth == 0 {
				return rest[:i+1]
			}
		}
	}
	return nil
}

// JSON is the object's JSON, without a final newline, kept beside the entry.
func JSON(e *store.Entry) ([]byte, error) {
	return e.Encoded(store.JSON, func() ([]byte, error) { return plan.Marshal(e.Object) })
}

// Raw is the object's protobuf message without the envelope, kept beside the entry.
func Raw(e *store.Entry) ([]byte, error) {
	return e.Encoded(store.Protobuf, func() ([]byte, error) { return rawOf(e.Object) })
}

// Metadata is the object's PartialObjectMetadata as JSON, kept beside the entry.
func Metadata(e *store.Entry) ([]byte, error) {
	return e.Encoded(store.Metadata, func() ([]byte, error) { return plan.Marshal(Partial(e.Object)) })
}

func rawOf(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(Message)
	if !ok {
		return nil, fmt.Errorf("%T has no protobuf form", obj)
	}
	b := make([]byte, m.Size())
	n, err := m.MarshalToSizedBuffer(b)
	return b[len(b)-n:], err
}

// AppendRawOf appends any object's protobuf message without an envelope.
func AppendRawOf(b []byte, obj runtime.Object) ([]byte, error) {
	m, ok := obj.(Message)
	if !ok {
		return b, fmt.Errorf("%T has no protobuf form", obj)
	}
	start, size := len(b), m.Size()
	b = slices.Grow(b, size)[:start+size]
	_, err := m.MarshalToSizedBuffer(b[start:])
	return b, err
}

// Partial is the PartialObjectMetadata of an object. It shares the object's maps and slices.
func Partial(obj api.Object) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}}
	if a, ok := obj.(metav1.ObjectMetaAccessor); ok {
		if m, ok := a.GetObjectMeta().(*metav1.ObjectMeta); ok {
			p.ObjectMeta = *m
			return p
		}
	}
	p.ObjectMeta = metav1.ObjectMeta{Name: obj.GetName(), GenerateName: obj.GetGenerateName(), Namespace: obj.GetNamespace(),
		UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(), Generation: obj.GetGeneration(),
		CreationTimestamp: obj.GetCreationTimestamp(), DeletionTimestamp: obj.GetDeletionTimestamp(),
		DeletionGracePeriodSeconds: obj.GetDeletionGracePeriodSeconds(), Labels: obj.GetLabels(),
		Annotations: obj.GetAnnotations(), OwnerReferences: obj.GetOwnerReferences(), Finalizers: obj.GetFinalizers(),
		ManagedFields: obj.GetManagedFields()}
	return p
}

// Envelope is the head and tail that make a protobuf message of a kind a body of Kubernetes ("k8s\0" and
// runtime.Unknown around it).
func Envelope(gvk schema.GroupVersionKind, size int) (head, tail []byte) {
	apiVersion, kind := gvk.ToAPIVersionAndKind()
	tm := appendString(nil, 1, apiVersion)
	tm = appendString(tm, 2, kind)
	head = append(head, magic...)
	head = appendBytes(head, 1, tm)
	head = append(head, 2<<3|2)
	head = appendVarint(head, uint64(size))
	return head, []byte{3<<3 | 2, 0, 4<<3 | 2, 0}
}

func appendVarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendString(b []byte, field int, s string) []byte {
	b = append(b, byte(field<<3|2))
	b = appendVarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBytes(b []byte, field int, s []byte) []byte {
	b = append(b, byte(field<<3|2))
	b = appendVarint(b, uint64(len(s)))
	return append(b, s...)
}

// Protobuf encodes any built-in object with its envelope.
func Protobuf(obj runtime.Object, gvk schema.GroupVersionKind) ([]byte, error) {
	raw, err := rawOf(obj)
	if err != nil {
		return nil, err
	}
	head, tail := Envelope(gvk, len(raw))
	return bytes.Join([][]byte{head, raw, tail}, nil), nil
}

// open takes a protobuf body apart.
func open(data []byte) (schema.GroupVersionKind, []byte, error) {
	var u runtime.Unknown
	if err := u.Unmarshal(data[len(magic):]); err != nil {
		return schema.GroupVersionKind{}, nil, err
	}
	return u.GroupVersionKind(), u.Raw, nil
}
