package flow

import (
	"math"
	"time"

	"k8s.io/apiserver/pkg/util/shufflesharding"
)

// assumed is how long a request is thought to take before anybody knows: a queue is charged that much when its request is
// dispatched, and the difference when the request has ended.
const assumed = 3 * time.Millisecond

// verdict is what a level says to a request that found no seat.
type verdict string

const (
	queued    verdict = ""
	noSeat    verdict = "concurrency-limit" // the level has no queues
	queueFull verdict = "queue-full"
	tooLate   verdict = "time-out"
)

// level serves the requests of one priority level. Times are since some fixed moment and never go back.
type level struct {
	levelSpec
	limit int // seats that may be in use; of no meaning for an exempt level

	inUse     int // seats
	executing int // requests
	waiting   int // requests in queues
	wanted    int // seats of the requests in queues

	queues  []*queue // the first levelSpec.queues are dealt to; more are left while they drain
	dealer  *shufflesharding.Dealer
	arrived int // requests that were put into a queue: rotates among equals
	virtual float64
	demand  demand
	served  []*waiter // dispatched by the last call; the caller tells them
}

// queue is requests in the order of their arrival.
type queue struct {
	waiters   []*waiter
	seats     int     // of the waiters
	executing int     // dispatched from here
	start     float64 // virtual start of the first waiter, in seat-seconds
}

// waiter is a request that found no free seat.
type waiter struct {
	queue *queue
	seats int
	since time.Duration // arrival; once it is served, when it began
	done  bool          // served or gone
	ready chan struct{} // closed by the edge when it is served
}

// configure takes a new specification over; who waits goes on waiting. It returns whom a larger limit serves.
func (l *level) configure(now time.Duration, spec levelSpec, limit int) []*waiter {
	l.levelSpec = spec
	for len(l.queues) < spec.queues {
		l.queues = append(l.queues, &queue{})
	}
	for len(l.queues) > spec.queues && l.queues[len(l.queues)-1].idle() {
		l.queues = l.queues[:len(l.queues)-1]
	}
	l.dealer = nil
	if spec.queues > 1 {
		l.dealer, _ = shufflesharding.NewDealer(spec.queues, spec.hand) // digest has tried it
	}
	return l.setLimit(now, limit)
}

func (l *level) setLimit(now time.Duration, limit int) []*waiter {
	l.limit = limit
	return l.dispatch(now)
}

func (l *level) fits(seats int) bool {
	return l.inUse+seats <= l.limit || l.inUse == 0 && l.limit > 0
}

// take serves a request at once, if there is a seat and nobody waits for one.
func (l *level) take(now time.Duration, seats int) bool {
	if !l.exempt && (l.waiting > 0 || !l.fits(seats)) {
		return false
	}
	l.inUse += seats
	l.executing++
	l.demand.change(now, seats)
	return true
}

// enqueue puts a request for which take found no seat into the shortest queue of its hand, or says why it cannot. hash tells
// flows apart.
func (l *level) enqueue(now time.Duration, seats int, hash uint64) (*waiter, verdict) {
	if l.levelSpec.queues == 0 {
		return nil, noSeat
	}
	q := l.pick(hash)
	if len(q.waiters) >= l.length {
		return nil, queueFull
	}
	if q.idle() {
		q.start = l.now()
	}
	w := &waiter{queue: q, seats: seats, since: now, ready: make(chan struct{})}
	q.waiters = append(q.waiters, w)
	q.seats += seats
	l.waiting++
	l.wanted += seats
	l.demand.change(now, seats)
	return w, queued
}

// pick deals a hand of queues to a flow and picks the one with the fewest seats waiting.
func (l *level) pick(hash uint64) *queue {
	l.arrived++
	if l.dealer == nil {
		return l.queues[0]
	}
	var cards [16]int
	hand := l.dealer.DealIntoHand(hash, cards[:])
	var best *queue
	for i := range hand {
		q := l.queues[hand[(i+l.arrived)%len(hand)]]
		if best == nil || q.seats < best.seats {
			best = q
		}
	}
	return best
}

