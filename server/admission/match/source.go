package match

import (
	"sync/atomic"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// Source is all objects of a kind, each compiled once per revision, in the order of their names.
type Source[T api.Object, C any] struct {
	st      store.Store
	row     *api.Kind
	compile func(T) C
	last    atomic.Pointer[generation[C]]
}

type generation[C any] struct {
	entries  []*store.Entry
	compiled []C
}

// NewSource follows the objects of a built-in kind. compile must be quick and may be called twice for one object.
func NewSource[T api.Object, C any](st store.Store, compile func(T) C) *Source[T, C] {
	return &Source[T, C]{st: st, row: read.Kind[T](), compile: compile}
}

// All is what the cache knows now. The slice is shared.
func (s *Source[T, C]) All() []C {
	last := s.last.Load()
	if last == nil {
		last = &generation[C]{}
	}
	i, same := 0, true
	prefix := s.row.Prefix("")
	snap := s.st.Snapshot(prefix)
	for e := range snap.Scan(prefix, "") {
		if same = i < len(last.entries) && last.entries[i] == e; !same {
			break
		}
		i++
	}
	if same && i == len(last.entries) {
		return last.compiled
	}
	known := map[*store.Entry]C{}
	for i, e := range last.entries {
		known[e] = last.compiled[i]
	}
	next := &generation[C]{}
	for e := range snap.Scan(prefix, "") {
		obj, ok := e.Object.(T)
		if !ok {
			continue
		}
		c, ok := known[e]
		if !ok {
			c = s.compile(obj)
		}
		next.entries, next.compiled = append(next.entries, e), append(next.compiled, c)
	}
	s.last.Store(next)
	return next.compiled
}
