package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

// This file is how objects look on the wire: JSON, or protobuf in its envelope of a magic number and a runtime.Unknown.

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/vnd.kubernetes.protobuf"
	maxFrame     = 64 << 20 // of a watch event; etcd's limit for an object is 1.5 MiB
)

var magic = []byte("k8s\x00")

// message is what generated protobuf types have.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// speaksProtobuf reports whether objects of the kind go as protobuf: servers keep apiextensions and apiregistration, as
// custom resources, in JSON.
func speaksProtobuf(k *api.Kind) bool {
	if k.CRD || k.Aggregated || k.Group == "apiextensions.k8s.io" || k.Group == "apiregistration.k8s.io" || k.NewList == nil {
		return false
	}
	_, obj := k.New().(message)
	_, list := k.NewList().(message)
	return obj && list
}

func accept(k *api.Kind) string {
	if speaksProtobuf(k) {
		return typeProtobuf + "," + typeJSON
	}
	return typeJSON
}

func acceptWatch(k *api.Kind) string {
	if speaksProtobuf(k) {
		return typeProtobuf + ";stream=watch," + typeJSON + ";stream=watch," + typeJSON
	}
	return typeJSON + ";stream=watch," + typeJSON
}

// encode makes a request's body of an object: in protobuf if it is of the kind's own type.
func encode(k *api.Kind, obj api.Object) (body []byte, contentType string, err error) {
	own := reflect.TypeOf(obj) == reflect.TypeOf(k.New())
	if m, ok := obj.(message); ok && own && speaksProtobuf(k) {
		raw, err := m.Marshal()
		if err != nil {
			return nil, "", err
		}
		u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: k.GroupVersion().String(), Kind: k.Kind}, Raw: raw}
		b, err := u.Marshal()
		return append(bytes.Clone(magic), b...), typeProtobuf, err
	}
	if own && obj.GetObjectKind().GroupVersionKind() != k.GroupVersionKind() {
		obj = obj.DeepCopyObject().(api.Object)
		obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
	}
	body, err = encodeJSON(obj)
	return body, typeJSON, err
}

func encodeJSON(v any) ([]byte, error) { return json.Marshal(v) }

// encodeBody makes the body of an action, with its apiVersion and kind.
func encodeBody(k *api.Kind, subresource string, body runtime.Object) ([]byte, error) {
	gvk := body.GetObjectKind().GroupVersionKind()
	if gvk.Empty() {
		gvk = k.GroupVersionKind()
		if sub, ok := k.Subresource(subresource); ok && sub.Kind != "" {
			gvk = schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
		} else if obj, ok := body.(api.Object); ok {
			if row, ok := builtin.Table().Of(obj); ok {
				gvk = row.GroupVersionKind()
			}
		}
		body = body.DeepCopyObject()
		body.GetObjectKind().SetGroupVersionKind(gvk)
	}
	return encodeJSON(body)
}

// envelope opens a protobuf envelope.
func envelope(body []byte) (*runtime.Unknown, bool, error) {
	if !bytes.HasPrefix(body, magic) {
		return nil, false, nil
	}
	u := &runtime.Unknown{}
	if err := u.Unmarshal(body[len(magic):]); err != nil {
		return nil, true, fmt.Errorf("protobuf envelope: %w", err)
	}
	return u, true, nil
}

// decodeObject decodes into what make gives for the kind that the bytes name; a Status always becomes a *metav1.Status.
func decodeObject(body []byte, make func(kind string) runtime.Object) (runtime.Object, error) {
	u, isProtobuf, err := envelope(body)
	if err != nil {
		return nil, err
	}
	t := metav1.TypeMeta{}
	if isProtobuf {
		t.APIVersion, t.Kind = u.APIVersion, u.Kind
	} else if err := json.Unmarshal(body, &t); err != nil {
		return nil, fmt.Errorf("answer %.100q: %w", body, err)
	}
	var obj runtime.Object
	if t.Kind == "Status" && t.APIVersion == "v1" {
		obj = &metav1.Status{}
	} else {
		obj = make(t.Kind)
	}
	if isProtobuf {
		m, ok := obj.(message)
		if !ok {
			return nil, fmt.Errorf("%T has no protobuf form", obj)
		}
		err = m.Unmarshal(u.Raw)
	} else {
		err = json.Unmarshal(body, obj)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Kind, err)
	}
	if t.Kind != "" {
		obj.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(t.APIVersion, t.Kind))
	}
	return obj, nil
}

