package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/reconcile"
)

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
}

// bubble runs a controller over a fake API until f returns.
func bubble(t *testing.T, a *clienttest.API, c func(reconcile.Deps) reconcile.Controller, f func(context.Context)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cs := client.NewCaches(a, nil)
		done := make(chan error, 2)
		go func() { done <- cs.Run(ctx) }()
		controller := c(reconcile.NewDeps("test-controller", a, cs, nil, nil))
		go func() { done <- reconcile.Run(ctx, reconcile.Options{}, controller) }()
		synctest.Wait()
		f(ctx)
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSeesOwnWrites: a counter that reads from the cache alone never meets a conflict.
func TestSeesOwnWrites(t *testing.T) {
	a := clienttest.New(nil, configMap("a"))
	runs := 0
	bubble(t, a, func(d reconcile.Deps) reconcile.Controller {
		c := client.CacheOf[*corev1.ConfigMap](d.Caches)
		return reconcile.Controller{Name: "counter", Inputs: []reconcile.Input{reconcile.Own[*corev1.ConfigMap](d.Caches)},
			Reconcile: func(ctx context.Context, k reconcile.Key) (reconcile.Result, error) {
				runs++
				o, ok := c.Get(k.Namespace, k.Name)
				if !ok {
					return reconcile.Result{}, nil
				}
				if o.Annotations["n"] == "xxxxx" {
					return reconcile.Result{}, client.Delete[*corev1.ConfigMap](ctx, d.Client, k.Namespace, k.Name, o.UID)
				}
				o = o.DeepCopy()
				o.Annotations = map[string]string{"n": o.Annotations["n"] + "x"}
				_, err := client.Update(ctx, d.Client, o)
				return reconcile.Result{}, err
			}}
	}, func(ctx context.Context) { synctest.Wait() })
	if got := strings.Join(a.Writes(), ", "); strings.Count(got, "update") != 5 || strings.Count(got, "delete") != 1 {
		t.Errorf("writes: %s", got)
	}
	if runs != 7 { // five updates, the deletion, and a look at the empty place
		t.Errorf("%d runs", runs)
	}
}

func TestBackOffAndPanics(t *testing.T) {
	a := clienttest.New(nil, configMap("a"))
	var at []time.Duration
	bubble(t, a, func(d reconcile.Deps) reconcile.Controller {
		var start time.Time
		return reconcile.Controller{Name: "failing", Inputs: []reconcile.Input{reconcile.Own[*corev1.ConfigMap](d.Caches)},
			Reconcile: func(ctx context.Context, k reconcile.Key) (reconcile.Result, error) {
				if start.IsZero() {
					start = time.Now()
				}
				at = append(at, time.Since(start))
				switch len(at) {
				case 1:
					panic("oh")
				case 2, 3:
					return reconcile.Result{}, errors.New("no")
				case 4:
					return reconcile.Result{After: time.Minute}, nil
				}
				return reconcile.Result{}, nil
			}}
	}, func(ctx context.Context) { time.Sleep(time.Hour) })
	ms := time.Millisecond
	if want := []time.Duration{0, 5 * ms, 15 * ms, 35 * ms, 35*ms + time.Minute}; !slices.Equal(at, want) {
		t.Errorf("ran at %v, want %v", at, want)
	}
}

func TestInputs(t *testing.T) {
	yes := true
	owned := configMap("owned")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: "owner", UID: "1", Controller: &yes}}
	a := clienttest.New(nil, owned)
	seen := map[string]int{}
	bubble(t, a, func(d reconcile.Deps) reconcile.Controller {
		return reconcile.Controller{Name: "inputs", Workers: 1, Inputs: []reconcile.Input{
			reconcile.Owned[*corev1.ConfigMap](d.Caches, "Secret"),
			reconcile.Map(d.Caches, func(old, new *corev1.Node) []reconcile.Key {
				if old == nil && new != nil {
					return []reconcile.Key{{Name: "node-" + new.Name}}
				}
				return nil
			}),
			reconcile.Source(func(enqueue func(reconcile.Key)) func() { enqueue(reconcile.Key{Name: "source"}); return func() {} }),
		}, Reconcile: func(ctx context.Context, k reconcile.Key) (reconcile.Result, error) {
			seen[k.String()]++
			return reconcile.Result{}, nil
		}}
	}, func(ctx context.Context) {
		if _, err := client.Create(ctx, a, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := client.Delete[*corev1.ConfigMap](ctx, a, "ns", "owned", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	})
	if want := map[string]int{"ns/owner": 2, "node-n": 1, "source": 1}; !maps.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
}

func TestDeclarations(t *testing.T) {
	f := func(context.Context, reconcile.Key) (reconcile.Result, error) { return reconcile.Result{}, nil }
	in := []reconcile.Input{reconcile.Source(nil)}
	for _, cs := range [][]reconcile.Controller{
		{{Inputs: in, Reconcile: f}}, {{Name: "a", Reconcile: f}}, {{Name: "a"}},
		{{Name: "a", Inputs: in, Reconcile: f}, {Name: "a", Inputs: in, Reconcile: f}},
	} {
		if err := reconcile.Run(t.Context(), reconcile.Options{}, cs...); err == nil {
			t.Errorf("%+v is accepted", cs)
		}
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := clienttest.New(nil)
		r := reconcile.NewRecorder(a, "kubelet", "n1", nil)
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "1"}}
		for range 3 {
			r.Eventf(pod, corev1.EventTypeNormal, "Pulled", "Container image %q", "x")
			time.Sleep(time.Second)
		}
		for i := range 15 {
			r.Eventf(pod, corev1.EventTypeWarning, "Failed", "try %d", i)
			time.Sleep(time.Second)
		}
		for range 20 { // 18 so far: the last 13 are spam
			r.Eventf(pod, corev1.EventTypeNormal, "Pulled", "Container image %q", "x")
		}
		r.Eventf(configMap("other"), corev1.EventTypeNormal, "Fine", "another object has a budget of its own")
		synctest.Wait()
		var got []string
		events, err := client.List[*corev1.Event](t.Context(), a, "ns", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s %d %s", e.InvolvedObject.Kind, e.Reason, e.Count, e.Message))
		}
		slices.Sort(got)
		want := []string{`ConfigMap Fine 1 another object has a budget of its own`, `Pod Failed 5 (combined from similar events): try 14`}
		for i := range 10 {
			want = append(want, fmt.Sprintf("Pod Failed 1 try %d", i))
		}
		want = append(want, `Pod Pulled 10 Container image "x"`)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// A burst about many objects is written side by side, and what is said of one object stays in order.
func TestManyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := clienttest.New(nil)
		r := reconcile.NewRecorder(a, "scheduler", "", nil)
		const objects, each = 500, 3
		for i := range objects {
			for n := range each {
				r.Eventf(configMap(fmt.Sprint("object-", i)), corev1.EventTypeNormal, "Said", "thing %d", n)
			}
		}
		synctest.Wait()
		said := map[string][]string{}
		for _, c := range a.Calls(func(c clienttest.Call) bool { return c.Verb == "create" }) {
			e := c.Body.(*corev1.Event)
			said[e.InvolvedObject.Name] = append(said[e.InvolvedObject.Name], e.Message)
		}
		if len(said) != objects {
			t.Errorf("events about %d objects", len(said))
		}
		for name, messages := range said {
			if !slices.Equal(messages, []string{"thing 0", "thing 1", "thing 2"}) {
				t.Fatalf("%s: %q", name, messages)
			}
		}
	})
}

