package storetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skiff-sh/skiff/store"
)

// seen is what a client saw: the state at a revision, as "key=value" lines.
type seen struct {
	what string
	rev  int64
	have []string
}

// world is what all clients of one run did and saw.
type world struct {
	*harness
	mu     sync.Mutex
	writes map[int64]string // acknowledged, by revision, as show writes events
	views  []seen
	last   atomic.Int64 // the highest acknowledged revision
}

// histories lets clients write, read, list at old revisions and watch, all at the same time, and then holds everything that they
// saw against the one sequence of writes that explains it.
func histories(t *testing.T, h *harness) {
	const writers, readers, watchers, rounds = 4, 2, 12, 100
	w := &world{harness: h, writes: map[int64]string{}}
	first := h.watch(Prefix, 0)
	start := h.snapshot().Revision()
	w.last.Store(start)
	var writing, rest sync.WaitGroup
	done := make(chan struct{})
	for i := range writers {
		writing.Go(func() { w.write(rand.New(rand.NewPCG(uint64(i), 7)), rounds) })
	}
	for i := range readers {
		rest.Go(func() { w.read(rand.New(rand.NewPCG(uint64(i), 8)), done) })
	}
	followed := make([]*followed, watchers)
	for i := range followed {
		rest.Go(func() { followed[i] = w.follow(rand.New(rand.NewPCG(uint64(i), 9)), start) })
	}
	writing.Wait()
	close(done)
	rest.Wait()
	if t.Failed() {
		return
	}
	events := h.take(first, len(w.writes))
	w.check(events)
	for i, f := range followed {
		var want []string
		for _, e := range events {
			if e.Entry.Rev > f.from && len(e.Entry.Key) >= len(f.prefix) && e.Entry.Key[:len(f.prefix)] == f.prefix {
				want = append(want, show([]*store.Event{e})[0])
			}
		}
		h.equal(fmt.Sprintf("watcher %d of %s from revision %d", i, f.prefix, f.from), show(f.rest(h, len(want))), want)
	}
}

func (w *world) did(e *store.Entry, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes[e.Rev] = text
	if e.Rev > w.last.Load() {
		w.last.Store(e.Rev)
	}
}

// write makes random writes to a few keys, which other writers write too.
func (w *world) write(rng *rand.Rand, rounds int) {
	for range rounds {
		ns, name, v := fmt.Sprintf("n%d", rng.IntN(2)), fmt.Sprintf("k%d", rng.IntN(4)), strconv.Itoa(rng.IntN(1e6))
		key := Prefix + ns + "/" + name
		old, _ := w.Snapshot(Prefix).Get(key)
		var e *store.Entry
		var err error
		text := ""
		switch {
		case old == nil:
			if e, err = w.Create(w.ctx, key, Object(ns, name, v), 0); err == nil {
				text = fmt.Sprintf("+%s/%s=%s@%d", ns, name, v, e.Rev)
			}
		case rng.IntN(4) == 0:
			if e, err = w.Delete(w.ctx, key, old.Rev); err == nil {
				text = fmt.Sprintf("-%s/%s=%s@%d(%s@%d)", ns, name, said(old), e.Rev, said(old), old.Rev)
			}
		default:
			if e, err = w.Update(w.ctx, key, old.Rev, Object(ns, name, v), 0); err == nil {
				text = fmt.Sprintf("~%s/%s=%s@%d(%s@%d)", ns, name, v, e.Rev, said(old), old.Rev)
			}
		}
		var lost *store.Conflict
		switch {
		case err == nil:
			w.did(e, text)
		case !errors.As(err, &lost) && !errors.Is(err, store.ErrExists):
			w.Error(err)
			return
		}
	}
}

// read takes consistent snapshots, and lists at old revisions.
func (w *world) read(rng *rand.Rand, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		acknowledged := w.last.Load()
		rev, err := w.Revision(w.ctx)
		if err == nil {
			err = w.WaitFor(w.ctx, rev)
		}
		if err != nil {
			w.Error(err)
			return
		}
		snap := w.Snapshot(Prefix)
		if snap.Revision() < acknowledged {
			w.Errorf("a read at revision %d began after the write of %d was acknowledged", snap.Revision(), acknowledged)
			return
		}
		v := seen{"a snapshot", snap.Revision(), entries(snap, Prefix, "")}
		at := seen{"a list", max(1, snap.Revision()-int64(rng.IntN(20))), nil}
		old, _, err := w.At(w.ctx, Prefix, "", at.rev, 0)
		if err != nil {
			w.Error(err)
			return
		}
		for _, e := range old {
			at.have = append(at.have, fmt.Sprintf("%s=%s", e.Key[len(Prefix):], said(e)))
		}
		w.mu.Lock()
		w.views = append(w.views, v, at)
		w.mu.Unlock()
	}
}

// followed is one watcher's part of the history.
type followed struct {
	w      store.Watch
	prefix string
	from   int64
}

// follow begins a watch at some revision of the past while the writers are at work.
func (w *world) follow(rng *rand.Rand, start int64) *followed {
	f := &followed{prefix: []string{Prefix, Prefix + "n0/", Prefix + "n1/"}[rng.IntN(3)]}
	f.from = start + rng.Int64N(w.last.Load()-start+1)
	var err error
	if f.w, err = w.Store.Watch(w.ctx, f.prefix, f.from); err != nil {
		w.Error(err)
	}
	return f
}

func (f *followed) rest(h *harness, n int) []*store.Event {
	h.Helper()
	defer f.w.Close()
	return h.take(f.w, n)
}

// check replays the events: they are the acknowledged writes, each follows from the state before it, and every view is the
// state at its revision.
func (w *world) check(events []*store.Event) {
	w.Helper()
	state, last := map[string]string{}, int64(0)
	views := slices.Clone(w.views)
	slices.SortFunc(views, func(a, b seen) int { return int(a.rev - b.rev) })
	compare := func(below int64) {
		var have []string
		for _, k := range slices.Sorted(maps.Keys(state)) {
			have = append(have, k+"="+state[k])
		}
		for len(views) > 0 && views[0].rev < below {
			w.equal(fmt.Sprintf("%s at revision %d", views[0].what, views[0].rev), views[0].have, have)
			views = views[1:]
		}
	}
	for _, e := range events {
		text := show([]*store.Event{e})[0]
		if e.Entry.Rev <= last {
			w.Fatalf("event %s comes after revision %d", text, last)
		}
		last = e.Entry.Rev
		if w.writes[last] != text {
			w.Fatalf("the watch tells %s, written was %s", text, w.writes[last])
		}
		compare(last)
		key := e.Entry.Key[len(Prefix):]
		if was, ok := state[key]; ok != (e.Prev != nil) || ok && was != said(e.Prev) {
			w.Fatalf("event %s, but the state before is %q", text, was)
		}
		if state[key] = said(e.Entry); e.Type == store.Deleted {
			delete(state, key)
		}
	}
	compare(last + 1<<40)
}
