package flow

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func newLevel(limit, queues, hand, length int) *level {
	l := &level{}
	l.configure(0, levelSpec{name: "l", queues: queues, hand: hand, length: length}, limit)
	return l
}

// arrive is a request's arrival as the gate handles it.
func (l *level) arrive(now time.Duration, seats int, flow uint64) (*waiter, verdict) {
	if l.take(now, seats) {
		return nil, queued
	}
	w, why := l.enqueue(now, seats, flow)
	if why == queued {
		l.dispatch(now)
	}
	return w, why
}

func TestLevelTurnsAway(t *testing.T) {
	l := newLevel(2, 0, 0, 0)
	for range 2 {
		if _, why := l.arrive(0, 1, 1); why != queued {
			t.Fatal(why)
		}
	}
	if _, why := l.arrive(0, 1, 1); why != noSeat {
		t.Errorf("without queues: %q", why)
	}
	l = newLevel(1, 1, 1, 2)
	var got []verdict
	for range 4 {
		_, why := l.arrive(0, 1, 1)
		got = append(got, why)
	}
	if want := []verdict{queued, queued, queued, queueFull}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("verdicts %q, want %q", got, want)
	}
}

func TestLevelIsFair(t *testing.T) {
	const limit, work = 4, 10 * time.Millisecond
	l := newLevel(limit, 64, 1, 1000)
	flows := []uint64{3, 77, 500}          // three queues, since a hand is one card
	asks := map[uint64]int{3: 500, 77: 50} // the first floods
	served := map[uint64]int{}
	of := map[*waiter]uint64{}
	type running struct {
		w   *waiter
		end time.Duration
	}
	var busy []running
	now := time.Duration(0)
	for range limit { // somebody has all seats
		l.take(now, 1)
		busy = append(busy, running{nil, now + work})
	}
	for _, f := range flows {
		for range asks[f] {
			w, why := l.arrive(now, 1, f)
			if why != queued {
				t.Fatal(why)
			}
			of[w] = f
		}
	}
	for len(served) == 0 || served[77] < 50 {
		first := busy[0]
		busy = busy[1:]
		now = first.end
		for _, w := range l.finish(now, 1, first.w) {
			served[of[w]]++
			busy = append(busy, running{w, now + work})
		}
	}
	if served[3] > 55 {
		t.Errorf("while the small flow's 50 requests were served, the flood had %d", served[3])
	}
}

func TestLevelWidth(t *testing.T) {
	l := newLevel(4, 8, 2, 10)
	if w, _ := l.arrive(0, 10, 1); w != nil {
		t.Error("a request wider than the limit waits in an idle level")
	}
	l.finish(0, 10, nil)
	l.arrive(0, 3, 1)
	wide, _ := l.arrive(0, 3, 2)
	narrow, _ := l.arrive(0, 1, 2)
	if wide == nil || wide.done {
		t.Fatal("three seats of one that is left were given away")
	}
	if narrow != nil && narrow.queue == wide.queue && narrow.done {
		t.Error("a narrow request passed a wide one in its own queue")
	}
	if l.inUse > 4 {
		t.Errorf("%d seats of 4 in use", l.inUse)
	}
	next, left := l.abandon(0, wide)
	if !left || wide.queue.seats != 0 && narrow.queue != wide.queue {
		t.Errorf("abandoned: %v, %d seats are still asked for", left, wide.queue.seats)
	}
	if !narrow.done && len(next) == 0 {
		t.Error("who waited behind it is not served")
	}
}

// TestLevelCounts makes random requests and compares the level's counts with those of a plain list.
func TestLevelCounts(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := newLevel(5, 16, 3, 4)
		type req struct {
			w     *waiter
			seats int
		}
		var running, waiting []req
		now := time.Duration(0)
		move := func() {
			var still []req
			for _, r := range waiting {
				if r.w.done {
					running = append(running, r)
				} else {
					still = append(still, r)
				}
			}
			waiting = still
		}
		for range 2000 {
			now += time.Duration(rng.IntN(5)) * time.Millisecond
			switch n := rng.IntN(10); {
			case n < 5:
				seats := 1 + rng.IntN(3)
				if w, why := l.arrive(now, seats, rng.Uint64()>>4); why == queued {
					r := req{w, seats}
					if w == nil {
						running = append(running, r)
					} else {
						waiting = append(waiting, r)
					}
				}
			case n < 9 && len(running) > 0:
				i := rng.IntN(len(running))
				r := running[i]
				running = append(running[:i], running[i+1:]...)
				l.finish(now, r.seats, r.w)
			case len(waiting) > 0:
				i := rng.IntN(len(waiting))
				r := waiting[i]
				waiting = append(waiting[:i], waiting[i+1:]...)
				if _, left := l.abandon(now, r.w); !left {
					t.Fatal("a waiter cannot leave")
				}
			}
			move()
			inUse, wanted := 0, 0
			for _, r := range running {
				inUse += r.seats
			}
			for _, r := range waiting {
				wanted += r.seats
			}
			if l.inUse != inUse || l.executing != len(running) || l.wanted != wanted || l.waiting != len(waiting) || l.demand.seats != inUse+wanted {
				t.Fatalf("seed %d: %d seats in use by %d, %d wanted by %d, demand %d; want %d by %d, %d by %d", seed,
					l.inUse, l.executing, l.wanted, l.waiting, l.demand.seats, inUse, len(running), wanted, len(waiting))
			}
			if inUse > l.limit {
				t.Fatalf("%d seats of %d", inUse, l.limit)
			}
			if len(waiting) > 0 && len(running) == 0 {
				t.Fatalf("seed %d: %d wait for nobody", seed, len(waiting))
			}
		}
	}
}

func TestDemand(t *testing.T) {
	var d demand
	d.change(0, 4)
	d.change(5*time.Second, -2)
	o := d.period(10 * time.Second)
	if o.high != 4 || o.average != 3 || o.deviation != 1 || o.smooth != 4 {
		t.Errorf("%+v", o)
	}
	d.change(10*time.Second, -2)
	if o = d.period(20 * time.Second); o.high != 2 || o.average != 0 || o.smooth != 4*smoothing {
		t.Errorf("the next period: %+v", o)
	}
}
