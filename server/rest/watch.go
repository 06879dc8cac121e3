package rest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// bookmarkEvery is how often a quiet watch tells its revision to clients that asked for bookmarks.
const bookmarkEvery = time.Minute

// WatchEvent is one event as a client sees it.
type WatchEvent struct {
	Type watch.EventType
	// Entry is the object of ADDED, MODIFIED and DELETED. The object of an event that left the selector is the
	// last one that matched; it must be written with the revision of Rev.
	Entry *store.Entry
	Rev   int64 // the event's revision; of a bookmark, the revision up to which the watch is complete
	// InitialEnd marks the bookmark that ends the initial events.
	InitialEnd bool
	// Status is what an ERROR carries.
	Status *metav1.Status
}

// Watcher is one watch. Next is called from one goroutine.
type Watcher struct {
	Kind     *api.Kind
	sel      selector
	w        store.Watch
	initial  []*store.Entry
	rev      int64
	ended    bool // the initial events' bookmark is due
	failed   *metav1.Status
	bookmark bool
	nextMark time.Time
	deadline time.Time
	now      func() time.Time
	buf      []WatchEvent

	// Of waiting.
	ctx, wait context.Context
	until     time.Time
	cancel    context.CancelFunc
}

// Watch starts a watch on a namespace ("" for all). Its first events are the present state where the options ask for
// that. It ends by itself after the options' timeout.
func (r *REST) Watch(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (*Watcher, error) {
	if err := validateList(o, true); err != nil {
		return nil, err
	}
	sel, err := newSelector(k, o)
	if err != nil {
		return nil, err
	}
	rev, err := parseRev(o.ResourceVersion)
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(1800+rand.IntN(1800)) * time.Second
	if o.TimeoutSeconds != nil && *o.TimeoutSeconds > 0 {
		timeout = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	now := r.Now()
	w := &Watcher{Kind: k, sel: sel, bookmark: o.AllowWatchBookmarks, now: r.Now, deadline: now.Add(timeout),
		nextMark: now.Add(bookmarkEvery)}

	state := rev == 0 // unset or 0 begins with the present state
	if o.SendInitialEvents != nil {
		state = *o.SendInitialEvents
	}
	if state || rev == 0 {
		rv := o.ResourceVersion
		if o.SendInitialEvents != nil && rv == "0" {
			rv = ""
		}
		snap, err := r.snapshot(ctx, k, rv)
		if err != nil {
			return nil, err
		}
		rev = snap.Revision()
		if state {
			if err := r.Store.Unreadable(k.Prefix(namespace)); err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			l := listSnapshot(k, snap, namespace, k.Prefix(namespace), "", sel, 0)
			w.initial = l.Entries
			if err := ready(ctx, k, w.initial...); err != nil {
				return nil, err
			}
			w.ended = o.SendInitialEvents != nil && o.AllowWatchBookmarks
		}
	}
	w.rev = rev
	w.w, err = r.Store.Watch(ctx, k.Prefix(namespace), rev, sel.only()...)
	switch {
	case errors.Is(err, store.ErrCompacted):
		w.failed = expired(rev)
	case errors.Is(err, store.ErrFuture):
		current, _ := r.Store.Revision(ctx)
		return nil, tooLarge(rev, current)
	case err != nil:
		return nil, r.internal(err)
	}
	return w, nil
}

// Begins reports whether the first events are ready: the present state.
func (w *Watcher) Begins() bool { return len(w.initial) > 0 || w.ended }

func expired(rev int64) *metav1.Status {
	s := apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", rev)).ErrStatus
	return &s
}

// Close ends the watch.
func (w *Watcher) Close() {
	if w.cancel != nil {
		w.cancel()
	}
	if w.w != nil {
		w.w.Close()
	}
}

// ErrWatchEnded says that the watch's time was up.
var ErrWatchEnded = errors.New("the watch has ended")

// Next waits for events. The slice is the caller's until the next call. After an ERROR event, ErrWatchEnded follows.
func (w *Watcher) Next(ctx context.Context) ([]WatchEvent, error) {
	w.buf = w.buf[:0]
	if len(w.initial) > 0 {
		for _, e := range w.initial {
			w.buf = append(w.buf, WatchEvent{Type: watch.Added, Entry: e, Rev: e.Rev})
		}
		w.initial = nil
	}
	if w.ended {
		w.ended = false
		w.buf = append(w.buf, WatchEvent{Type: watch.Bookmark, Rev: w.rev, InitialEnd: true})
	}
	if len(w.buf) > 0 {
		return w.buf, nil
	}
	if w.failed != nil {
		if w.w != nil {
			w.w.Close()
			w.w = nil
		}
		s := w.failed
		w.failed = nil
		w.deadline = time.Time{}
		return append(w.buf, WatchEvent{Type: watch.Error, Status: s}), nil
	}
	return w.follow(ctx)
}

// follow waits for what the store has next.
func (w *Watcher) follow(ctx context.Context) ([]WatchEvent, error) {
	for {
		now := w.now()
		if !now.Before(w.deadline) {
			return nil, ErrWatchEnded
		}
		until := w.deadline
		if w.bookmark && w.nextMark.Before(until) {
			until = w.nextMark
		}
		events, rev, err := w.w.Next(w.waiting(ctx, until, now))
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, store.ErrCompacted):
			w.deadline = time.Time{}
			return append(w.buf, WatchEvent{Type: watch.Error, Status: expired(w.rev)}), nil
		default:
			return nil, err
		}
		if err := readyEvents(ctx, w.Kind, events); err != nil {
			return nil, err
		}
		for _, ev := range events {
			if we, ok := w.see(ev); ok {
				w.buf = append(w.buf, we)
			}
		}
		if rev > w.rev {
			w.rev = rev
		}
		if w.bookmark && !w.now().Before(w.nextMark) {
			w.nextMark = w.now().Add(bookmarkEvery)
			w.buf = append(w.buf, WatchEvent{Type: watch.Bookmark, Rev: w.rev})
		}
		if len(w.buf) > 0 {
			return w.buf, nil
		}
	}
}

