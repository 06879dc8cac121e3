// Package storetest proves that a Store keeps its promises. Only tests import it.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// Prefix is registered in every store that the suite opens.
const Prefix = "/registry/configmaps/"

// Codec keeps config maps as JSON; a value of "broken" cannot be decoded.
type Codec struct{}

func (Codec) Decode(value []byte, rev int64) (api.Object, error) {
	obj := &corev1.ConfigMap{}
	if err := json.Unmarshal(value, obj); err != nil {
		return nil, err
	}
	obj.ResourceVersion = strconv.FormatInt(rev, 10)
	return obj, nil
}

func (Codec) Encode(obj api.Object) ([]byte, error) {
	o := obj.DeepCopyObject().(api.Object)
	o.SetResourceVersion("")
	return json.Marshal(o)
}

// Object makes a config map that says v.
func Object(namespace, name, v string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"v": v}}
}

// Said is what the config map of an entry says.
func Said(e *store.Entry) string { return said(e) }

func said(e *store.Entry) string { return e.Object.(*corev1.ConfigMap).Data["v"] }

// Run proves a driver; open returns a new empty store that is closed by the test's cleanup.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, test := range []struct {
		name string
		f    func(*testing.T, *harness)
	}{
		{"Writes", writes}, {"Conflicts", conflicts}, {"Snapshots", snapshots}, {"At", at}, {"WatchHistory", watchHistory},
		{"WatchScope", watchScope}, {"Compaction", compaction}, {"Register", register}, {"ConcurrentWriters", concurrentWriters},
		{"Future", future}, {"Encodings", encodings}, {"Progress", progress}, {"Histories", histories},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			h := &harness{T: t, ctx: ctx, Store: open(t)}
			h.must(h.Register(ctx, Prefix, Codec{}))
			test.f(t, h)
		})
	}
}

type harness struct {
	*testing.T
	store.Store
	ctx context.Context
}

func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) create(name, v string) *store.Entry {
	h.Helper()
	e, err := h.Create(h.ctx, Prefix+"ns/"+name, Object("ns", name, v), 0)
	h.must(err)
	return e
}

func (h *harness) update(old *store.Entry, v string) *store.Entry {
	h.Helper()
	e, err := h.Update(h.ctx, old.Key, old.Rev, Object("ns", old.Object.GetName(), v), 0)
	h.must(err)
	return e
}

func (h *harness) delete(old *store.Entry) *store.Entry {
	h.Helper()
	e, err := h.Delete(h.ctx, old.Key, old.Rev)
	h.must(err)
	return e
}

// snapshot reads consistently.
func (h *harness) snapshot() store.Snapshot {
	h.Helper()
	rev, err := h.Revision(h.ctx)
	h.must(err)
	h.must(h.WaitFor(h.ctx, rev))
	return h.Snapshot(Prefix)
}

func (h *harness) watch(prefix string, rev int64) store.Watch {
	h.Helper()
	w, err := h.Store.Watch(h.ctx, prefix, rev)
	h.must(err)
	h.Cleanup(w.Close)
	return w
}

// take reads n events.
func (h *harness) take(w store.Watch, n int) []*store.Event {
	h.Helper()
	var out []*store.Event
	for len(out) < n {
		events, rev, err := w.Next(h.ctx)
		h.must(err)
		for _, e := range events {
			if e.Entry.Rev > rev {
				h.Fatalf("event at %d in a stream complete up to %d", e.Entry.Rev, rev)
			}
		}
		out = append(out, events...)
	}
	if len(out) > n {
		h.Fatalf("%d events, want %d: %s", len(out), n, show(out))
	}
	return out
}

func show(events []*store.Event) []string {
	var out []string
	for _, e := range events {
		s := fmt.Sprintf("%c%s=%s@%d", "+~-"[e.Type], e.Entry.Key[len(Prefix):], said(e.Entry), e.Entry.Rev)
		if e.Prev != nil {
			s += fmt.Sprintf("(%s@%d)", said(e.Prev), e.Prev.Rev)
		}
		out = append(out, s)
	}
	return out
}

func entries(s store.Snapshot, prefix, from string) []string {
	var out []string
	for e := range s.Scan(prefix, from) {
		out = append(out, fmt.Sprintf("%s=%s", e.Key[len(Prefix):], said(e)))
	}
	return out
}

