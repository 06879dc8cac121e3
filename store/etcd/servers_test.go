package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/skiff-sh/skiff/internal/etcdtest"
	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// change is one event, as etcd or a watch tells it: "+" for what is there now, "-" for what is gone.
type change struct {
	rev  int64
	text string
}

// stretch is what a client of a store was told between two revisions: all events of a watch, or the state at the second one.
type stretch struct {
	from, to int64
	changes  []change
	state    map[string]string // instead of changes
}

// fleet is several stores over one etcd, which are closed and opened again all the time.
type fleet struct {
	t    *testing.T
	at   string
	slot [3]atomic.Pointer[Store]

	due chan struct{} // for something to happen to the stores

	mu           sync.Mutex
	acknowledged []change
	stretches    []stretch
}

func (f *fleet) open(i int) {
	s, err := Open(f.t.Context(), Config{Endpoints: []string{f.at}, CompactEvery: -1})
	if err == nil {
		err = s.Register(f.t.Context(), storetest.Prefix, storetest.Codec{})
	}
	if err != nil {
		f.t.Error(err)
		return
	}
	if old := f.slot[i].Swap(s); old != nil {
		_ = old.Close() // what its clients are told now may be anything but a wrong event
	}
}

func (f *fleet) any(r *rand.Rand) *Store { return f.slot[r.IntN(len(f.slot))].Load() }

// write makes random writes to a few keys through any of the stores.
func (f *fleet) write(ctx context.Context, r *rand.Rand, rounds int) {
	for n := range rounds {
		if n%20 == 19 {
			select {
			case f.due <- struct{}{}:
			default:
			}
		}
		s, name := f.any(r), fmt.Sprintf("k%d", r.IntN(6))
		key, v := storetest.Prefix+"ns/"+name, fmt.Sprint(r.IntN(1e6))
		old, _ := s.Snapshot("").Get(key)
		var e *store.Entry
		var err error
		text := "+" + key + "=" + v
		switch {
		case old == nil:
			e, err = s.Create(ctx, key, storetest.Object("ns", name, v), 0)
		case r.IntN(4) == 0:
			text = "-" + key
			e, err = s.Delete(ctx, key, old.Rev)
		default:
			e, err = s.Update(ctx, key, old.Rev, storetest.Object("ns", name, v), 0)
		}
		if err != nil {
			continue // somebody was faster, or the store was closed
		}
		f.mu.Lock()
		f.acknowledged = append(f.acknowledged, change{e.Rev, text})
		f.mu.Unlock()
	}
}

// follow goes from store to store and follows the events where the last one ended, until it has seen all up to a revision.
func (f *fleet) follow(ctx context.Context, r *rand.Rand, rev int64, until func() int64) {
	for u := until(); u == 0 || rev < u; u = until() {
		s := f.any(r)
		w, err := s.Watch(ctx, storetest.Prefix, rev)
		if errors.Is(err, store.ErrCompacted) {
			at := f.list(s)
			f.tell(at)
			rev = at.to
			continue
		} else if err != nil {
			continue // the store was closed
		}
		for range 1 + r.IntN(5) {
			wait, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			events, to, err := w.Next(wait)
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				break
			}
			seen := stretch{from: rev, to: to}
			for _, e := range events {
				text := "+" + e.Entry.Key + "=" + storetest.Said(e.Entry)
				if e.Type == store.Deleted {
					text = "-" + e.Entry.Key
				}
				seen.changes = append(seen.changes, change{e.Entry.Rev, text})
			}
			f.tell(seen)
			rev = to
		}
		w.Close()
		if r.IntN(8) == 0 {
			f.tell(f.list(s))
		}
		if ctx.Err() != nil {
			f.t.Error(ctx.Err())
			return
		}
	}
}

func (f *fleet) list(s *Store) stretch {
	snap := s.Snapshot("")
	out := stretch{to: snap.Revision(), state: map[string]string{}}
	for e := range snap.Scan(storetest.Prefix, "") {
		out.state[e.Key] = storetest.Said(e)
	}
	return out
}

func (f *fleet) tell(s stretch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stretches = append(f.stretches, s)
}

