package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// nodeOf stands for a field by which watches follow few objects.
func nodeOf(o api.Object) string { return o.GetLabels()["node"] }

func onNode(name string) store.Only { return store.Only{Field: "node", Value: name, Of: nodeOf} }

// collect reads a watch until it has reached a revision.
func collect(t *testing.T, w store.Watch, until int64) (out []*store.Event) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		events, rev, err := w.Next(ctx)
		cancel()
		out = append(out, events...)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if rev >= until {
			return out
		}
		if err != nil {
			t.Fatalf("at revision %d, want %d: %v", rev, until, err)
		}
	}
}

// TestOnly compares watches of one value with those of everything, while objects move between the values.
func TestOnly(t *testing.T) {
	ctx, s := t.Context(), open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Watch(ctx, storetest.Prefix, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	watches := map[string]store.Watch{}
	follow := func(node string, rev int64) {
		if watches[node], err = s.Watch(ctx, storetest.Prefix, rev, onNode(node)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(watches[node].Close)
	}
	begin := s.Snapshot(storetest.Prefix).Revision()
	follow("a", 0)
	follow("b", 0)
	r := rand.New(rand.NewPCG(1, 2))
	there := map[string]*store.Entry{}
	var last int64
	for i := range 300 {
		name := fmt.Sprintf("o%d", r.IntN(12))
		obj := storetest.Object("ns", name, fmt.Sprint(i))
		obj.SetLabels(map[string]string{"node": []string{"a", "b", "c"}[r.IntN(3)]})
		var e *store.Entry
		switch old := there[name]; {
		case old == nil:
			e, err = s.Create(ctx, storetest.Prefix+"ns/"+name, obj, 0)
			there[name] = e
		case r.IntN(4) == 0:
			e, err = s.Delete(ctx, old.Key, old.Rev)
			delete(there, name)
		default:
			e, err = s.Update(ctx, old.Key, old.Rev, obj, 0)
			there[name] = e
		}
		if err != nil {
			t.Fatal(err)
		}
		last = e.Rev
	}
	follow("c", begin) // from the past
	events := collect(t, all, last)
	for node, w := range watches {
		want := slices.DeleteFunc(slices.Clone(events), func(e *store.Event) bool { return !concerns(e, onNode(node)) })
		if got := collect(t, w, last); !slices.Equal(got, want) || len(got) < 30 {
			t.Errorf("node %s: %d events, want %d", node, len(got), len(want))
		}
		w.Close()
		if _, _, err := w.Next(ctx); err == nil {
			t.Error("a closed watch goes on")
		}
	}
	if h := s.state.Load().kind(storetest.Prefix).history; len(h.fields) != 0 {
		t.Errorf("fields are left: %v", h.fields)
	}
}

// TestOnlySleeps checks that a watch of one value is left alone by all else, and moves on all the same.
func TestOnlySleeps(t *testing.T) {
	ctx, s := t.Context(), open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(ctx, storetest.Prefix, 0, onNode("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	tw := w.(*topicWatcher)
	_, news, err := tw.read()
	if err != nil {
		t.Fatal(err)
	}
	obj := storetest.Object("ns", "x", "1")
	obj.SetLabels(map[string]string{"node": "b"})
	e, err := s.Create(ctx, storetest.Prefix+"ns/x", obj, 0)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-news:
		t.Error("woken for another's object")
	default:
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, rev, err := w.Next(short); !errors.Is(err, context.Canceled) || rev < e.Rev {
		t.Errorf("at revision %d, want %d: %v", rev, e.Rev, err)
	}
}

// TestOnlyTooSlow cuts off who does not read.
func TestOnlyTooSlow(t *testing.T) {
	s := open(t)
	w := &topicWatcher{cursor: s.cursor(newHistory(0), "/", 0)}
	e := &store.Event{Entry: &store.Entry{Key: "/k", Object: storetest.Object("ns", "x", "1")}}
	for range maxPending + 1 {
		w.tell(e)
	}
	if _, _, err := w.Next(t.Context()); !errors.Is(err, store.ErrCompacted) {
		t.Error(err)
	}
}

// followNodes starts a watch of each of n nodes' objects, and lets all of them fall asleep.
func followNodes(t testing.TB, s *Store, n int) (asleep []<-chan struct{}) {
	t.Helper()
	for i := range n {
		w, err := s.Watch(t.Context(), storetest.Prefix, 0, onNode(fmt.Sprintf("n%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		_, news, err := w.(*topicWatcher).read()
		if err != nil {
			t.Fatal(err)
		}
		asleep = append(asleep, news)
	}
	return asleep
}

func awake(asleep []<-chan struct{}) (out []int) {
	for i, news := range asleep {
		select {
		case <-news:
			out = append(out, i)
		default:
		}
	}
	return out
}

// TestTenThousandNodes: of ten thousand agents that each watch their own node's pods, a change of a pod wakes the one whom
// it concerns, and one that moves wakes two.
func TestTenThousandNodes(t *testing.T) {
	ctx, s := t.Context(), open(t)
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	asleep := followNodes(t, s, 10_000)
	obj := storetest.Object("ns", "x", "1")
	on := func(node string) *corev1.ConfigMap {
		next := obj.DeepCopy()
		next.SetLabels(map[string]string{"node": node})
		return next
	}
	e, err := s.Create(ctx, storetest.Prefix+"ns/x", on(""), 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := awake(asleep); len(got) > 0 {
		t.Errorf("nobody's pod wakes %v", got)
	}
	for _, node := range []string{"n7", "n9999"} {
		if e, err = s.Update(ctx, e.Key, e.Rev, on(node), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := awake(asleep); !slices.Equal(got, []int{7, 9999}) {
		t.Errorf("the pod of two nodes, one after the other, wakes %v", got)
	}
}

// BenchmarkOtherNodes writes objects of no node, with many watches of nodes' objects and with none: the difference is what they cost.
func BenchmarkOtherNodes(b *testing.B) {
	for _, n := range []int{0, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := open(b)
			if err := s.Register(b.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
				b.Fatal(err)
			}
			asleep := followNodes(b, s, n)
			e, err := s.Create(b.Context(), storetest.Prefix+"ns/x", storetest.Object("ns", "x", "1"), 0)
			for i := 0; b.Loop() && err == nil; i++ {
				e, err = s.Update(b.Context(), e.Key, e.Rev, storetest.Object("ns", "x", fmt.Sprint(i)), 0)
			}
			if err != nil {
				b.Fatal(err)
			}
			if got := awake(asleep); len(got) > 0 {
				b.Errorf("%d watches were woken", len(got))
			}
		})
	}
}

// BenchmarkConcern is what an event costs in the history alone: with a watch of each of so many nodes.
func BenchmarkConcern(b *testing.B) {
	for _, n := range []int{0, 1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHistory(0)
			s := &Store{}
			s.state.Store(&state{})
			for i := range n {
				if _, err := h.follow(s, "/", 0, onNode(fmt.Sprintf("n%d", i))); err != nil {
					b.Fatal(err)
				}
			}
			e := &store.Event{Entry: &store.Entry{Key: "/k", Object: storetest.Object("ns", "x", "1")}}
			now := time.Now()
			b.ReportAllocs()
			for b.Loop() {
				e.Entry.Rev++
				h.add(e, 100, now)
				h.wake(e.Entry.Key, e.Entry.Rev)
			}
		})
	}
}
