package store

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
)

func fill(n int) func() ([]byte, error) {
	return func() ([]byte, error) { return bytes.Repeat([]byte{'x'}, n), nil }
}

func entries(b *Budget, n int) []*Entry {
	out := make([]*Entry, n)
	for i := range out {
		out[i] = &Entry{Budget: b}
	}
	return out
}

func mustEncode(t *testing.T, e *Entry, r Representation, n int) {
	t.Helper()
	if b, err := e.Encoded(r, fill(n)); err != nil || len(b) != n {
		t.Fatal(len(b), err)
	}
}

func TestBudgetDropsTheOldest(t *testing.T) {
	b := NewBudget(100)
	es := entries(b, 4)
	for _, e := range es {
		mustEncode(t, e, JSON, 30)
	}
	for i, want := range []bool{false, true, true, true} {
		if _, kept := es[i].Kept(JSON); kept != want {
			t.Errorf("entry %d kept: %v", i, kept)
		}
	}
	if b.Used() != 90 {
		t.Errorf("%d bytes in use", b.Used())
	}
	es[2].Forget()
	es[2].Forget()
	if b.Used() != 60 {
		t.Errorf("%d bytes in use after one was forgotten", b.Used())
	}
	b.Clear()
	if _, kept := es[3].Kept(JSON); kept || b.Used() != 0 {
		t.Errorf("kept after Clear: %v, %d bytes in use", kept, b.Used())
	}
}

// TestAppendTakesNobodysPlace: who reads a great many objects once must not push out what others need.
func TestAppendTakesNobodysPlace(t *testing.T) {
	b := NewBudget(100)
	es := entries(b, 3)
	mustEncode(t, es[0], JSON, 80)
	read := func(e *Entry, n int) {
		out, err := e.Append([]byte("head"), JSON, func(b []byte) ([]byte, error) { return append(b, make([]byte, n)...), nil })
		if err != nil || len(out) != 4+n || string(out[:4]) != "head" {
			t.Fatal(len(out), err)
		}
	}
	read(es[1], 30)
	read(es[2], 20)
	read(es[0], 80) // what is kept
	for i, want := range []bool{true, false, true} {
		if _, kept := es[i].Kept(JSON); kept != want {
			t.Errorf("entry %d kept: %v", i, kept)
		}
	}
}

// TestPastEntriesAreNotCounted: they go with the history.
func TestPastEntriesAreNotCounted(t *testing.T) {
	b := NewBudget(100)
	e := entries(b, 1)[0]
	e.Forget()
	mustEncode(t, e, JSON, 80)
	if _, kept := e.Kept(JSON); !kept || b.Used() != 0 {
		t.Errorf("kept %v, %d bytes in use", kept, b.Used())
	}
}

// TestBudgetBalances writes, forgets and drops from many goroutines; in the end nothing must be in use.
func TestBudgetBalances(t *testing.T) {
	b := NewBudget(1000)
	es := entries(b, 200)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				e := es[(i*7+g)%len(es)]
				switch i % 5 {
				case 0:
					if i > 1000 {
						e.Forget()
					}
				case 1:
					_, _ = e.Append(nil, Metadata, func(b []byte) ([]byte, error) { return append(b, "yyy"...), nil })
				default:
					_, _ = e.Encoded(Representation(i%int(representations)), fill(i%50))
				}
			}
		})
	}
	wg.Wait()
	if b.Used() > 1000 {
		t.Errorf("%d bytes in use", b.Used())
	}
	for _, e := range es {
		e.Forget()
	}
	if b.Used() != 0 || b.live != 0 {
		t.Errorf("%d bytes and %d shares in use", b.Used(), b.live)
	}
	if len(b.queue) > 2*b.live+1024+1 {
		t.Errorf("%d places in the queue", len(b.queue))
	}
}

// TestBudgetHoldsNobody: an entry that nobody knows any more is garbage, and its bytes are given back when their turn comes.
func TestBudgetHoldsNobody(t *testing.T) {
	b := NewBudget(100)
	func() { mustEncode(t, entries(b, 1)[0], JSON, 60) }()
	runtime.GC()
	runtime.GC()
	if b.queue[0].entry.Value() != nil {
		t.Error("the budget holds an entry")
	}
	e := entries(b, 1)[0]
	mustEncode(t, e, JSON, 60)
	if b.Used() != 60 {
		t.Errorf("%d bytes in use", b.Used())
	}
}