// truth is what etcd itself tells, up to a revision.
func truth(t *testing.T, in clientv3.WatchChan, until int64) (out []change) {
	t.Helper()
	for rev := int64(0); rev < until; {
		resp, ok := <-in
		if !ok || resp.Err() != nil {
			t.Fatal(resp.Err())
		}
		for _, e := range resp.Events {
			rev = e.Kv.ModRevision
			if !strings.HasPrefix(string(e.Kv.Key), storetest.Prefix) {
				continue
			}
			text := "-" + string(e.Kv.Key)
			if e.Type == clientv3.EventTypePut {
				obj, err := storetest.Codec{}.Decode(e.Kv.Value, rev)
				if err != nil {
					t.Fatal(err)
				}
				text = "+" + string(e.Kv.Key) + "=" + storetest.Said(&store.Entry{Object: obj})
			}
			out = append(out, change{rev, text})
		}
	}
	return out
}

// TestServersTellTheSame lets clients write, list and watch through several stores over one etcd, which is compacted, while
// the stores are closed and opened again, and holds all that they were told against what etcd itself tells.
func TestServersTellTheSame(t *testing.T) {
	const writers, followers, rounds = 4, 6, 120
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f := &fleet{t: t, at: etcdtest.Serve(t), due: make(chan struct{}, 1)}
	plain, err := clientv3.New(clientv3.Config{Endpoints: []string{f.at}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for i := range f.slot {
		f.open(i)
	}
	defer func() {
		for i := range f.slot {
			_ = f.slot[i].Load().Close()
		}
	}()
	start, err := f.slot[0].Load().Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	told := plain.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(start+1))
	var writing, rest sync.WaitGroup
	var last atomic.Int64
	for i := range writers {
		writing.Go(func() { f.write(ctx, rand.New(rand.NewPCG(uint64(i), 1)), rounds) })
	}
	for i := range followers {
		rest.Go(func() { f.follow(ctx, rand.New(rand.NewPCG(uint64(i), 2)), start, last.Load) })
	}
	done := make(chan struct{})
	rest.Go(func() {
		for r := rand.New(rand.NewPCG(0, 3)); ; {
			select {
			case <-done:
				return
			case <-f.due:
			}
			f.open(r.IntN(len(f.slot)))
			s := f.any(r)
			_ = s.Compact(ctx, max(1, s.Snapshot("").Revision()-int64(r.IntN(30)))) // it may be closed
		}
	})
	writing.Wait()
	close(done)
	final, err := plain.Put(ctx, "/end", "")
	if err != nil {
		t.Fatal(err)
	}
	last.Store(final.Header.Revision)
	rest.Wait()
	f.check(truth(t, told, final.Header.Revision))
}

// check holds what was told against the one sequence of changes.
func (f *fleet) check(all []change) {
	at := map[int64]string{}
	for _, c := range all {
		at[c.rev] = c.text
	}
	for _, c := range f.acknowledged {
		if at[c.rev] != c.text {
			f.t.Errorf("%s was acknowledged at %d, where etcd has %q", c.text, c.rev, at[c.rev])
		}
	}
	events, lists := 0, 0
	for _, s := range f.stretches {
		if s.state != nil {
			lists++
			if want := stateAt(all, s.to); !maps.Equal(s.state, want) {
				f.t.Errorf("a list at %d: %v, want %v", s.to, s.state, want)
			}
			continue
		}
		events += len(s.changes)
		var want []change
		for _, c := range all {
			if c.rev > s.from && c.rev <= s.to {
				want = append(want, c)
			}
		}
		if !slices.Equal(s.changes, want) {
			f.t.Errorf("a watch from %d to %d: %v, want %v", s.from, s.to, s.changes, want)
		}
	}
	if len(f.acknowledged) < 50 || events < 100 || lists < 5 {
		f.t.Errorf("only %d writes, %d events and %d lists were seen", len(f.acknowledged), events, lists)
	}
}

func stateAt(all []change, rev int64) map[string]string {
	out := map[string]string{}
	for _, c := range all {
		if c.rev > rev {
			break
		}
		key, v, _ := strings.Cut(c.text[1:], "=")
		if delete(out, key); c.text[0] == '+' {
			out[key] = v
		}
	}
	return out
}