// waiting is ctx until a time. It is made anew only when either changes or it is over: most waits end with
// events, long before.
func (w *Watcher) waiting(ctx context.Context, until, now time.Time) context.Context {
	if w.wait == nil || w.wait.Err() != nil || w.ctx != ctx || !w.until.Equal(until) {
		if w.cancel != nil {
			w.cancel()
		}
		w.ctx, w.until = ctx, until
		w.wait, w.cancel = context.WithTimeout(ctx, until.Sub(now))
	}
	return w.wait
}

// see is an event as the watch's selector shows it.
func (w *Watcher) see(ev *store.Event) (WatchEvent, bool) {
	e := ev.Entry
	out := WatchEvent{Entry: e, Rev: e.Rev}
	if w.sel.empty() {
		out.Type = [...]watch.EventType{watch.Added, watch.Modified, watch.Deleted}[ev.Type]
		return out, true
	}
	was := ev.Prev != nil && w.sel.matches(ev.Prev)
	if ev.Type == store.Deleted {
		out.Type = watch.Deleted
		if ev.Prev == nil {
			was = w.sel.matches(e)
		}
		return out, was
	}
	is := w.sel.matches(e)
	switch {
	case is && was:
		out.Type = watch.Modified
	case is:
		out.Type = watch.Added
	case was:
		out.Type, out.Entry = watch.Deleted, ev.Prev
	default:
		return out, false
	}
	return out, true
}

// Object is the event's object in the watch's version, private where it had to be changed.
func (w *Watcher) Object(ev *WatchEvent) (api.Object, error) {
	switch {
	case ev.Type == watch.Bookmark:
		return w.mark(ev), nil
	case ev.Entry.Rev == ev.Rev:
		return As(ev.Entry, w.Kind)
	}
	obj, err := As(ev.Entry, w.Kind)
	if err != nil {
		return nil, err
	}
	obj = obj.DeepCopyObject().(api.Object)
	obj.SetResourceVersion(strconv.FormatInt(ev.Rev, 10))
	return obj, nil
}

func (w *Watcher) mark(ev *WatchEvent) api.Object {
	obj := w.Kind.New()
	obj.GetObjectKind().SetGroupVersionKind(w.Kind.GroupVersionKind())
	obj.SetResourceVersion(strconv.FormatInt(ev.Rev, 10))
	if ev.InitialEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return obj
}
