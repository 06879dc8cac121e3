package store

import (
	"slices"
	"sync"
	"sync/atomic"
	"weak"
)

// Representation names one way to write an object. Versions of the same kind that differ from the stored type have
// representations that are not kept.
type Representation int

const (
	JSON Representation = iota
	Protobuf
	Metadata // PartialObjectMetadata, as JSON
	Cells    // of a Table's row, as JSON with holes for what depends on the time
	representations
)

// encodings are the bytes kept beside an entry.
type encodings [representations]atomic.Pointer[kept]

type kept struct {
	b     []byte
	share *share // of the budget; nil where nobody counts
}

// Encoded returns the object's bytes in one representation, made by build the first time that anybody asks. Where there
// is a budget, others' bytes go to make room for them.
func (e *Entry) Encoded(r Representation, build func() ([]byte, error)) ([]byte, error) {
	if k := e.enc[r].Load(); k != nil {
		return k.b, nil
	}
	b, err := build()
	if err == nil {
		e.keep(r, b, true)
	}
	return b, err
}

// Append is Encoded for who reads a great many objects once: it appends the bytes to dst, and keeps those that build
// appends only where the budget has room for them.
func (e *Entry) Append(dst []byte, r Representation, build func([]byte) ([]byte, error)) ([]byte, error) {
	if k := e.enc[r].Load(); k != nil {
		return append(dst, k.b...), nil
	}
	start := len(dst)
	dst, err := build(dst)
	if err == nil && e.Budget.room(len(dst)-start) {
		e.keep(r, slices.Clone(dst[start:]), false)
	}
	return dst, err
}

// Kept is the bytes in a representation, if they are kept. They must not be changed.
func (e *Entry) Kept(r Representation) ([]byte, bool) {
	if k := e.enc[r].Load(); k != nil {
		return k.b, true
	}
	return nil, false
}

func (e *Entry) keep(r Representation, b []byte, evict bool) {
	k := &kept{b: b}
	if e.Budget == nil || e.past.Load() {
		e.enc[r].CompareAndSwap(nil, k)
		return
	}
	k.share = &share{size: int64(len(b))}
	if !e.enc[r].CompareAndSwap(nil, k) {
		return // somebody else was faster
	}
	e.Budget.take(e, r, k.share, evict)
	if e.past.Load() && e.enc[r].CompareAndSwap(k, nil) {
		e.Budget.give(k.share)
	}
}

// Forget drops the bytes that Encoded keeps; they are made again when somebody asks. The store does so when an entry
// is superseded, so that the events of the past cost no more than their objects.
func (e *Entry) Forget() {
	e.past.Store(true)
	for r := range e.enc {
		if k := e.enc[r].Swap(nil); k != nil && k.share != nil {
			e.Budget.give(k.share)
		}
	}
}

// Budget bounds the bytes that are kept beside the entries of a store. The oldest go first. It is safe for concurrent use.
type Budget struct {
	limit int64

	mu    sync.Mutex
	used  int64
	live  int     // shares in the queue that are still taken
	queue []place // in the order of taking
}

// share is the part of a budget that one encoding has.
type share struct {
	size  int64
	given bool // back; guarded by the budget
}

type place struct {
	entry weak.Pointer[Entry] // so that what nobody else knows any more is not held here
	r     Representation
	share *share
}

// NewBudget makes a budget of so many bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used is how many bytes are kept.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

func (b *Budget) room(size int) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used+int64(size) <= b.limit
}

func (b *Budget) take(e *Entry, r Representation, s *share, evict bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += s.size
	b.live++
	b.queue = append(b.queue, place{weak.Make(e), r, s})
	if evict && b.used > b.limit {
		b.shrink(b.limit)
	}
	if len(b.queue) > 2*b.live+1024 {
		b.queue = slices.DeleteFunc(b.queue, func(p place) bool { return p.share.given })
	}
}

func (b *Budget) give(s *share) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release(s)
}

func (b *Budget) release(s *share) {
	if !s.given {
		s.given = true
		b.used -= s.size
		b.live--
	}
}

// shrink drops the oldest bytes until no more than limit are kept.
func (b *Budget) shrink(limit int64) {
	n := 0
	for ; n < len(b.queue) && b.used > limit; n++ {
		p := b.queue[n]
		if e := p.entry.Value(); e != nil && !p.share.given {
			if k := e.enc[p.r].Load(); k != nil && k.share == p.share {
				e.enc[p.r].CompareAndSwap(k, nil)
			}
		}
		b.release(p.share)
	}
	clear(b.queue[:n])
	b.queue = b.queue[n:]
}

// Clear drops all bytes that are kept.
func (b *Budget) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shrink(-1)
	b.queue = nil
}
