package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store"
)

func (s *Server) watch(x *exchange) error {
	k := x.info.Kind
	o, err := options(x, metav1.Convert_url_Values_To_v1_ListOptions)
	if err != nil {
		return err
	}
	m, err := codec.Negotiate(x.r, one(k))
	if err != nil {
		return err
	}
	if m.Format == codec.FormatYAML {
		m.Format = codec.FormatJSON // there is no stream of YAML
	}
	if x.info.Name != "" && o.FieldSelector == "" {
		o.FieldSelector = "metadata.name=" + x.info.Name // the old path of a watch on one object
	}
	w, err := s.rest.Watch(x.r.Context(), k, x.info.Namespace, o)
	if err != nil {
		return err
	}
	defer w.Close()
	m.Stream = true
	x.head(http.StatusOK, m.ContentType())
	rc := http.NewResponseController(x.w)
	if rc.Flush() != nil {
		return nil
	}
	same := s.watching(k)
	same.Add(1)
	defer same.Add(-1)
	sent := s.metrics.watchEvents.WithLabelValues(k.Group, k.Version, k.Plural)
	if !w.Begins() {
		x.ticket.Done()
	}
	ww := &watchWriter{to: x.w, k: k, m: m, w: w, include: x.includeObject(), headers: true}
	slow := patient(rc, s.cfg.SlowWatch)
	var between pause
	for wrote := false; ; wrote = true {
		if wrote && !between.last(x.r.Context(), pace(same.Load())) {
			return nil
		}
		events, err := w.Next(x.r.Context())
		if err != nil {
			if !errors.Is(err, rest.ErrWatchEnded) && x.r.Context().Err() == nil {
				s.cfg.Log.Warn("a watch ended", "resource", k.String(), "err", err)
			}
			return nil
		}
		err = slow.during(func() error {
			if err := ww.batch(events); err != nil {
				return err
			}
			return rc.Flush()
		})
		if err != nil {
			return nil
		}
		x.ticket.Done() // the watch has begun
		sent.Add(float64(len(events)))
	}
}

// watching counts the open watches of a kind.
func (s *Server) watching(k *api.Kind) *atomic.Int64 {
	n, _ := s.watches.LoadOrStore(k, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// pace is the least time between two writes to one watch, when so many follow the same kind. A write costs far more than
// the event in it, so many watchers get the events of a few milliseconds together; the first event after a rest is
// never held back.
func pace(watches int64) time.Duration {
	const each, least, most = 100 * time.Microsecond, time.Millisecond, 50 * time.Millisecond
	d := time.Duration(watches) * each
	if d < least {
		return 0
	}
	return min(d, most)
}

// pause is a timer that is used again and again, by one goroutine.
type pause struct{ timer *time.Timer }

// last waits for a time; it tells whether ctx still lives.
func (p *pause) last(ctx context.Context, d time.Duration) bool {
	switch {
	case d <= 0:
		return true
	case p.timer == nil:
		p.timer = time.NewTimer(d)
	default:
		p.timer.Reset(d)
	}
	select {
	case <-p.timer.C:
		return true
	case <-ctx.Done():
		p.timer.Stop()
		return false
	}
}

// batches are buffers for the events of one write. A watch holds one only while it writes.
var batches = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, maxBatch+maxBatch/4)) }}

const (
	// maxBatch is the size in bytes from which a batch is written before it is complete.
	maxBatch = 3 * frame
	// frame is what most clients take in a frame of HTTP/2: each costs two switches between goroutines, full or not.
	frame = 16 << 10
)

// batch writes events.
func (ww *watchWriter) batch(events []rest.WatchEvent) error {
	ww.out = batches.Get().(*bytes.Buffer)
	defer func() {
		if ww.out.Cap() <= 4*maxBatch {
			batches.Put(ww.out)
		}
		ww.out = nil
	}()
	ww.out.Reset()
	for i := range events {
		if err := ww.write(&events[i]); err != nil {
			return err
		}
		n := ww.out.Len()
		if last := i == len(events)-1; !last {
			if n < maxBatch {
				continue
			}
			n -= n % frame // the rest goes with the next events
		}
		if _, err := ww.to.Write(ww.out.Next(n)); err != nil {
			return err
		}
	}
	return nil
}

// watchWriter frames events for one client.
type watchWriter struct {
	to      io.Writer
	out     *bytes.Buffer // of the batch
	k       *api.Kind
	m       codec.Media
	w       *rest.Watcher
	include metav1.IncludeObjectPolicy
	headers bool // the next Table has column definitions
}

