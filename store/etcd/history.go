package etcd

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/skiff-sh/skiff/store"
)

// Bounds of the history of one prefix.
const (
	maxEvents     = 16 << 10
	maxEventBytes = 8 << 20         // of stored values; decoded objects take several times that
	maxEventAge   = 2 * time.Minute // older ones go when new ones come: that long a client may be away
	maxRead       = 1024            // events handed to a watcher at once
)

// history is the recent events under one registered prefix. Watchers hold nothing but the revision that they have
// seen, and read from there.
type history struct {
	mu     sync.Mutex
	events []recorded // in revision order; the live ones start at first
	first  int
	bytes  int
	since  int64 // all events after this revision are known
	err    error // why the history has ended
	// asleep are the watchers waiting for news under a folder: an event wakes only the folders above its key.
	asleep map[string]*sleep
	told   int64             // of all events up to this revision, everybody was woken whom they concern
	fields map[string]*field // by which some watches follow only a few objects
	due    []*topicWatcher   // of those, to be woken
}

// sleep is what the watchers of one folder wait in.
type sleep struct {
	over  chan struct{}
	first int64 // the revision of the event that ended it: before that there was nothing for them
}

type recorded struct {
	*store.Event
	size int
	at   time.Time
}

func newHistory(since int64) *history {
	return &history{since: since, told: since, asleep: map[string]*sleep{}}
}

// add appends one event; the watchers sleep on until wake.
func (h *history) add(e *store.Event, size int, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, recorded{e, size, now})
	h.bytes += size
	if len(h.fields) > 0 {
		h.tellTopics(e)
	}
	h.trim(now, 1)
}

// age drops the events that are too old, also where no new ones come.
func (h *history) age(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trim(now, 0)
}

// trim drops events beyond the bounds, but keeps the last few.
func (h *history) trim(now time.Time, keep int) {
	for h.first < len(h.events)-keep {
		old := h.events[h.first]
		if len(h.events)-h.first <= maxEvents && h.bytes <= maxEventBytes && now.Sub(old.at) <= maxEventAge {
			break
		}
		h.since = old.Entry.Rev
		h.bytes -= old.size
		h.events[h.first] = recorded{}
		h.first++
	}
	switch live := len(h.events) - h.first; {
	case h.first > 64 && cap(h.events) > 1024 && live < cap(h.events)/4:
		h.events, h.first = append(make([]recorded, 0, 2*live), h.events[h.first:]...), 0
	case h.first > 64 && h.first > live:
		n := copy(h.events, h.events[h.first:])
		clear(h.events[n:])
		h.events, h.first = h.events[:n], 0
	}
}

// allTold says that everybody was woken for what has happened up to a revision.
func (h *history) allTold(rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = max(h.told, rev)
}

// wake wakes the watchers of all folders above the key of an event.
func (h *history) wake(key string, rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeTopics()
	if len(h.asleep) == 0 {
		return
	}
	for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
		if s, ok := h.asleep[key[:i+1]]; ok {
			s.first = rev
			close(s.over)
			delete(h.asleep, key[:i+1])
		}
	}
}

// close ends all watches with err.
func (h *history) close(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	for folder, s := range h.asleep {
		close(s.over)
		delete(h.asleep, folder)
	}
	for _, f := range h.fields {
		for _, watchers := range f.watchers {
			for _, w := range watchers {
				w.wake()
			}
		}
	}
}

// find returns the event that a write to key at rev made.
func (h *history) find(key string, rev int64) *store.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := h.after(rev - 1); i < len(h.events) && h.events[i].Entry.Rev == rev; i++ {
		if h.events[i].Entry.Key == key {
			return h.events[i].Event
		}
	}
	return nil
}

// after is the place of the first event with a revision above rev.
func (h *history) after(rev int64) int {
	live := h.events[h.first:]
	return h.first + sort.Search(len(live), func(i int) bool { return live[i].Entry.Rev > rev })
}

// cursor is what all watches of a history have: where they are in it.
type cursor struct {
	store   *Store
	history *history
	prefix  string
	rev     int64          // everything up to here was delivered, or is about to be
	buf     []*store.Event // of the caller
	closed  chan struct{}
	once    sync.Once
}

func (s *Store) cursor(h *history, prefix string, rev int64) cursor {
	return cursor{store: s, history: h, prefix: prefix, rev: rev, closed: make(chan struct{})}
}