func (q *queue) idle() bool { return len(q.waiters) == 0 && q.executing == 0 }

// now is the virtual time: it follows the slowest of the queues that are in use, so that a queue alone builds up no debt.
func (l *level) now() float64 {
	least := math.Inf(1)
	for _, q := range l.queues {
		if !q.idle() {
			least = min(least, q.start)
		}
	}
	if !math.IsInf(least, 1) {
		l.virtual = max(l.virtual, least)
	}
	return l.virtual
}

// dispatch serves as many as there are seats for. A wide request at its turn waits until it fits; narrow ones do not pass it.
func (l *level) dispatch(now time.Duration) []*waiter {
	l.served = l.served[:0]
	for l.waiting > 0 {
		var q *queue
		for _, c := range l.queues {
			if len(c.waiters) > 0 && (q == nil || c.start < q.start) {
				q = c
			}
		}
		w := q.waiters[0]
		if !l.fits(w.seats) {
			break
		}
		q.waiters[0] = nil
		if q.waiters = q.waiters[1:]; len(q.waiters) == 0 {
			q.waiters = nil
		}
		q.seats -= w.seats
		q.executing++
		l.virtual = max(l.virtual, q.start)
		q.start += assumed.Seconds() * float64(w.seats)
		l.waiting--
		l.wanted -= w.seats
		l.inUse += w.seats
		l.executing++
		w.since, w.done = now, true
		l.served = append(l.served, w)
	}
	return l.served
}

// finish gives a request's seats back. w is nil for one that never waited. It returns whom that serves, valid until the next call.
func (l *level) finish(now time.Duration, seats int, w *waiter) []*waiter {
	l.inUse -= seats
	l.executing--
	l.demand.change(now, -seats)
	if w != nil {
		w.queue.executing--
		w.queue.start += (now - w.since - assumed).Seconds() * float64(seats)
	}
	if l.waiting == 0 {
		return nil
	}
	return l.dispatch(now)
}

// abandon takes a waiter out of its queue; it reports false if it is being served already. Who waited behind a wide one
// may fit now.
func (l *level) abandon(now time.Duration, w *waiter) ([]*waiter, bool) {
	if w.done {
		return nil, false
	}
	w.done = true
	for i, x := range w.queue.waiters {
		if x == w {
			w.queue.waiters = append(w.queue.waiters[:i:i], w.queue.waiters[i+1:]...)
			break
		}
	}
	w.queue.seats -= w.seats
	l.waiting--
	l.wanted -= w.seats
	l.demand.change(now, -w.seats)
	return l.dispatch(now), true
}

// demand is how many seats a level could have used, over a period.
type demand struct {
	seats    int // now
	high     int
	from, at time.Duration
	sum, sq  float64 // integrals of the seats and of their squares over time
	smoothed float64
}

func (d *demand) change(now time.Duration, seats int) {
	dt := (now - d.at).Seconds()
	d.at = now
	s := float64(d.seats)
	d.sum += s * dt
	d.sq += s * s * dt
	d.seats += seats
	d.high = max(d.high, d.seats)
}

// observed is the demand of one period.
type observed struct {
	high                       int
	average, deviation, smooth float64
}

// smoothing is how much of the smoothed demand is kept from one period of ten seconds to the next: half of it is gone
// after five minutes.
const smoothing = 0.977

// period ends one period and begins the next.
func (d *demand) period(now time.Duration) observed {
	d.change(now, 0)
	o := observed{high: d.high}
	if t := (now - d.from).Seconds(); t > 0 {
		o.average = d.sum / t
		o.deviation = math.Sqrt(max(0, d.sq/t-o.average*o.average))
		envelope := o.average + o.deviation
		d.smoothed = max(envelope, smoothing*d.smoothed+(1-smoothing)*envelope)
	}
	o.smooth = d.smoothed
	d.from, d.sum, d.sq, d.high = now, 0, 0, d.seats
	return o
}