func (ww *watchWriter) write(ev *rest.WatchEvent) error {
	if ww.m.Format == codec.FormatProtobuf {
		return ww.writeProtobuf(ev)
	}
	obj, err := ww.json(ev)
	if err != nil {
		return err
	}
	ww.out.WriteString(`{"type":"`)
	ww.out.WriteString(string(ev.Type))
	ww.out.WriteString(`","object":`)
	ww.out.Write(obj)
	ww.out.WriteString("}\n")
	return nil
}

// entry is the event's object as an entry whose encodings are kept, where it is as stored.
func (ww *watchWriter) entry(ev *rest.WatchEvent) (*store.Entry, error) {
	if ev.Type != watch.Bookmark && ev.Entry.Rev == ev.Rev && ww.k.Hub == nil {
		return ev.Entry, nil
	}
	obj, err := ww.w.Object(ev)
	if err != nil {
		return nil, err
	}
	return &store.Entry{Object: obj, Rev: ev.Rev}, nil
}

func (ww *watchWriter) json(ev *rest.WatchEvent) ([]byte, error) {
	if ev.Type == watch.Error {
		return json.Marshal(ev.Status)
	}
	e, err := ww.entry(ev)
	if err != nil {
		return nil, err
	}
	switch ww.m.View {
	case codec.ViewTable:
		if ev.Type == watch.Bookmark {
			return ww.tableMark(ev)
		}
		row := &store.Entry{Object: e.Object}
		if ww.k.Hub != nil {
			row.Object = ev.Entry.Object // the Table converts by itself
		}
		b, err := ww.table().Whole([]*store.Entry{row}, metav1.ListMeta{ResourceVersion: e.Object.GetResourceVersion()}, ww.headers)
		ww.headers = false
		return b, err
	case codec.ViewMetadata, codec.ViewMetadataList:
		b, err := codec.Metadata(e)
		return metaVersion(b, ww.m.Version), err
	}
	return codec.JSON(e)
}

// tableMark is a bookmark as a Table: one row without cells' meaning, for its metadata.
func (ww *watchWriter) tableMark(ev *rest.WatchEvent) ([]byte, error) {
	obj, err := ww.w.Object(ev)
	if err != nil {
		return nil, err
	}
	e := &store.Entry{Object: obj}
	if ww.k.Hub != nil {
		e.Object = ww.k.Hub.New()
		e.Object.SetResourceVersion(obj.GetResourceVersion())
		e.Object.SetAnnotations(obj.GetAnnotations())
	}
	b, err := ww.table().Whole([]*store.Entry{e}, metav1.ListMeta{ResourceVersion: obj.GetResourceVersion()}, ww.headers)
	ww.headers = false
	return b, err
}

func (ww *watchWriter) table() *codec.Table {
	return &codec.Table{Kind: ww.k, Version: ww.m.Version, Include: ww.include, Now: time.Now()}
}

// writeProtobuf writes a frame: its length in four bytes, and a WatchEvent around the object's body.
func (ww *watchWriter) writeProtobuf(ev *rest.WatchEvent) error {
	var head, raw, tail []byte
	var err error
	switch e, eerr := ww.protobufEntry(ev); {
	case eerr != nil:
		return eerr
	case ev.Type == watch.Error:
		raw, err = codec.Protobuf(ev.Status, ev.Status.GroupVersionKind())
	case ww.m.View != codec.ViewObject:
		p := codec.Partial(e.Object)
		p.APIVersion = "meta.k8s.io/" + ww.m.Version
		raw, err = codec.Protobuf(p, p.GroupVersionKind())
	default:
		if raw, err = codec.Raw(e); err == nil {
			head, tail = codec.Envelope(ww.k.GroupVersionKind(), len(raw))
		}
	}
	if err != nil {
		return err
	}
	// WatchEvent: type in field 1; in field 2 a RawExtension, whose field 1 is the body.
	body := len(head) + len(raw) + len(tail)
	frame := make([]byte, 4, 40)
	frame = append(frame, 1<<3|2, byte(len(ev.Type)))
	frame = append(frame, ev.Type...)
	frame = append(frame, 2<<3|2)
	frame = binary.AppendUvarint(frame, uint64(1+uvarintLen(body)+body))
	frame = append(frame, 1<<3|2)
	frame = binary.AppendUvarint(frame, uint64(body))
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4+body))
	for _, p := range [][]byte{frame, head, raw, tail} {
		ww.out.Write(p)
	}
	return nil
}

func (ww *watchWriter) protobufEntry(ev *rest.WatchEvent) (*store.Entry, error) {
	if ev.Type == watch.Error {
		return nil, nil
	}
	return ww.entry(ev)
}

func uvarintLen(n int) int { return len(binary.AppendUvarint(nil, uint64(n))) }