func (c *cursor) Close() { c.once.Do(func() { close(c.closed) }) }

// next waits for events. read returns the next ones, or the channel that is closed when there may be some. When ctx ends
// first, next returns its error and still the revision up to which there are none: advance moves it on.
func (c *cursor) next(ctx context.Context, read func() ([]*store.Event, <-chan struct{}, error), advance func()) ([]*store.Event, int64, error) {
	for {
		events, news, err := read()
		if len(events) > 0 || err != nil {
			return events, c.rev, err
		}
		select {
		case <-news:
		case <-c.closed:
			return nil, c.rev, errClosed
		case <-ctx.Done():
			advance()
			return nil, c.rev, ctx.Err()
		}
	}
}

func (c *cursor) tooSlow() error {
	return fmt.Errorf("the watch of %s at revision %d is too slow: %w", c.prefix, c.rev, store.ErrCompacted)
}

// watcher reads all of one history that is under a prefix.
type watcher struct {
	cursor
	folder string // of prefix, up to its last slash
	sleep  *sleep // entered when there was nothing left to deliver
}

// Watch delivers all events under prefix after rev.
func (s *Store) Watch(ctx context.Context, prefix string, rev int64, only ...store.Only) (store.Watch, error) {
	st := s.state.Load()
	k := st.kind(prefix)
	if k == nil {
		return nil, fmt.Errorf("watch %s: no codec is registered for the prefix", prefix)
	}
	if rev == 0 {
		rev = st.rev
	}
	if rev > st.rev {
		current, err := s.Revision(ctx)
		if err != nil {
			return nil, err
		}
		if rev > current {
			return nil, fmt.Errorf("watch %s from revision %d, etcd is at %d: %w", prefix, rev, current, store.ErrFuture)
		}
	}
	if len(only) > 0 {
		return k.history.follow(s, prefix, rev, only[0])
	}
	k.history.mu.Lock()
	since := k.history.since
	k.history.mu.Unlock()
	if rev < since {
		return nil, fmt.Errorf("watch %s from revision %d, known since %d: %w", prefix, rev, since, store.ErrCompacted)
	}
	return &watcher{cursor: s.cursor(k.history, prefix, rev), folder: prefix[:strings.LastIndexByte(prefix, '/')+1]}, nil
}

// Next waits for events.
func (w *watcher) Next(ctx context.Context) ([]*store.Event, int64, error) {
	return w.next(ctx, w.read, w.advance)
}

// advance moves the revision on where there is nothing to tell.
func (w *watcher) advance() {
	current := w.store.state.Load().rev // before the look at the history, which then has all up to it
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	w.wakeUp()
	if w.rev < w.history.since {
		return
	}
	for _, e := range w.history.events[w.history.after(w.rev):] {
		if strings.HasPrefix(e.Entry.Key, w.prefix) {
			return
		}
	}
	w.rev = max(w.rev, current)
}

// wakeUp moves the revision on to where there is the first event for a watcher that slept. However long that was, and whatever
// the history has dropped since: nothing of it concerned the watcher. The caller holds the history's lock.
func (w *watcher) wakeUp() {
	switch s := w.sleep; {
	case s == nil:
	case s.first > 0:
		w.rev = max(w.rev, s.first-1)
		w.sleep = nil
	default:
		w.rev = max(w.rev, w.history.told)
	}
}

func (w *watcher) read() ([]*store.Event, <-chan struct{}, error) {
	current := w.store.state.Load().rev
	h := w.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil, nil, h.err
	}
	w.wakeUp()
	if w.rev < h.since {
		return nil, nil, w.tooSlow()
	}
	w.buf = w.buf[:0]
	for i := h.after(w.rev); i < len(h.events); i++ {
		e := h.events[i]
		if len(w.buf) >= maxRead && e.Entry.Rev != w.rev {
			return w.buf, nil, nil
		}
		w.rev = e.Entry.Rev
		if strings.HasPrefix(e.Entry.Key, w.prefix) {
			w.buf = append(w.buf, e.Event)
		}
	}
	w.rev = max(w.rev, current)
	if len(w.buf) > 0 {
		return w.buf, nil, nil
	}
	s, ok := h.asleep[w.folder]
	if !ok {
		s = &sleep{over: make(chan struct{})}
		h.asleep[w.folder] = s
	}
	w.sleep = s
	return nil, s.over, nil
}
