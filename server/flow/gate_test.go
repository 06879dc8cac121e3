package flow

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/types"
	upstream "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

// stored is a store that has objects and never changes.
type stored struct {
	store.Store
	objects []api.Object
	pods    int
}

func (s *stored) Snapshot(prefix string) store.Snapshot { return view{s, prefix} }

type view struct {
	*stored
	prefix string
}

func (v view) Revision() int64                 { return 1 }
func (v view) Get(string) (*store.Entry, bool) { return nil, false }
func (v view) Len(prefix string) int {
	if strings.Contains(prefix, "/pods/") {
		return v.pods
	}
	return 0
}
func (v view) Scan(prefix, from string) iter.Seq[*store.Entry] {
	return func(yield func(*store.Entry) bool) {
		for _, o := range v.objects {
			if k, _ := builtin.Table().Of(o); k.Prefix("") == prefix && !yield(&store.Entry{Object: o}) {
				return
			}
		}
	}
}

func suggested() []api.Object {
	var out []api.Object
	for _, o := range append(upstream.MandatoryPriorityLevelConfigurations, upstream.SuggestedPriorityLevelConfigurations...) {
		o = o.DeepCopy()
		o.UID = types.UID("level-" + o.Name)
		out = append(out, o)
	}
	for _, o := range append(upstream.MandatoryFlowSchemas, upstream.SuggestedFlowSchemas...) {
		o = o.DeepCopy()
		o.UID = types.UID("schema-" + o.Name)
		out = append(out, o)
	}
	return out
}

func newGate(seats int, extra ...api.Object) (*Gate, *stored) {
	s := &stored{objects: append(suggested(), extra...)}
	return New(Config{Seats: seats, Wait: 15 * time.Second, Store: s, Log: slog.New(slog.DiscardHandler)}), s
}

func who(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: append(groups, "system:authenticated")}
}

func ask(u user.Info, verb, path string) Request {
	i := request.Parse(builtin.Table(), map[string]string{"get": "GET", "list": "GET", "create": "POST", "update": "PUT"}[verb], path, func() url.Values { return nil })
	i.User = u
	return Request{Info: i}
}

