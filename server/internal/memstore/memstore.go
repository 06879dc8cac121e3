// Package memstore is a store in memory for the tests of server's folders. It keeps every promise of store.Store but
// durability and compaction.
package memstore

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/store"
)

// Store implements store.Store.
type Store struct {
	mu      sync.Mutex
	rev     int64
	entries []*store.Entry // sorted by key, replaced and never changed
	events  []*store.Event
	changed chan struct{}
}

// New makes a store that holds copies of the objects, all of them built-in kinds.
func New(objs ...api.Object) *Store {
	s := &Store{rev: 1, changed: make(chan struct{})}
	for _, o := range objs {
		s.Put(o)
	}
	return s
}

// Put creates or replaces an object of a built-in kind and returns the stored copy.
func (s *Store) Put(o api.Object) api.Object {
	key := Key(o)
	ctx := context.Background()
	e, err := s.Create(ctx, key, o, 0)
	if err != nil {
		cur, _ := s.Snapshot("").Get(key)
		if e, err = s.Update(ctx, key, cur.Rev, o, 0); err != nil {
			panic(err)
		}
	}
	return e.Object
}

// Remove deletes an object of a built-in kind.
func (s *Store) Remove(o api.Object) {
	if e, ok := s.Snapshot("").Get(Key(o)); ok {
		if _, err := s.Delete(context.Background(), e.Key, e.Rev); err != nil {
			panic(err)
		}
	}
}

// Key is the store's key of an object of a built-in kind.
func Key(o api.Object) string {
	k, ok := builtin.Table().Of(o)
	if !ok {
		panic("no built-in kind")
	}
	return k.Key(o.GetNamespace(), o.GetName())
}

func (s *Store) Register(context.Context, string, store.Codec) error { return nil }
func (s *Store) Unregister(string)                                   {}
func (s *Store) Compact(context.Context, int64) error                { return nil }
func (s *Store) WaitFor(ctx context.Context, _ int64) error          { return ctx.Err() }
func (s *Store) Revision(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev, nil
}

func (s *Store) At(ctx context.Context, prefix, from string, rev int64, limit int) ([]*store.Entry, int64, error) {
	var out []*store.Entry
	var more int64
	for e := range s.Snapshot(prefix).Scan(prefix, from) {
		if limit > 0 && len(out) == limit {
			more++
			continue
		}
		out = append(out, e)
	}
	return out, more, nil
}

func (s *Store) Create(_ context.Context, key string, obj api.Object, _ int64) (*store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.find(key); ok {
		return nil, store.ErrExists
	}
	return s.put(key, obj, nil), nil
}

func (s *Store) Update(_ context.Context, key string, rev int64, obj api.Object, _ int64) (*store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(key)
	if !ok {
		return nil, &store.Conflict{Key: key, Want: rev}
	}
	if s.entries[i].Rev != rev {
		return nil, &store.Conflict{Key: key, Want: rev, Current: s.entries[i]}
	}
	return s.put(key, obj, s.entries[i]), nil
}

func (s *Store) Delete(_ context.Context, key string, rev int64) (*store.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.find(key)
	if !ok {
		return nil, &store.Conflict{Key: key, Want: rev}
	}
	old := s.entries[i]
	if old.Rev != rev {
		return nil, &store.Conflict{Key: key, Want: rev, Current: old}
	}
	s.entries = slices.Delete(slices.Clone(s.entries), i, i+1)
	s.rev++
	e := &store.Entry{Key: key, Rev: s.rev, Object: old.Object}
	s.publish(&store.Event{Type: store.Deleted, Entry: e, Prev: old})
	return e, nil
}

func (s *Store) put(key string, obj api.Object, old *store.Entry) *store.Entry {
	s.rev++
	obj = obj.DeepCopyObject().(api.Object)
	obj.SetResourceVersion(strconv.FormatInt(s.rev, 10))
	e := &store.Entry{Key: key, Rev: s.rev, Object: obj}
	i, ok := s.find(key)
	next := slices.Clone(s.entries)
	if ok {
		next[i] = e
	} else {
		next = slices.Insert(next, i, e)
	}
	s.entries = next
	t := store.Created
	if old != nil {
		t = store.Updated
	}
	s.publish(&store.Event{Type: t, Entry: e, Prev: old})
	return e
}

func (s *Store) publish(e *store.Event) {
	s.events = append(s.events, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, key, func(e *store.Entry, k string) int { return cmp.Compare(e.Key, k) })
}

// Unreadable is always nil: objects are kept as they are.
func (s *Store) Unreadable(string) error { return nil }

// Stale is always false: nothing is encrypted here.
func (s *Store) Stale(context.Context, string) (bool, error) { return false, nil }

// Snapshot is everything, whatever the prefix.
func (s *Store) Snapshot(string) store.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{s.entries, s.rev}
}

type snapshot struct {
	entries []*store.Entry
	rev     int64
}

func (s snapshot) Revision() int64 { return s.rev }
func (s snapshot) Len(prefix string) int {
	n := 0
	for range s.Scan(prefix, "") {
		n++
	}
	return n
}

func (s snapshot) Get(key string) (*store.Entry, bool) {
	i, ok := s.search(key)
	if !ok {
		return nil, false
	}
	return s.entries[i], true
}

func (s snapshot) search(key string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, key, func(e *store.Entry, k string) int { return cmp.Compare(e.Key, k) })
}

func (s snapshot) Scan(prefix, from string) iter.Seq[*store.Entry] {
	return func(yield func(*store.Entry) bool) {
		i, _ := s.search(max(prefix, from))
		for ; i < len(s.entries) && strings.HasPrefix(s.entries[i].Key, prefix); i++ {
			if !yield(s.entries[i]) {
				return
			}
		}
	}
}

// Watch delivers events after rev.
func (s *Store) Watch(_ context.Context, prefix string, rev int64, _ ...store.Only) (store.Watch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev == 0 {
		rev = s.rev
	}
	return &watch{s: s, prefix: prefix, rev: rev}, nil
}

type watch struct {
	s      *Store
	prefix string
	rev    int64
}

func (w *watch) Next(ctx context.Context) ([]*store.Event, int64, error) {
	for {
		w.s.mu.Lock()
		var out []*store.Event
		for _, e := range w.s.events {
			if e.Entry.Rev > w.rev && strings.HasPrefix(e.Entry.Key, w.prefix) {
				out = append(out, e)
			}
		}
		w.rev = w.s.rev
		changed := w.s.changed
		w.s.mu.Unlock()
		if len(out) > 0 {
			return out, w.rev, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-changed:
		}
	}
}

func (w *watch) Close() {}
