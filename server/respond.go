package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store"
)

// head writes the status line and headers.
func (x *exchange) head(code int, contentType string) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	for _, t := range x.warnings {
		if v, err := utilnet.NewWarningHeader(299, "-", t); err == nil {
			h.Add("Warning", v)
		}
	}
	x.code = code
	x.w.WriteHeader(code)
	if x.audit != nil && x.longRunning() {
		x.audit.Started(code)
	}
}

// send writes an answer whose bytes are ready, in pieces.
func (x *exchange) send(code int, contentType string, pieces ...[]byte) error {
	o := x.output(code, contentType)
	for _, p := range pieces {
		o.b = append(o.b, p...)
		o.pass()
	}
	o.end()
	return nil
}

var newline = []byte("\n")

// sendJSON writes JSON as the negotiation wants it: as it is, indented, or as YAML.
func (x *exchange) sendJSON(code int, m codec.Media, pieces ...[]byte) error {
	if m.Format == codec.FormatYAML {
		y, err := codec.YAML(bytes.Join(pieces, nil))
		if err != nil {
			return err
		}
		return x.send(code, codec.TypeYAML, y)
	}
	if m.Pretty {
		var b bytes.Buffer
		if err := json.Indent(&b, bytes.Join(pieces, nil), "", "  "); err != nil {
			return err
		}
		pieces = [][]byte{b.Bytes()}
	}
	return x.send(code, codec.TypeJSON, append(pieces, newline)...)
}