// TestClassify holds upstream's own objects against requests of a cluster's components.
func TestClassify(t *testing.T) {
	g, _ := newGate(600)
	account := func(ns, name string) user.Info {
		return who("system:serviceaccount:"+ns+":"+name, "system:serviceaccounts", "system:serviceaccounts:"+ns)
	}
	node := who("system:node:a", "system:nodes")
	for _, c := range []struct {
		u          user.Info
		verb, path string
		want       string
	}{
		{who("admin", "system:masters"), "list", "/api/v1/namespaces/a/pods", "exempt"},
		{who("somebody"), "get", "/healthz", "probes"},
		{who("somebody"), "get", "/version", "global-default"},
		{node, "update", "/api/v1/nodes/a/status", "system-node-high"},
		{node, "update", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a", "system-node-high"},
		{node, "get", "/api/v1/namespaces/a/pods/b", "system-nodes"},
		{who("system:kube-controller-manager"), "update", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x", "system-leader-election"},
		{who("system:kube-controller-manager"), "get", "/api/v1/namespaces/a/pods/b", "kube-controller-manager"},
		{who("system:kube-scheduler"), "create", "/api/v1/namespaces/a/pods/b/binding", "kube-scheduler"},
		{account("kube-system", "x"), "get", "/api/v1/namespaces/a/pods/b", "kube-system-service-accounts"},
		{account("kube-system-2", "x"), "get", "/api/v1/namespaces/a/pods/b", "service-accounts"},
		{who("jane"), "create", "/api/v1/namespaces/a/pods", "global-default"},
		{&user.DefaultInfo{Name: "nobody"}, "get", "/api/v1/namespaces/a/pods/b", "catch-all"},
	} {
		if s := g.classify(ask(c.u, c.verb, c.path).Info); s.name != c.want {
			t.Errorf("%s: %s %s is %s, want %s", c.u.GetName(), c.verb, c.path, s.name, c.want)
		}
	}
}

func TestWidth(t *testing.T) {
	g, s := newGate(600)
	s.pods = 730
	for _, c := range []struct {
		path  string
		limit int64
		user  user.Info
		want  int
	}{
		{"/api/v1/pods", 0, who("jane"), 8}, {"/api/v1/pods", 500, who("jane"), 5}, {"/api/v1/namespaces/a/pods/b", 0, who("jane"), 1},
		{"/api/v1/pods", 0, who("admin", "system:masters"), 1}, {"/api/v1/secrets", 0, who("jane"), 1},
	} {
		r := ask(c.user, "list", c.path)
		if r.Limit = c.limit; r.Name == "" {
			r.Verb = "list"
		}
		if got := g.width(r, g.classify(r.Info).level); got != c.want {
			t.Errorf("%s (limit %d) takes %d seats, want %d", c.path, c.limit, got, c.want)
		}
	}
}

// TestFloodLeavesOthers: one user asks without end; another of the same level is served soon, and the control plane's levels
// notice nothing.
func TestFloodLeavesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(60)
		ctx, cancel := context.WithCancel(t.Context())
		var floods sync.WaitGroup
		rejected := 0
		var mu sync.Mutex
		for range 1000 {
			floods.Go(func() {
				for ctx.Err() == nil {
					k, err := g.Enter(ctx, ask(who("flood"), "get", "/api/v1/namespaces/a/pods/b"))
					if err == nil {
						time.Sleep(10 * time.Millisecond)
						k.Done()
						continue
					}
					mu.Lock()
					rejected++
					mu.Unlock()
					time.Sleep(time.Second)
				}
			})
		}
		time.Sleep(time.Second)
		for _, c := range []struct {
			u      user.Info
			within time.Duration
		}{
			{who("system:kube-controller-manager"), 0}, {who("system:node:a", "system:nodes"), 0}, {who("admin", "system:masters"), 0},
			{who("jane"), 100 * time.Millisecond},
		} {
			for range 20 {
				start := time.Now()
				k, err := g.Enter(ctx, ask(c.u, "get", "/api/v1/namespaces/a/pods/b"))
				if err != nil {
					t.Fatalf("%s: %v", c.u.GetName(), err)
				}
				if d := time.Since(start); d > c.within {
					t.Errorf("%s waited %v", c.u.GetName(), d)
				}
				k.Done()
			}
		}
		cancel()
		floods.Wait()
		if rejected == 0 {
			t.Error("nothing of the flood was turned away")
		}
		for _, l := range g.plan.Load().levels {
			if l.inUse != 0 || l.waiting != 0 || l.executing != 0 {
				t.Errorf("%s: %d seats in use, %d waiting at the end", l.name, l.inUse, l.waiting)
			}
		}
	})
}

// TestBorrowing: a level that needs more than its own gets what the others lend, and they get it back.
func TestBorrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(600)
		limit := func(name string) int {
			for _, l := range g.plan.Load().levels {
				if l.name == name {
					return l.limit
				}
			}
			return -1
		}
		share := func() {
			time.Sleep(sharing)
			g.changing.Lock()
			g.share(time.Since(g.start))
			g.changing.Unlock()
		}
		nominal := 49
		var all []Ticket
		var mu sync.Mutex
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				if k, err := g.Enter(ctx, ask(who("jane"), "get", "/api/v1/namespaces/a/pods/b")); err == nil {
					mu.Lock()
					all = append(all, k)
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		share()
		if got := limit("global-default"); got <= nominal {
			t.Errorf("a busy level has %d seats, nominal are %d", got, nominal)
		}
		if got := limit("workload-high"); got < 49 {
			t.Errorf("a level that lends half of 98 has %d left", got)
		}
		cancel()
		wg.Wait()
		for i := range all {
			all[i].Done()
		}
		for range 300 {
			share()
		}
		if got := limit("global-default"); got > 2*nominal {
			t.Errorf("an idle level still has %d seats", got)
		}
	})
}

func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGate(1)
		r := ask(who("jane"), "get", "/api/v1/namespaces/a/pods/b")
		first, err := g.Enter(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := g.Enter(ctx, r); !errors.Is(err, ErrRejected) || time.Since(start) != 5*time.Second {
			t.Errorf("after %v: %v, want a rejection after a quarter of 20 s", time.Since(start), err)
		}
		first.Done()
		next, err := g.Enter(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		next.Done()
		next.Done() // a second time is nothing
	})
}

