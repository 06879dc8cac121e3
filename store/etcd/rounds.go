package etcd

import (
	"context"
	"sync"
	"time"
)

// A write that etcd is given by itself costs a flush of its log, a batch of events, and the threads that these wake: as
// much again as the write. So writes wait for each other and go in rounds, as large as the last was that waited its full
// time; every so often one waits that long again, to see whether more would join. Whoever writes alone never waits.
const (
	roundTime  = 5 * time.Millisecond // that a round waits at most
	roundFull  = 32                   // writes; no round waits for more
	roundProbe = 32                   // rounds after which one waits its full time
)

// rounds holds writes until their round begins.
type rounds struct {
	mu      sync.Mutex
	under   int           // writes that have entered and not left, the waiting included
	waiting int           // of them, for the next round
	begin   chan struct{} // closed when it begins; nil while nobody waits
	size    int           // that a round waits for
	since   int           // rounds since one has waited its full time
	late    *time.Timer   // ends that time; made by the first that waits
}

// enter returns when the write may be made, or when ctx ends. Every enter needs its leave.
func (r *rounds) enter(ctx context.Context) {
	r.mu.Lock()
	r.under++
	probe := r.since >= roundProbe && r.under > 1
	if r.waiting == 0 && r.size <= 1 && !probe {
		r.since++
		r.mu.Unlock()
		return
	}
	if r.waiting++; r.waiting == 1 {
		r.begin = make(chan struct{})
		if r.late == nil {
			r.late = time.AfterFunc(roundTime, r.overdue)
		} else {
			r.late.Reset(roundTime)
		}
	}
	begin := r.begin
	if r.waiting >= r.size && !probe || r.waiting >= roundFull {
		r.since++
		r.start()
	}
	r.mu.Unlock()
	select {
	case <-begin:
	case <-ctx.Done():
		r.mu.Lock()
		if r.begin == begin {
			r.waiting--
		}
		r.mu.Unlock()
	}
}

// leave tells that a write has ended.
func (r *rounds) leave() {
	r.mu.Lock()
	r.under--
	r.mu.Unlock()
}

// overdue begins the round with those who are there, and learns how many come in the time.
func (r *rounds) overdue() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size, r.since = r.waiting, 0
	r.start()
}

// start lets the waiting go on.
func (r *rounds) start() {
	if r.begin != nil {
		r.late.Stop()
		close(r.begin)
		r.begin, r.waiting = nil, 0
	}
}