func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := clienttest.New(nil)
		var down atomic.Value // whose calls fail
		var leaders sync.Map
		leading := func(id string) bool { _, ok := leaders.Load(id); return ok }
		ended := make(chan string, 2)
		run := func(ctx context.Context, id string) {
			l := reconcile.Leader{Client: partitioned{a, id, &down}, Namespace: "kube-system", Name: "x", Identity: id}
			err := l.Run(ctx, func(ctx context.Context) error {
				leaders.Store(id, true)
				<-ctx.Done()
				leaders.Delete(id)
				return nil
			})
			ended <- fmt.Sprint(id, " ", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go run(ctx, "a")
		synctest.Wait()
		go run(ctx, "b")
		time.Sleep(time.Minute)
		synctest.Wait()
		if !leading("a") || leading("b") {
			t.Fatal("a does not lead alone")
		}
		down.Store("a")
		if got := <-ended; !strings.HasPrefix(got, "a the lease was lost") {
			t.Errorf("ended: %s", got)
		}
		synctest.Wait()
		if leading("b") {
			t.Error("b leads before a's lease has run out")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if leading("a") || !leading("b") {
			t.Fatal("b does not lead alone")
		}
		cancel()
		if got := <-ended; got != "b <nil>" {
			t.Errorf("ended: %s", got)
		}
	})
}

type partitioned struct {
	client.Interface
	id   string
	down *atomic.Value
}

func (p partitioned) Get(ctx context.Context, k *api.Kind, ns, name string, o metav1.GetOptions) (api.Object, error) {
	if p.down.Load() == p.id {
		return nil, errors.New("connection refused")
	}
	return p.Interface.Get(ctx, k, ns, name, o)
}
