package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// warnings fails the test when etcd or the store warns.
type warnings struct{ testing.TB }

func (w warnings) Write(b []byte) (int, error) {
	w.Errorf("logged: %s", b)
	return len(b), nil
}

func openIn(t testing.TB, dir string) *Store {
	t.Helper()
	log := slog.New(slog.NewTextHandler(warnings{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := Open(t.Context(), Config{DataDir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t testing.TB) *Store {
	s := openIn(t, filepath.Join(t.TempDir(), "etcd")) // which Open makes, with the mode that etcd wants
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t) })
}

func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	s := openIn(t, dir)
	if err := s.Register(t.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	for i := range 600 { // more than a page
		name := fmt.Sprintf("n%03d", i)
		if _, err := s.Create(t.Context(), storetest.Prefix+"ns/"+name, storetest.Object("ns", name, "1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	rev := s.Snapshot(storetest.Prefix).Revision()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openIn(t, dir)
	defer s.Close()
	if err := s.Register(t.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot(storetest.Prefix)
	if snap.Len(storetest.Prefix) != 600 || snap.Revision() != rev {
		t.Errorf("%d entries at %d after the restart, want 600 at %d", snap.Len(storetest.Prefix), snap.Revision(), rev)
	}
}

// TestRefill takes the events of some writes away from the feed, as a compaction during a lost connection would.
func TestRefill(t *testing.T) {
	ctx := t.Context()
	s := open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(ctx, storetest.Prefix, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	key := func(name string) string { return storetest.Prefix + "ns/" + name }
	made := map[string]*store.Entry{}
	for _, name := range []string{"changed", "deleted", "same"} {
		if made[name], err = s.Create(ctx, key(name), storetest.Object("ns", name, "1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; n < 3; {
		events, _, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(events)
	}
	s.stop() // the feed ends; the member goes on
	s.group.Wait()
	value, _ := storetest.Codec{}.Encode(storetest.Object("ns", "changed", "2"))
	if _, err := s.client.Put(ctx, key("changed"), string(value)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Delete(ctx, key("deleted")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(ctx, key("new"), string(value)); err != nil {
		t.Fatal(err)
	}
	if err := s.refill(ctx); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 3 {
		events, _, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			got = append(got, fmt.Sprintf("%d %s", e.Type, e.Entry.Key[len(storetest.Prefix):]))
		}
	}
	if want := fmt.Sprint([]string{"1 ns/changed", "0 ns/new", "2 ns/deleted"}); fmt.Sprint(got) != want {
		t.Errorf("told %v, want %v", got, want)
	}
	rev, err := s.Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Snapshot("").Revision(); got != rev {
		t.Errorf("the cache is at %d, etcd at %d", got, rev)
	}
}

func TestUndecodable(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.client.Put(ctx, storetest.Prefix+"ns/broken", "broken"); err != nil {
		t.Fatal(err)
	}
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	good, err := s.Create(ctx, storetest.Prefix+"ns/good", storetest.Object("ns", "good", "1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Put(ctx, good.Key, "broken now")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitFor(ctx, resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	if n := s.Snapshot("").Len(storetest.Prefix); n != 0 {
		t.Errorf("%d entries, want none", n)
	}
	if s.Undecodable() < 2 {
		t.Errorf("%d values counted, want 2", s.Undecodable())
	}
}

func TestTTL(t *testing.T) {
	ctx := t.Context()
	s := open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	e, err := s.Create(ctx, storetest.Prefix+"ns/a", storetest.Object("ns", "a", "1"), 3600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, storetest.Prefix+"ns/b", storetest.Object("ns", "b", "1"), 3600); err != nil {
		t.Fatal(err)
	}
	leases, err := s.client.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(leases.Leases) != 1 {
		t.Fatalf("%d leases, want one that is shared", len(leases.Leases))
	}
	w, err := s.Watch(ctx, storetest.Prefix, e.Rev+1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := s.client.Revoke(ctx, leases.Leases[0].ID); err != nil { // as its end would
		t.Fatal(err)
	}
	for n := 0; n < 2; {
		events, _, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Type != store.Deleted {
				t.Errorf("event %v of %s", e.Type, e.Entry.Key)
			}
		}
		n += len(events)
	}
}

func TestFlightSharesOnlyLaterCalls(t *testing.T) {
	var f flight
	var calls atomic.Int64
	release := make(chan struct{})
	call := func(context.Context) (int64, error) {
		n := calls.Add(1)
		<-release
		return n, nil
	}
	var wg sync.WaitGroup
	first := make(chan int64, 1)
	wg.Go(func() { rev, _ := f.do(t.Context(), call); first <- rev })
	for calls.Load() == 0 { // the first call is under way
	}
	results := make(chan int64, 5)
	for range 5 {
		wg.Go(func() { rev, _ := f.do(t.Context(), call); results <- rev })
	}
	close(release)
	wg.Wait()
	if rev := <-first; rev != 1 {
		t.Errorf("the first asker got call %d", rev)
	}
	for range 5 {
		if rev := <-results; rev < 2 {
			t.Errorf("a later asker got call %d, which had begun before", rev)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	s := open(b)
	if err := s.Register(b.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			name := fmt.Sprintf("n%08d", n.Add(1))
			if _, err := s.Create(b.Context(), storetest.Prefix+"ns/"+name, storetest.Object("ns", name, "1"), 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkFanOut updates one object that some watch, beside thousands that watch other namespaces.
func BenchmarkFanOut(b *testing.B) {
	for _, idle := range []int{0, 10000} {
		b.Run(fmt.Sprintf("idle=%d", idle), func(b *testing.B) {
			s := open(b)
			if err := s.Register(b.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var all, told sync.WaitGroup
			follow := func(prefix string, f func(int)) {
				w, err := s.Watch(ctx, prefix, 0)
				if err != nil {
					b.Fatal(err)
				}
				all.Go(func() {
					for {
						events, _, err := w.Next(ctx)
						if err != nil {
							return
						}
						f(len(events))
					}
				})
			}
			for i := range idle {
				follow(fmt.Sprintf("%sidle%d/", storetest.Prefix, i), func(int) {})
			}
			const busy = 100
			for range busy {
				follow(storetest.Prefix+"ns/", func(n int) { told.Add(-n) })
			}
			told.Add(busy)
			e, err := s.Create(ctx, storetest.Prefix+"ns/a", storetest.Object("ns", "a", "0"), 0)
			for b.Loop() {
				if err != nil {
					b.Fatal(err)
				}
				told.Wait()
				told.Add(busy)
				e, err = s.Update(ctx, e.Key, e.Rev, storetest.Object("ns", "a", "1"), 0)
			}
			told.Wait()
			cancel()
			all.Wait()
		})
	}
}