func (h *harness) equal(what string, got, want []string) {
	h.Helper()
	if !slices.Equal(got, want) {
		h.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func writes(t *testing.T, h *harness) {
	a := h.create("a", "1")
	if a.Object.GetResourceVersion() != strconv.FormatInt(a.Rev, 10) {
		t.Errorf("resourceVersion %s at revision %d", a.Object.GetResourceVersion(), a.Rev)
	}
	if got, ok := h.snapshot().Get(a.Key); !ok || got != a {
		t.Errorf("a read finds %v, want the entry that the write returned", got)
	}
	b := h.update(a, "2")
	if b.Rev <= a.Rev || said(b) != "2" || said(a) != "1" {
		t.Errorf("after the update: %s@%d, before: %s@%d", said(b), b.Rev, said(a), a.Rev)
	}
	d := h.delete(b)
	if d.Rev <= b.Rev || said(d) != "2" || d.Object.GetResourceVersion() != strconv.FormatInt(d.Rev, 10) || b.Object.GetResourceVersion() != strconv.FormatInt(b.Rev, 10) {
		t.Errorf("deleted: %s@%d with resourceVersion %s", said(d), d.Rev, d.Object.GetResourceVersion())
	}
	if _, ok := h.snapshot().Get(a.Key); ok {
		t.Error("the key is still there")
	}
	if c := h.create("a", "3"); c.Rev <= d.Rev {
		t.Error("revisions do not grow")
	}
}

func conflicts(t *testing.T, h *harness) {
	a := h.create("a", "1")
	if _, err := h.Create(h.ctx, a.Key, Object("ns", "a", "x"), 0); !errors.Is(err, store.ErrExists) {
		t.Errorf("create: %v, want ErrExists", err)
	}
	b := h.update(a, "2")
	_, updateErr := h.Update(h.ctx, a.Key, a.Rev, Object("ns", "a", "x"), 0)
	_, deleteErr := h.Delete(h.ctx, a.Key, a.Rev)
	for _, err := range []error{updateErr, deleteErr} {
		var c *store.Conflict
		if !errors.As(err, &c) || c.Want != a.Rev || c.Current == nil || c.Current.Rev != b.Rev || said(c.Current) != "2" {
			t.Errorf("%v, want a conflict with %d", err, b.Rev)
		}
	}
	h.delete(b)
	_, err := h.Update(h.ctx, a.Key, b.Rev, Object("ns", "a", "x"), 0)
	var c *store.Conflict
	if !errors.As(err, &c) || c.Current != nil {
		t.Errorf("update of a deleted key: %v, want a conflict with nothing", err)
	}
	if got := entries(h.snapshot(), Prefix, ""); len(got) > 0 {
		t.Errorf("refused writes left %q", got)
	}
}

func snapshots(t *testing.T, h *harness) {
	var all []*store.Entry
	for i := range 50 {
		all = append(all, h.create(fmt.Sprintf("n%02d", i), "1"))
	}
	before := h.snapshot()
	want := entries(before, Prefix, "")
	if len(want) != 50 || before.Len(Prefix) != 50 || before.Len(Prefix+"ns/") != 50 || before.Len(Prefix+"other/") != 0 {
		t.Fatalf("snapshot of %d", len(want))
	}
	if !slices.IsSorted(want) {
		t.Errorf("not in key order: %q", want)
	}
	if rest := entries(before, Prefix, all[40].Key); len(rest) != 10 {
		t.Errorf("%d from %s on", len(rest), all[40].Key)
	}
	for i, e := range all {
		if i%2 == 0 {
			h.update(e, "2")
		} else {
			h.delete(e)
		}
	}
	h.equal("the old snapshot", entries(before, Prefix, ""), want)
	if got := h.snapshot().Len(Prefix); got != 25 {
		t.Errorf("now %d", got)
	}
}

func at(t *testing.T, h *harness) {
	a := h.create("a", "1")
	b := h.create("b", "1")
	c := h.create("c", "1")
	rev := c.Rev
	h.update(a, "2")
	h.delete(b)
	read := func(from string, limit int) ([]string, int64) {
		es, remaining, err := h.At(h.ctx, Prefix, from, rev, limit)
		h.must(err)
		var out []string
		for _, e := range es {
			out = append(out, e.Object.GetName()+"="+said(e))
		}
		return out, remaining
	}
	all, remaining := read("", 0)
	h.equal("all", all, []string{"a=1", "b=1", "c=1"})
	if remaining != 0 {
		t.Errorf("%d remain", remaining)
	}
	some, remaining := read(b.Key, 1)
	h.equal("some", some, []string{"b=1"})
	if remaining != 1 {
		t.Errorf("%d remain, want 1", remaining)
	}
}

// watchHistory makes random writes and compares what watches tell with what was done, from every revision on.
func watchHistory(t *testing.T, h *harness) {
	first := h.watch(Prefix, 0)
	start := h.snapshot().Revision()
	rng := rand.New(rand.NewPCG(1, 2))
	now := map[string]*store.Entry{}
	var done []string
	var revs []int64
	for i := range 200 {
		name, v := fmt.Sprintf("k%d", rng.IntN(10)), strconv.Itoa(i)
		old := now[name]
		var e *store.Entry
		switch {
		case old == nil:
			e = h.create(name, v)
			done = append(done, fmt.Sprintf("+ns/%s=%s@%d", name, v, e.Rev))
			now[name] = e
		case rng.IntN(3) == 0:
			e = h.delete(old)
			done = append(done, fmt.Sprintf("-ns/%s=%s@%d(%s@%d)", name, said(old), e.Rev, said(old), old.Rev))
			delete(now, name)
		default:
			e = h.update(old, v)
			done = append(done, fmt.Sprintf("~ns/%s=%s@%d(%s@%d)", name, v, e.Rev, said(old), old.Rev))
			now[name] = e
		}
		revs = append(revs, e.Rev)
	}
	live := h.take(first, len(done))
	h.equal("the watch from the start", show(live), done)
	for i, rev := range append([]int64{start}, revs...) {
		if i == len(revs) {
			break
		}
		resumed := h.take(h.watch(Prefix, rev), len(done)-i)
		for j, e := range resumed {
			if e != live[i+j] {
				t.Fatalf("resumed at %d, event %d is not the shared one", rev, j)
			}
		}
	}
}

func watchScope(t *testing.T, h *harness) {
	h.must(h.Register(h.ctx, "/registry/secrets/", Codec{}))
	w := h.watch(Prefix+"ns/", 0)
	_, err := h.Create(h.ctx, Prefix+"other/a", Object("other", "a", "1"), 0)
	h.must(err)
	_, err = h.Create(h.ctx, "/registry/secrets/ns/a", Object("ns", "a", "1"), 0)
	h.must(err)
	e := h.create("a", "1")
	h.equal("one namespace", show(h.take(w, 1)), []string{fmt.Sprintf("+ns/a=1@%d", e.Rev)})

	ctx, cancel := context.WithCancel(h.ctx)
	ended := make(chan error)
	go func() {
		_, _, err := w.Next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled Next: %v", err)
	}
	h.update(e, "2") // the watch goes on after a canceled Next
	h.take(w, 1)
}

func compaction(t *testing.T, h *harness) {
	a := h.create("a", "1")
	b := h.update(a, "2")
	c := h.update(b, "3")
	h.must(h.Compact(h.ctx, c.Rev))
	h.must(h.Compact(h.ctx, b.Rev)) // what is gone already is no error
	if _, _, err := h.At(h.ctx, Prefix, "", a.Rev, 0); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("At: %v, want ErrCompacted", err)
	}
	if _, _, err := h.At(h.ctx, Prefix, "", c.Rev, 0); err != nil {
		t.Errorf("At the compacted revision itself: %v", err)
	}
	if _, err := h.Store.Watch(h.ctx, Prefix, 1); !errors.Is(err, store.ErrCompacted) && a.Rev > 2 {
		t.Errorf("Watch: %v, want ErrCompacted", err)
	}
}

func register(t *testing.T, h *harness) {
	const late = "/registry/example.com/things/"
	if _, err := h.Create(h.ctx, late+"a", Object("", "a", "1"), 0); err == nil {
		t.Error("a write under no registered prefix succeeded")
	}
	h.must(h.Register(h.ctx, late, Codec{}))
	e, err := h.Create(h.ctx, late+"a", Object("", "a", "1"), 0)
	h.must(err)
	w := h.watch(late, e.Rev)
	h.Unregister(late)
	if _, _, err := w.Next(h.ctx); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("the watch of an unregistered prefix: %v", err)
	}
	if _, ok := h.snapshot().Get(e.Key); ok {
		t.Error("unregistered entries are still known")
	}
	h.must(h.Register(h.ctx, late, Codec{}))
	if got, ok := h.snapshot().Get(e.Key); !ok || said(got) != "1" || got.Rev != e.Rev {
		t.Errorf("registered again: %v", got)
	}
	if _, ok := h.snapshot().Get(Prefix + "ns/none"); ok {
		t.Error("found what is not there")
	}
}

