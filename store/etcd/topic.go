package etcd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/store"
)

// This file is the watches that follow only the objects of one value ("spec.nodeName=a"). What happens to others costs them
// nothing: they neither wake up for it nor look through it.

// maxPending is how many events such a watch may be behind by.
const maxPending = 4 << 10

// field is a value by which watches of a history are found.
type field struct {
	only     store.Only // of whoever came first: all of one name are the same
	watchers map[string][]*topicWatcher
}

// topicWatcher is one watch of one value. What is not constant is guarded by its history.
type topicWatcher struct {
	cursor
	only    store.Only
	pending []*store.Event
	lost    bool          // it was too slow
	news    chan struct{} // while it sleeps
}

// follow starts a watch of one value after rev, which is known.
func (h *history) follow(s *Store, prefix string, rev int64, only store.Only) (*topicWatcher, error) {
	w := &topicWatcher{cursor: s.cursor(h, prefix, rev), only: only}
	h.mu.Lock()
	defer h.mu.Unlock()
	if rev < h.since {
		return nil, fmt.Errorf("watch %s from revision %d, known since %d: %w", prefix, rev, h.since, store.ErrCompacted)
	}
	for i := h.after(rev); i < len(h.events); i++ {
		if e := h.events[i].Event; concerns(e, only) {
			w.tell(e)
		}
	}
	if h.fields == nil {
		h.fields = map[string]*field{}
	}
	f := h.fields[only.Field]
	if f == nil {
		f = &field{only: only, watchers: map[string][]*topicWatcher{}}
		h.fields[only.Field] = f
	}
	f.watchers[only.Value] = append(f.watchers[only.Value], w)
	return w, nil
}

func concerns(e *store.Event, only store.Only) bool {
	return only.Of(e.Entry.Object) == only.Value || e.Prev != nil && only.Of(e.Prev.Object) == only.Value
}

// tellTopics hands an event to the watches of the values that its object has and had. The caller holds the history.
func (h *history) tellTopics(e *store.Event) {
	for _, f := range h.fields {
		now := f.only.Of(e.Entry.Object)
		tell := func(value string) {
			for _, w := range f.watchers[value] {
				if w.tell(e) {
					h.due = append(h.due, w)
				}
			}
		}
		tell(now)
		if e.Prev != nil {
			if before := f.only.Of(e.Prev.Object); before != now {
				tell(before)
			}
		}
	}
}

// wakeTopics wakes the watches that have been told something. The caller holds the history.
func (h *history) wakeTopics() {
	for i, w := range h.due {
		w.wake()
		h.due[i] = nil
	}
	h.due = h.due[:0]
}

// tell queues an event, if it is under the prefix.
func (w *topicWatcher) tell(e *store.Event) bool {
	if w.lost || !strings.HasPrefix(e.Entry.Key, w.prefix) {
		return false
	}
	if len(w.pending) >= maxPending {
		w.lost, w.pending = true, nil
	} else {
		w.pending = append(w.pending, e)
	}
	return true
}

func (w *topicWatcher) wake() {
	if w.news != nil {
		close(w.news)
		w.news = nil
	}
}

// Close ends the watch.
func (w *topicWatcher) Close() { w.once.Do(w.leave) }

// leave takes the watch out of its topic.
func (w *topicWatcher) leave() {
	close(w.closed)
	h := w.history
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.fields[w.only.Field]
	if f == nil {
		return
	}
	rest := slices.DeleteFunc(f.watchers[w.only.Value], func(x *topicWatcher) bool { return x == w })
	if f.watchers[w.only.Value] = rest; len(rest) == 0 {
		delete(f.watchers, w.only.Value)
	}
	if len(f.watchers) == 0 {
		delete(h.fields, w.only.Field)
	}
}

// Next waits for events.
func (w *topicWatcher) Next(ctx context.Context) ([]*store.Event, int64, error) {
	return w.next(ctx, w.read, w.advance)
}

// advance moves the revision on where there is nothing to tell.
func (w *topicWatcher) advance() {
	current := w.store.state.Load().rev
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	if len(w.pending) == 0 && !w.lost {
		w.rev = max(w.rev, current)
	}
}

func (w *topicWatcher) read() ([]*store.Event, <-chan struct{}, error) {
	current := w.store.state.Load().rev // before the look at what is pending, which then has all up to it
	h := w.history
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.err != nil:
		return nil, nil, h.err
	case w.lost:
		return nil, nil, w.tooSlow()
	}
	if n := len(w.pending); n > 0 {
		w.rev = max(current, w.pending[n-1].Entry.Rev)
		clear(w.buf[:cap(w.buf)]) // hold nothing of the past
		w.buf, w.pending = w.pending, w.buf[:0]
		return w.buf, nil, nil
	}
	w.rev = max(w.rev, current)
	if w.news == nil {
		w.news = make(chan struct{})
	}
	return nil, w.news, nil
}
