package etcd

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/google/btree"

	"github.com/skiff-sh/skiff/store"
)

// state is everything that the cache knows at one revision. It never changes once it is published.
type state struct {
	rev      int64
	prefixes map[string]int // registered prefixes to places in kinds and trees
	kinds    []*kind        // nil where a prefix was unregistered
	trees    []*tree
}

// kind is what belongs to a registered prefix over all revisions.
type kind struct {
	prefix  string
	codec   store.Codec
	history *history
	timing  *timing
	// work is the tree that the feed changes; every published tree is a clone of it. Guarded by Store.feeding.
	work *tree
}

type tree = btree.BTreeG[*store.Entry]

func newTree() *tree {
	return btree.NewG(32, func(a, b *store.Entry) bool { return a.Key < b.Key })
}

// place finds the registered prefix that a key or a longer prefix is under.
func (st *state) place(key string) (int, bool) {
	const after = len(root) + 1
	for i := after; i < len(key); {
		slash := strings.IndexByte(key[i:], '/')
		if slash < 0 {
			break
		}
		i += slash + 1
		if p, ok := st.prefixes[key[:i]]; ok {
			return p, true
		}
	}
	return 0, false
}

func (st *state) kind(key string) *kind {
	if p, ok := st.place(key); ok {
		return st.kinds[p]
	}
	return nil
}

// with returns the next state, with new trees in the places that changed.
func (st *state) with(rev int64, changed map[int]*tree) *state {
	next := *st
	next.rev = rev
	if len(changed) > 0 {
		next.trees = slices.Clone(st.trees)
		for p, t := range changed {
			next.trees[p] = t
		}
	}
	return &next
}

// Snapshot is what the cache knows, at one revision, under the prefix and all others.
func (s *Store) Snapshot(string) store.Snapshot { return s.state.Load() }

func (st *state) Revision() int64 { return st.rev }

func (st *state) Len(prefix string) int {
	p, ok := st.place(prefix)
	if !ok {
		return 0
	}
	if st.kinds[p].prefix == prefix {
		return st.trees[p].Len()
	}
	n := 0
	for range st.Scan(prefix, "") {
		n++
	}
	return n
}

func (st *state) Get(key string) (*store.Entry, bool) {
	p, ok := st.place(key)
	if !ok {
		return nil, false
	}
	return st.trees[p].Get(&store.Entry{Key: key})
}

func (st *state) Scan(prefix, from string) iter.Seq[*store.Entry] {
	return func(yield func(*store.Entry) bool) {
		p, ok := st.place(prefix)
		if !ok {
			return
		}
		st.trees[p].AscendGreaterOrEqual(&store.Entry{Key: max(prefix, from)}, func(e *store.Entry) bool {
			return strings.HasPrefix(e.Key, prefix) && yield(e)
		})
	}
}

// WaitFor returns when the cache has reached rev. The cache is filled from the start: there is nothing to wait for at 0.
func (s *Store) WaitFor(ctx context.Context, rev int64) error {
	if s.state.Load().rev >= rev {
		return nil
	}
	reached := s.waiters.add(s, rev)
	select {
	case <-reached:
		if s.state.Load().rev < rev {
			return errClosed
		}
		return nil
	case <-ctx.Done():
		s.waiters.remove(reached)
		return fmt.Errorf("waiting for revision %d: %w", rev, ctx.Err())
	}
}

// publish makes a state current and wakes who waits for its revision. The caller holds feeding.
func (s *Store) publish(st *state) {
	s.state.Store(st)
	s.waiters.reached(st.rev)
}

// waiters wait for revisions of the cache.
type waiters struct {
	mu     sync.Mutex
	list   []waiter
	closed bool
}

type waiter struct {
	rev  int64
	done chan struct{}
}

func (w *waiters) add(s *Store, rev int64) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	done := make(chan struct{})
	if w.closed || s.state.Load().rev >= rev { // asked again under the lock, so that reached cannot be missed
		close(done)
	} else {
		w.list = append(w.list, waiter{rev, done})
	}
	return done
}

func (w *waiters) remove(done chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = slices.DeleteFunc(w.list, func(x waiter) bool { return x.done == done })
}

func (w *waiters) reached(rev int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) == 0 {
		return
	}
	w.list = slices.DeleteFunc(w.list, func(x waiter) bool {
		if x.rev <= rev {
			close(x.done)
		}
		return x.rev <= rev
	})
}

func (w *waiters) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, x := range w.list {
		close(x.done)
	}
	w.list = nil
}