// concurrentWriters increment counters; every increment must count once, be told once and be seen by its writer.
func concurrentWriters(t *testing.T, h *harness) {
	const writers, rounds, keys = 8, 25, 3
	for k := range keys {
		h.create(fmt.Sprintf("c%d", k), "0")
	}
	start := h.snapshot()
	w := h.watch(Prefix, start.Revision())
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 0))
			for range rounds {
				key := fmt.Sprintf("%sns/c%d", Prefix, rng.IntN(keys))
				if err := increment(h, key); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for e := range h.snapshot().Scan(Prefix, "") {
		n, _ := strconv.Atoi(said(e))
		total += n
	}
	if total != writers*rounds {
		t.Fatalf("counted %d of %d", total, writers*rounds)
	}
	count := map[string]int{}
	last := start.Revision()
	for _, e := range h.take(w, writers*rounds) {
		count[e.Entry.Key]++
		if said(e.Entry) != strconv.Itoa(count[e.Entry.Key]) || e.Entry.Rev <= last {
			t.Fatalf("event %s=%s at %d after %d", e.Entry.Key, said(e.Entry), e.Entry.Rev, last)
		}
		last = e.Entry.Rev
	}
	if len(count) > keys {
		t.Errorf("events for %v", slices.Collect(maps.Keys(count)))
	}
}

