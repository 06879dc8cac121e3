package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api/builtin"
	apicodec "github.com/skiff-sh/skiff/api/codec"
	"github.com/skiff-sh/skiff/internal/etcdtest"
	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// warnings fails the test when etcd or the store warns of anything but a slow machine.
type warnings struct{ testing.TB }

func (w warnings) Write(b []byte) (int, error) {
	for _, slow := range []string{"took too long", "slow fdatasync", "leader is overloaded"} {
		if bytes.Contains(b, []byte(slow)) {
			return len(b), nil
		}
	}
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

// TestRefill takes the events of some writes away from the feed, as a compaction during a lost connection would: watches end,
// because they would miss something, and the cache is right again.
func TestRefill(t *testing.T) {
	ctx := t.Context()
	s := open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	key := func(name string) string { return storetest.Prefix + "ns/" + name }
	var before *store.Entry
	for _, name := range []string{"changed", "deleted", "same"} {
		var err error
		if before, err = s.Create(ctx, key(name), storetest.Object("ns", name, "1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	watches := map[string]store.Watch{}
	for what, only := range map[string][]store.Only{"of all": nil, "of one value": {onNode("")}} {
		w, err := s.Watch(ctx, storetest.Prefix, before.Rev, only...)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		watches[what] = w
	}
	s.stop() // the feed ends; the member goes on
	s.group.Wait()
	value, _ := storetest.Codec{}.Encode(storetest.Object("ns", "changed", "2"))
	for _, name := range []string{"changed", "new"} {
		if _, err := s.client.Put(ctx, key(name), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.client.Delete(ctx, key("deleted")); err != nil {
		t.Fatal(err)
	}
	if err := s.refill(ctx); err != nil {
		t.Fatal(err)
	}
	for what, w := range watches {
		if events, _, err := w.Next(ctx); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("the watch %s goes on: %v, %v", what, events, err)
		}
	}
	var got []string
	for e := range s.Snapshot("").Scan(storetest.Prefix, "") {
		got = append(got, e.Key[len(storetest.Prefix):]+"="+storetest.Said(e))
	}
	if want := []string{"ns/changed=2", "ns/new=2", "ns/same=1"}; !slices.Equal(got, want) {
		t.Errorf("there is %v, want %v", got, want)
	}
	rev, err := s.Revision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Snapshot("").Revision(); got != rev {
		t.Errorf("the cache is at %d, etcd at %d", got, rev)
	}
	if _, err := s.Watch(ctx, storetest.Prefix, rev-1); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("a watch from before: %v", err)
	}
	if _, err := s.Watch(ctx, storetest.Prefix, rev); err != nil {
		t.Errorf("a watch from now on: %v", err)
	}
}

// TestUnreadable: what cannot be read is neither there nor gone.
func TestUnreadable(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(name, value string) string {
		t.Helper()
		key := storetest.Prefix + "ns/" + name
		resp, err := s.client.Put(ctx, key, value)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WaitFor(ctx, resp.Header.Revision); err != nil {
			t.Fatal(err)
		}
		return key
	}
	broken := put("broken", "broken from the start")
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	good, err := s.Create(ctx, storetest.Prefix+"ns/good", storetest.Object("ns", "good", "1"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unreadable(good.Key); err != nil {
		t.Error(err)
	}
	watch, err := s.Watch(ctx, storetest.Prefix, good.Rev)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	put("good", "broken now")
	for _, place := range []string{broken, good.Key, storetest.Prefix, storetest.Prefix + "ns/"} {
		if s.Unreadable(place) == nil {
			t.Errorf("%s: nothing is wrong", place)
		}
	}
	if e, ok := s.Snapshot("").Get(good.Key); !ok || e.Rev != good.Rev {
		t.Errorf("the cache has %v, want what it last knew", e)
	}
	for _, key := range []string{broken, good.Key} {
		if _, err := s.client.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	events, _, err := watch.Next(ctx)
	if err != nil || len(events) != 1 || events[0].Type != store.Deleted || events[0].Entry.Key != good.Key {
		t.Errorf("the watch tells %v, %v, want that one was deleted", events, err)
	}
	if err := s.Unreadable(storetest.Prefix); err != nil {
		t.Errorf("all is gone, but %v", err)
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

// TestNoSpace fills a small database with history, and then with objects.
func TestNoSpace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Open(ctx, Config{DataDir: t.TempDir(), Quota: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 100<<10)
	e, err := s.Create(ctx, storetest.Prefix+"ns/a", storetest.Object("ns", "a", big), 0)
	for n := 0; err == nil; n++ {
		if n > 5000 { // etcd looks at the size after each batch, which may take half a second
			t.Fatal("500 MB fit into 4 MB")
		}
		e, err = s.Update(ctx, e.Key, e.Rev, storetest.Object("ns", "a", big), 0)
	}
	if !errors.Is(err, store.ErrNoSpace) {
		t.Fatal(err)
	}
	e, _ = s.Snapshot("").Get(storetest.Prefix + "ns/a")
	for { // the history goes by itself
		next, err := s.Update(ctx, e.Key, e.Rev, storetest.Object("ns", "a", "small"), 0)
		if err == nil {
			e = next
			break
		}
		var behind *store.Conflict // the write that used up the space was made, though etcd called it refused
		if errors.As(err, &behind) {
			e = behind.Current
		} else if !errors.Is(err, store.ErrNoSpace) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // between attempts: who makes space says so to nobody
	}
	if got, ok := s.Snapshot("").Get(e.Key); !ok || got != e {
		t.Errorf("after the recovery the cache has %v", got)
	}
}

// TestCompactionIsAgreed: of two servers on one etcd, one compacts in each interval, to the revision of the last.
func TestCompactionIsAgreed(t *testing.T) {
	ctx := t.Context()
	addr := etcdtest.Serve(t)
	open := func() *Store {
		s, err := Open(ctx, Config{Endpoints: []string{addr}, CompactEvery: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b := compaction{store: open()}, compaction{store: open()}
	step := func(c *compaction) {
		if err := c.step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string) int64 {
		e, err := a.store.Create(ctx, storetest.Prefix+"ns/"+name, storetest.Object("ns", name, "1"), 0)
		if err != nil {
			t.Fatal(err)
		}
		return e.Rev
	}
	first := write("a")
	step(&a) // learns the revision
	step(&b) // finds that a was there
	second := write("b")
	known := func(rev int64) bool {
		_, _, err := a.store.At(ctx, storetest.Prefix, "", rev, 0)
		if err != nil && !errors.Is(err, store.ErrCompacted) {
			t.Fatal(err)
		}
		return err == nil
	}
	if !known(first) {
		t.Error("compacted in the first interval")
	}
	step(&b)
	step(&a)
	if known(first) || !known(second) {
		t.Errorf("after the second interval: the first revision is known: %v, the second: %v", known(first), known(second))
	}
	if resp, err := a.store.client.Get(ctx, compactionKey); err != nil || len(resp.Kvs) != 1 || resp.Kvs[0].Version != 2 {
		t.Errorf("the key: %v, %v", resp, err)
	}
}

// TestQuietWatch: a watch of a quiet folder outlives any number of events elsewhere, and still misses nothing.
func TestQuietWatch(t *testing.T) {
	ctx := t.Context()
	s := open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	quiet, err := s.Watch(ctx, storetest.Prefix+"quiet/", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer quiet.Close()
	h := s.state.Load().kind(storetest.Prefix).history
	asleep := func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.asleep[storetest.Prefix+"quiet/"] != nil
	}
	type next struct {
		events []*store.Event
		err    error
	}
	got := make(chan next)
	follow := func() {
		events, _, err := quiet.Next(ctx)
		got <- next{events, err}
	}
	for round := range 2 {
		go follow()
		for !asleep() {
			runtime.Gosched()
		}
		for i := range 20 {
			if _, err := s.Create(ctx, fmt.Sprintf("%sbusy/b%d-%d", storetest.Prefix, round, i), storetest.Object("busy", "b", "1"), 0); err != nil {
				t.Fatal(err)
			}
		}
		h.age(time.Now().Add(time.Hour)) // all of that is forgotten
		e, err := s.Create(ctx, fmt.Sprintf("%squiet/q%d", storetest.Prefix, round), storetest.Object("quiet", "q", "1"), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := <-got; n.err != nil || len(n.events) != 1 || n.events[0].Entry != e {
			t.Fatalf("round %d: %d events, %v", round, len(n.events), n.err)
		}
	}
}

// BenchmarkLoad opens a store with 100,000 config maps of 600 bytes.
func BenchmarkLoad(b *testing.B) {
	const n = 100_000
	dir := filepath.Join(b.TempDir(), "etcd")
	k, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	codec := apicodec.For(k)
	s := openIn(b, dir)
	for i := 0; i < n; {
		var ops []clientv3.Op
		for ; i < n && len(ops) < 500; i++ {
			obj := storetest.Object("ns", fmt.Sprintf("c%06d", i), strings.Repeat("x", 300))
			obj.UID, obj.Labels = types.UID(fmt.Sprintf("%036d", i)), map[string]string{"app": "load"}
			obj.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "load", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1",
				FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:data":{".":{},"f:v":{}},"f:metadata":{"f:labels":{".":{},"f:app":{}}}}`)}}}
			value, err := codec.Encode(obj)
			if err != nil {
				b.Fatal(err)
			}
			ops = append(ops, clientv3.OpPut(k.Key("ns", obj.Name), string(value)))
		}
		if _, err := s.client.Txn(b.Context()).Then(ops...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := openIn(b, dir)
		if err := s.Register(b.Context(), k.Prefix(""), codec); err != nil {
			b.Fatal(err)
		}
		if got := s.Snapshot("").Len(k.Prefix("")); got != n {
			b.Fatalf("%d are loaded", got)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
