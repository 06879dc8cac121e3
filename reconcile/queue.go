package reconcile

import (
	"sync"
	"time"
)

const (
	firstRetry = 5 * time.Millisecond
	lastRetry  = 1000 * time.Second
)

// queue hands out keys in the order in which they became due. A key that becomes due while it is being worked on is
// handed out once more afterwards, never twice at a time. Delayed keys wait on timers of their own.
type queue struct {
	mu       sync.Mutex
	ready    sync.Cond // a key is due, or the queue is closed
	due      []Key
	state    map[Key]state
	failures map[Key]int
	later    map[Key]*timer
	closed   bool
	metrics  *queueMetrics // may be nil
}

type state int

const (
	waiting state = iota + 1 // in due
	running
	again // running, and due once more
)

type timer struct {
	*time.Timer
	at time.Time
}

func newQueue() *queue {
	q := &queue{state: map[Key]state{}, failures: map[Key]int{}, later: map[Key]*timer{}}
	q.ready.L = &q.mu
	return q
}

// add makes a key due now.
func (q *queue) add(k Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	switch q.state[k] {
	case 0:
		q.metrics.due(k)
		q.state[k] = waiting
		q.due = append(q.due, k)
		q.ready.Signal()
	case running:
		q.metrics.due(k)
		q.state[k] = again
	}
}

// addAfter makes a key due after d, unless it will be due sooner anyway.
func (q *queue) addAfter(k Key, d time.Duration) {
	if d <= 0 {
		q.add(k)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.metrics.retry()
	at := time.Now().Add(d)
	if t := q.later[k]; t != nil {
		if !at.Before(t.at) {
			return
		}
		t.Stop()
	}
	t := &timer{at: at}
	t.Timer = time.AfterFunc(d, func() {
		q.mu.Lock()
		if q.later[k] == t {
			delete(q.later, k)
		}
		q.mu.Unlock()
		q.add(k)
	})
	q.later[k] = t
}

// next waits for a due key. The key's delayed visit is dropped: this one replaces it. ok is false when the queue is closed.
func (q *queue) next() (k Key, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.due) == 0 && !q.closed {
		q.ready.Wait()
	}
	if q.closed {
		return Key{}, false
	}
	k, q.due = q.due[0], q.due[1:]
	q.state[k] = running
	q.metrics.start(k)
	if t := q.later[k]; t != nil {
		t.Stop()
		delete(q.later, k)
	}
	return k, true
}

// done ends the work on a key that next handed out. If failed it is due again after its back-off, else when r says. A key
// that rests is handed out no sooner, whatever makes it due.
func (q *queue) done(k Key, failed bool, r Result) {
	q.mu.Lock()
	q.metrics.end(k)
	q.mu.Unlock()
	d := r.After
	if r.Rest > 0 && !failed {
		if d > 0 {
			d = max(d-r.Rest, 1)
		}
		time.AfterFunc(r.Rest, func() { q.done(k, false, Result{After: d}) })
		return
	}
	q.mu.Lock()
	if q.state[k] == again && !q.closed {
		q.state[k] = waiting
		q.due = append(q.due, k)
		q.ready.Signal()
	} else {
		delete(q.state, k)
	}
	if failed {
		d = min(firstRetry<<min(q.failures[k], 30), lastRetry)
		q.failures[k]++
	} else {
		delete(q.failures, k)
	}
	q.mu.Unlock()
	if d > 0 {
		q.addAfter(k, d)
	}
}

// close wakes all workers and drops everything.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, t := range q.later {
		t.Stop()
	}
	q.ready.Broadcast()
}
