package server

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
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

// gzipFrom is the size in bytes from which answers are compressed for clients that accept it.
const gzipFrom = 128 << 10

var gzips = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

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
}

// send writes an answer whose bytes are ready, in pieces.
func (x *exchange) send(code int, contentType string, pieces ...[]byte) error {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	h := x.w.Header()
	if size >= gzipFrom && strings.Contains(x.r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		x.head(code, contentType)
		z := gzips.Get().(*gzip.Writer)
		defer gzips.Put(z)
		z.Reset(x.w)
		for _, p := range pieces {
			if _, err := z.Write(p); err != nil {
				return nil // the client is gone
			}
		}
		_ = z.Close()
		return nil
	}
	h.Set("Content-Length", strconv.Itoa(size))
	x.head(code, contentType)
	if x.r.Method == http.MethodHead {
		return nil
	}
	for _, p := range pieces {
		if _, err := x.w.Write(p); err != nil {
			return nil
		}
	}
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
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	if st.Code == http.StatusUnauthorized || st.Code == http.StatusForbidden {
		x.w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	m, nerr := codec.Negotiate(x.r, codec.Allow{Protobuf: true, Table: true, Metadata: true})
	if nerr != nil {
		m = codec.Media{}
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
		return x.sendObject(code, m, obj)
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

// sendList writes a list as a concatenation of ready bytes.
func (s *Server) sendList(x *exchange, m codec.Media, l *rest.List) error {
	switch m.View {
	case codec.ViewTable:
		return s.sendTable(x, http.StatusOK, m, l.Kind, l.Entries, l.Meta)
	case codec.ViewMetadata, codec.ViewMetadataList:
		return s.sendMetadataList(x, m, l)
	}
	if m.Format == codec.FormatProtobuf {
		return s.sendProtobufList(x, l.Kind.GroupVersionKind(), l, func(e *store.Entry) ([]byte, error) {
			if l.Kind.Hub == nil {
				return codec.Raw(e)
			}
			obj, err := rest.As(e, l.Kind)
			if err != nil {
				return nil, err
			}
			return codec.Raw(&store.Entry{Object: obj})
		})
	}
	items := make([][]byte, len(l.Entries))
	for i, e := range l.Entries {
		var err error
		if items[i], err = codec.Item(l.Kind, e); err != nil {
			return err
		}
	}
	gv := l.Kind.GroupVersion().String()
	return s.sendJSONList(x, m, l.Kind.Kind+"List", gv, l.Meta, items)
}

// sendJSONList writes a list of items, each without its opening brace.
func (s *Server) sendJSONList(x *exchange, m codec.Media, kind, apiVersion string, meta metav1.ListMeta, items [][]byte) error {
	lm, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	pieces := make([][]byte, 0, 2*len(items)+3)
	head := []byte(`{"kind":"` + kind + `","apiVersion":"` + apiVersion + `","metadata":` + string(lm) + `,"items":[`)
	pieces = append(pieces, head)
	for i, it := range items {
		if i > 0 {
			pieces = append(pieces, nextItem, it)
		} else {
			pieces = append(pieces, firstItem, it)
		}
	}
	return x.sendJSON(http.StatusOK, m, append(pieces, listEnd)...)
}

var firstItem, nextItem, listEnd = []byte("{"), []byte(",{"), []byte("]}")

func (s *Server) sendMetadataList(x *exchange, m codec.Media, l *rest.List) error {
	if m.Format == codec.FormatProtobuf {
		gvk := schema.GroupVersionKind{Group: "meta.k8s.io", Version: m.Version, Kind: "PartialObjectMetadata"}
		return s.sendProtobufList(x, gvk, l, func(e *store.Entry) ([]byte, error) {
			return codec.RawOf(codec.Partial(e.Object))
		})
	}
	items := make([][]byte, len(l.Entries))
	for i, e := range l.Entries {
		b, err := codec.Metadata(e)
		if err != nil {
			return err
		}
		items[i] = metaVersion(b, m.Version)[1:]
	}
	return s.sendJSONList(x, m, "PartialObjectMetadataList", "meta.k8s.io/"+m.Version, l.Meta, items)
}

func (s *Server) sendProtobufList(x *exchange, item schema.GroupVersionKind, l *rest.List, raw func(*store.Entry) ([]byte, error)) error {
	items := make([][]byte, len(l.Entries))
	for i, e := range l.Entries {
		b, err := raw(e)
		if err != nil {
			return err
		}
		items[i] = b
	}
	pieces, err := codec.ProtobufList(item.GroupVersion().WithKind(item.Kind+"List"), l.Meta, items)
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, codec.TypeProtobuf, pieces...)
}

// table options of a request.
func (x *exchange) includeObject() metav1.IncludeObjectPolicy {
	if v := x.q().Get("includeObject"); v != "" {
		return metav1.IncludeObjectPolicy(v)
	}
	return metav1.IncludeMetadata
}

func (s *Server) sendTable(x *exchange, code int, m codec.Media, k *api.Kind, entries []*store.Entry, meta metav1.ListMeta) error {
	b, err := codec.Table(k, m.Version, entries, meta, x.includeObject(), true, time.Now())
	if err != nil {
		return err
	}
	return x.sendJSON(code, m, b)
}
