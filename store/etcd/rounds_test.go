package etcd

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writing has writers write one after the other, each write taking 300 µs, and counts the moments at which writes began.
func writing(t *testing.T, r *rounds, writers, writes int) (moments int, took time.Duration) {
	t.Helper()
	start := time.Now()
	var mu sync.Mutex
	began := map[time.Time]bool{}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range writes {
				r.enter(t.Context())
				mu.Lock()
				began[time.Now()] = true
				mu.Unlock()
				time.Sleep(300 * time.Microsecond)
				r.leave()
			}
		})
	}
	wg.Wait()
	return len(began), time.Since(start)
}

func TestOneWriterNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rounds{}
		if _, took := writing(t, r, 1, 200); took != 200*300*time.Microsecond {
			t.Errorf("200 writes took %v", took)
		}
	})
}

// TestWritersGoInRounds: writers that come again at once all go together, and wait for nobody but in the probes.
func TestWritersGoInRounds(t *testing.T) {
	for _, writers := range []int{2, 5, 12} {
		synctest.Test(t, func(t *testing.T) {
			r := &rounds{}
			writing(t, r, writers, 100) // has learnt
			moments, took := writing(t, r, writers, 640)
			if moments > 640*3/2 {
				t.Errorf("%d writers: %d writes went in %d rounds", writers, writers*640, moments)
			}
			if longest := 2 * 640 * 300 * time.Microsecond; took > longest {
				t.Errorf("%d writers took %v of at most %v", writers, took, longest)
			}
		})
	}
}

// TestRoundsShrink: who is left alone waits once, no more.
func TestRoundsShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rounds{}
		writing(t, r, 20, 50)
		if _, took := writing(t, r, 1, 100); took > 100*300*time.Microsecond+roundTime {
			t.Errorf("100 writes took %v", took)
		}
	})
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rounds{size: 8}
		ctx, cancel := context.WithTimeout(t.Context(), roundTime/2)
		defer cancel()
		start := time.Now()
		r.enter(ctx)
		r.leave()
		if took := time.Since(start); took != roundTime/2 {
			t.Errorf("waited %v", took)
		}
		if r.waiting != 0 || r.under != 0 {
			t.Errorf("%d wait, %d are under way", r.waiting, r.under)
		}
		r.enter(t.Context()) // joins the round that nobody is left in
		r.leave()
		if r.size != 1 {
			t.Errorf("a round waits for %d", r.size)
		}
	})
}