func TestReloadKeepsRequests(t *testing.T) {
	g, s := newGate(10)
	r := ask(who("jane"), "get", "/api/v1/namespaces/a/pods/b")
	k, err := g.Enter(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	before := g.classify(r.Info).level
	g.load()
	if after := g.classify(r.Info).level; after != before || after.executing != 1 {
		t.Error("a level that is still there lost its requests")
	}
	s.objects = nil // only what is mandatory is left
	g.load()
	if got := g.classify(r.Info).name; got != "catch-all" {
		t.Errorf("without objects a request is %s", got)
	}
	k.Done()
	if before.executing != 0 {
		t.Error("a request of a level that is gone did not end")
	}
}

func TestRepairs(t *testing.T) {
	spec := func(o *flowcontrolv1.PriorityLevelConfiguration) any { return o.Spec }
	show := func(have ...*flowcontrolv1.PriorityLevelConfiguration) string {
		var out []string
		for _, r := range repairs(have, upstream.MandatoryPriorityLevelConfigurations[1:], upstream.SuggestedPriorityLevelConfigurations[:1], spec, copyLevel) {
			what := "update"
			if r.create {
				what = "create"
			} else if r.gone {
				what = "delete"
			}
			out = append(out, fmt.Sprintf("%s %s %s", what, r.obj.GetName(), r.obj.GetAnnotations()[autoUpdate]))
		}
		return strings.Join(out, ", ")
	}
	made := func(name string, generation int64, annotation string, shares int32) *flowcontrolv1.PriorityLevelConfiguration {
		for _, o := range append(upstream.MandatoryPriorityLevelConfigurations, upstream.SuggestedPriorityLevelConfigurations...) {
			if o.Name == name {
				o = o.DeepCopy()
				if annotate(o, annotation); annotation == "" {
					o.Annotations = nil
				}
				o.Generation = generation
				k, _ := builtin.Table().Of(o)
				k.Default(o)
				if shares >= 0 && o.Spec.Limited != nil {
					o.Spec.Limited.NominalConcurrencyShares = &shares
				} else if shares >= 0 {
					o.Spec.Exempt.NominalConcurrencyShares = &shares
				}
				return o
			}
		}
		o := &flowcontrolv1.PriorityLevelConfiguration{}
		o.Name = name
		annotate(o, annotation)
		return o
	}
	exempt := made("exempt", 1, "true", -1)
	for _, c := range []struct {
		name, want string
		have       []*flowcontrolv1.PriorityLevelConfiguration
	}{
		{"nothing there", "create exempt true, create system true", nil},
		{"all well", "", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 1, "true", -1)}},
		{"changed", "update system true", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 7, "true", 1)}},
		{"the operator's", "", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 7, "false", 1)}},
		{"changed by an operator who said nothing", "update system false", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 2, "", 1)}},
		{"as it was made, without a word", "update system true", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 1, "", -1)}},
		{"the exempt level's seats are the operator's", "", []*flowcontrolv1.PriorityLevelConfiguration{made("exempt", 3, "true", 5), made("system", 1, "true", -1)}},
		{"suggested no more", "delete old true", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 1, "true", -1), made("old", 1, "true", -1)}},
		{"somebody's own", "", []*flowcontrolv1.PriorityLevelConfiguration{exempt, made("system", 1, "true", -1), made("own", 1, "", -1)}},
	} {
		if got := show(c.have...); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func BenchmarkEnter(b *testing.B) {
	g, _ := newGate(600)
	for _, c := range []struct {
		name string
		r    Request
	}{
		{"exempt", ask(who("admin", "system:masters"), "get", "/api/v1/namespaces/a/pods/b")},
		{"user", ask(who("jane", "dev", "ops"), "get", "/api/v1/namespaces/a/pods/b")},
		{"account", ask(who("system:serviceaccount:a:x", "system:serviceaccounts", "system:serviceaccounts:a"), "get", "/api/v1/namespaces/a/pods/b")},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k, err := g.Enter(b.Context(), c.r)
				if err != nil {
					b.Fatal(err)
				}
				k.Done()
			}
		})
	}
}