func increment(h *harness, key string) error {
	e, _ := h.Snapshot(Prefix).Get(key)
	for {
		n, _ := strconv.Atoi(said(e))
		made, err := h.Update(h.ctx, key, e.Rev, Object("ns", e.Object.GetName(), strconv.Itoa(n+1)), 0)
		var c *store.Conflict
		if errors.As(err, &c) {
			e = c.Current
			continue
		}
		if err != nil {
			return err
		}
		if now, ok := h.Snapshot(Prefix).Get(key); !ok || now.Rev < made.Rev {
			return fmt.Errorf("the writer does not see its own write of revision %d", made.Rev)
		}
		return nil
	}
}

func future(t *testing.T, h *harness) {
	rev, err := h.Revision(h.ctx)
	h.must(err)
	if _, err := h.Store.Watch(h.ctx, Prefix, rev+1000); !errors.Is(err, store.ErrFuture) {
		t.Errorf("Watch: %v, want ErrFuture", err)
	}
	if _, _, err := h.At(h.ctx, Prefix, "", rev+1000, 0); !errors.Is(err, store.ErrFuture) {
		t.Errorf("At: %v, want ErrFuture", err)
	}
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	if err := h.WaitFor(ctx, rev+1000); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitFor: %v", err)
	}
}

func encodings(t *testing.T, h *harness) {
	e := h.create("a", "1")
	n := 0
	build := func() ([]byte, error) { n++; return []byte("x"), nil }
	for range 3 {
		b, err := e.Encoded(store.JSON, build)
		if err != nil || string(b) != "x" {
			t.Fatal(string(b), err)
		}
	}
	if n != 1 {
		t.Errorf("built %d times", n)
	}
}

// progress: a watch that has nothing to tell still moves on, for bookmarks.
func progress(t *testing.T, h *harness) {
	w := h.watch(Prefix+"quiet/", 0)
	e := h.create("a", "1")
	ctx, cancel := context.WithTimeout(h.ctx, time.Millisecond)
	defer cancel()
	events, rev, err := w.Next(ctx)
	if len(events) != 0 || rev < e.Rev || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d events, revision %d (want %d or more), %v", len(events), rev, e.Rev, err)
	}
}