func decodeStatus(body []byte) (*metav1.Status, bool) {
	obj, err := decodeObject(body, func(string) runtime.Object { return &metav1.PartialObjectMetadata{} })
	if err != nil {
		return nil, false
	}
	s, ok := obj.(*metav1.Status)
	return s, ok
}

// decodeList decodes a list into objects that do not hold one another in memory.
func decodeList(body []byte, k *api.Kind) ([]api.Object, metav1.ListMeta, error) {
	list, err := decodeObject(body, func(string) runtime.Object { return k.NewList() })
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	l, ok := list.(metav1.ListInterface)
	if !ok {
		return nil, metav1.ListMeta{}, fmt.Errorf("the server answered with a %T", list)
	}
	meta := metav1.ListMeta{ResourceVersion: l.GetResourceVersion(), Continue: l.GetContinue(), RemainingItemCount: l.GetRemainingItemCount()}
	items := reflect.ValueOf(list).Elem().FieldByName("Items")
	objs := make([]api.Object, items.Len())
	for i := range objs {
		one := reflect.New(items.Type().Elem())
		one.Elem().Set(items.Index(i))
		obj, ok := one.Interface().(api.Object)
		if !ok {
			return nil, meta, fmt.Errorf("the list holds %s", items.Type().Elem())
		}
		if obj.GetObjectKind().GroupVersionKind().Empty() {
			obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
		}
		objs[i] = obj
	}
	return objs, meta, nil
}

// stream is a watch over HTTP.
type stream struct {
	results chan watch.Event
	cancel  context.CancelFunc
}

func (s *stream) Stop()                          { s.cancel() }
func (s *stream) ResultChan() <-chan watch.Event { return s.results }

func newStream(ctx context.Context, cancel context.CancelFunc, resp *http.Response, k *api.Kind) *stream {
	s := &stream{results: make(chan watch.Event, 16), cancel: cancel}
	next := jsonFrames(resp.Body)
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == typeProtobuf {
		next = protobufFrames(resp.Body)
	}
	go func() {
		defer cancel()
		defer close(s.results)
		defer resp.Body.Close()
		for {
			e, err := next()
			if err == nil {
				var event watch.Event
				if event, err = decodeEvent(e, k); err == nil {
					if !s.send(ctx, event) {
						return
					}
					continue
				}
			}
			if _, malformed := errors.AsType[*malformed](err); malformed && ctx.Err() == nil {
				status := apierrors.NewInternalError(fmt.Errorf("the watch cannot be decoded: %w", err)).ErrStatus
				s.send(ctx, watch.Event{Type: watch.Error, Object: &status})
			}
			return
		}
	}()
	return s
}

func (s *stream) send(ctx context.Context, e watch.Event) bool {
	select {
	case s.results <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// malformed is an error in what was received, as opposed to a connection that ended.
type malformed struct{ error }

func (m *malformed) Unwrap() error { return m.error }

func decodeEvent(e *metav1.WatchEvent, k *api.Kind) (watch.Event, error) {
	obj, err := decodeObject(e.Object.Raw, func(string) runtime.Object { return k.New() })
	if err != nil {
		return watch.Event{}, &malformed{err}
	}
	return watch.Event{Type: watch.EventType(e.Type), Object: obj}, nil
}

// jsonFrames reads JSON documents one after the other.
func jsonFrames(r io.Reader) func() (*metav1.WatchEvent, error) {
	d := json.NewDecoder(r)
	return func() (*metav1.WatchEvent, error) {
		e := &metav1.WatchEvent{}
		err := d.Decode(e)
		if _, ok := errors.AsType[*json.SyntaxError](err); ok {
			err = &malformed{err}
		}
		return e, err
	}
}

// protobufFrames reads WatchEvents without an envelope, each after its length in four bytes; the object inside has one.
func protobufFrames(r io.Reader) func() (*metav1.WatchEvent, error) {
	return func() (*metav1.WatchEvent, error) {
		var size [4]byte
		if _, err := io.ReadFull(r, size[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > maxFrame {
			return nil, &malformed{fmt.Errorf("a frame of %d bytes", n)}
		}
		frame := bytes.Buffer{} // grows with what comes, not with what was announced
		if _, err := io.CopyN(&frame, r, int64(n)); err != nil {
			return nil, err
		}
		e := &metav1.WatchEvent{}
		if err := e.Unmarshal(frame.Bytes()); err != nil {
			return nil, &malformed{err}
		}
		return e, nil
	}
}