// sendObject writes any object that is no entry of the store.
func (x *exchange) sendObject(code int, m codec.Media, obj runtime.Object) error {
	if m.Format == codec.FormatProtobuf {
		if _, ok := obj.(codec.Message); ok {
			b, err := codec.Protobuf(obj, obj.GetObjectKind().GroupVersionKind())
			if err != nil {
				return err
			}
			return x.send(code, codec.TypeProtobuf, b)
		}
		m.Format = codec.FormatJSON
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	return x.sendJSON(code, m, b)
}

// fail answers with an error, unless an answer has begun.
func (s *Server) fail(x *exchange, err error) {
	st := statusOf(err)
	if x.code != 0 {
		return
	}
	x.leaveBody()
	var nobody *undecided
	if errors.As(err, &nobody) {
		x.w.Header().Set("X-Content-Type-Options", "nosniff")
		_ = x.send(http.StatusInternalServerError, plainText, fmt.Appendf(nil, "Internal Server Error: %q: %v\n", x.r.RequestURI, nobody.error))
		return
	}
	x.failed = st
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	if st.Code == http.StatusUnauthorized || st.Code == http.StatusForbidden {
		x.w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	m, nerr := codec.Negotiate(x.r, codec.Allow{Protobuf: true, Table: true, Metadata: true})
	if nerr != nil && st.Code == http.StatusNotAcceptable {
		// The client takes nothing that is written here, so it is written for people.
		if b, err := json.MarshalIndent(st, "", "  "); err == nil {
			_ = x.send(int(st.Code), codec.TypeJSON, b)
			return
		}
	}
	if err := x.sendObject(int(st.Code), m, st); err != nil {
		s.cfg.Log.Error("cannot write an error", "err", err)
	}
}

// sendEntry writes one stored object.
func (s *Server) sendEntry(x *exchange, code int, m codec.Media, k *api.Kind, e *store.Entry) error {
	switch m.View {
	case codec.ViewTable:
		return s.sendTable(x, code, m, k, []*store.Entry{e}, metav1.ListMeta{ResourceVersion: e.Object.GetResourceVersion()})
	case codec.ViewMetadata, codec.ViewMetadataList:
		if m.Format == codec.FormatProtobuf {
			p := codec.Partial(e.Object)
			p.APIVersion = "meta.k8s.io/" + m.Version
			return x.sendObject(code, m, p)
		}
		b, err := codec.Metadata(e)
		if err != nil {
			return err
		}
		return x.sendJSON(code, m, metaVersion(b, m.Version))
	}
	if k.Hub != nil {
		obj, err := rest.As(e, k)
		if err != nil {
			return err
		}
		if obj != e.Object {
			return x.sendObject(code, m, obj)
		}
	}
	if m.Format == codec.FormatProtobuf {
		raw, err := codec.Raw(e)
		if err != nil {
			return err
		}
		head, tail := codec.Envelope(k.GroupVersionKind(), len(raw))
		return x.send(code, codec.TypeProtobuf, head, raw, tail)
	}
	b, err := codec.JSON(e)
	if err != nil {
		return err
	}
	return x.sendJSON(code, m, b)
}

// metaVersion puts the older version's name into a PartialObjectMetadata that was made for v1.
func metaVersion(b []byte, version string) []byte {
	if version == "v1" {
		return b
	}
	return bytes.Replace(b, []byte("meta.k8s.io/v1"), []byte("meta.k8s.io/"+version), 1)
}

// sendList writes a list piece by piece: what is in memory of it is never more than one chunk.
func (s *Server) sendList(x *exchange, m codec.Media, l *rest.List) error {
	k := l.Kind
	switch m.View {
	case codec.ViewTable:
		return s.sendTable(x, http.StatusOK, m, k, l.Entries, l.Meta)
	case codec.ViewMetadata, codec.ViewMetadataList:
		return s.sendMetadataList(x, m, l)
	}
	if m.Format == codec.FormatProtobuf && k.Hub == nil {
		return x.sendProtobufList(k.GroupVersionKind(), l, codec.RawSize, codec.AppendRaw)
	} else if m.Format == codec.FormatProtobuf {
		converted := func(e *store.Entry) *store.Entry {
			obj, err := rest.As(e, k)
			if err != nil {
				return e // appending it will say so
			}
			return &store.Entry{Object: obj}
		}
		return x.sendProtobufList(k.GroupVersionKind(), l,
			func(e *store.Entry) (int, error) { return codec.RawSize(converted(e)) },
			func(b []byte, e *store.Entry) ([]byte, error) { return codec.AppendRaw(b, converted(e)) })
	}
	return x.sendJSONList(m, k.Kind+"List", k.GroupVersion().String(), l, func(b []byte, e *store.Entry) ([]byte, error) {
		return codec.AppendItem(b, k, e)
	})
}

func (x *exchange) sendJSONList(m codec.Media, kind, apiVersion string, l *rest.List, item func([]byte, *store.Entry) ([]byte, error)) error {
	lm, err := json.Marshal(l.Meta)
	if err != nil {
		return err
	}
	head := []byte(`{"kind":"` + kind + `","apiVersion":"` + apiVersion + `","metadata":` + string(lm) + `,"items":[`)
	return x.sendItems(http.StatusOK, m, head, l.Entries, item, "]}")
}

// sendItems writes JSON that has one item for each entry between its head and end.
func (x *exchange) sendItems(code int, m codec.Media, head []byte, entries []*store.Entry, item func([]byte, *store.Entry) ([]byte, error), end string) error {
	if m.Format == codec.FormatYAML { // which is made of the document as a whole
		b, err := appendItems(head, entries, item, func([]byte) []byte { return nil })
		if err != nil {
			return err
		}
		return x.sendJSON(code, m, append(b, end...))
	}
	if m.Pretty {
		var err error
		if head, item, end, err = indented(head, item, end, len(entries)); err != nil {
			return err
		}
	}
	o := x.output(code, codec.TypeJSON)
	o.b = append(o.b, head...)
	var err error
	o.b, err = appendItems(o.b, entries, item, func(b []byte) []byte {
		o.b = b
		o.pass()
		return o.b
	})
	return o.finish(err, end, "\n")
}

// indented makes a document of so many items one for people, without ever having it as a whole.
func indented(head []byte, item func([]byte, *store.Entry) ([]byte, error), end string, items int) ([]byte, func([]byte, *store.Entry) ([]byte, error), string, error) {
	var frame, one bytes.Buffer
	if err := json.Indent(&frame, append(head, end...), "", "  "); err != nil || items == 0 {
		return frame.Bytes(), item, "", err
	}
	// Around its items, the document ends with "[]", a new line and a brace.
	head = bytes.TrimSuffix(frame.Bytes(), []byte("]\n}"))
	var flat []byte
	pretty := func(b []byte, e *store.Entry) ([]byte, error) {
		var err error
		if flat, err = item(flat[:0], e); err != nil {
			return b, err
		}
		one.Reset()
		if err := json.Indent(&one, flat, "    ", "  "); err != nil {
			return b, err
		}
		return append(append(b, "\n    "...), one.Bytes()...), nil
	}
	return head, pretty, "\n  ]\n}", nil
}

// appendItems appends the items, and hands on what there is after each where pass returns what to go on with.
func appendItems(b []byte, entries []*store.Entry, item func([]byte, *store.Entry) ([]byte, error), pass func([]byte) []byte) ([]byte, error) {
	var err error
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = item(b, e); err != nil {
			return b, err
		}
		if rest := pass(b); rest != nil {
			b = rest
		}
	}
	return b, nil
}

func (s *Server) sendMetadataList(x *exchange, m codec.Media, l *rest.List) error {
	if m.Format == codec.FormatProtobuf {
		gvk := schema.GroupVersionKind{Group: "meta.k8s.io", Version: m.Version, Kind: "PartialObjectMetadata"}
		return x.sendProtobufList(gvk, l,
			func(e *store.Entry) (int, error) { return codec.Partial(e.Object).Size(), nil },
			func(b []byte, e *store.Entry) ([]byte, error) { return codec.AppendRawOf(b, codec.Partial(e.Object)) })
	}
	item := codec.AppendMetadata
	if m.Version != "v1" {
		item = func(b []byte, e *store.Entry) ([]byte, error) {
			j, err := codec.Metadata(e)
			return append(b, metaVersion(j, m.Version)...), err
		}
	}
	return x.sendJSONList(m, "PartialObjectMetadataList", "meta.k8s.io/"+m.Version, l, item)
}

func (x *exchange) sendProtobufList(item schema.GroupVersionKind, l *rest.List, size func(*store.Entry) (int, error), raw func([]byte, *store.Entry) ([]byte, error)) error {
	sizes := make([]int, len(l.Entries))
	for i, e := range l.Entries {
		var err error
		if sizes[i], err = size(e); err != nil {
			return err
		}
	}
	head, tail, err := codec.ProtobufList(item.GroupVersion().WithKind(item.Kind+"List"), l.Meta, sizes)
	if err != nil {
		return err
	}
	o := x.output(http.StatusOK, codec.TypeProtobuf)
	o.b = append(o.b, head...)
	for i, e := range l.Entries {
		o.b = codec.AppendItemHead(o.b, sizes[i])
		if o.b, err = raw(o.b, e); err != nil {
			break
		}
		o.pass()
	}
	return o.finish(err, string(tail))
}

// table options of a request.
func (x *exchange) includeObject() metav1.IncludeObjectPolicy {
	if v := x.q().Get("includeObject"); v != "" {
		return metav1.IncludeObjectPolicy(v)
	}
	return metav1.IncludeMetadata
}

func (s *Server) sendTable(x *exchange, code int, m codec.Media, k *api.Kind, entries []*store.Entry, meta metav1.ListMeta) error {
	t := &codec.Table{Kind: k, Version: m.Version, Include: x.includeObject(), Now: time.Now()}
	head, err := t.AppendHead(nil, meta, true)
	if err != nil {
		return err
	}
	return x.sendItems(code, m, head, entries, t.AppendRow, codec.TableEnd)
}
