package nodelifecycle

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// ByNode is the name of the index of pods by node.
const ByNode = "node"

// PodsByNode is the cache of pods with that index.
func PodsByNode(cs *client.Caches) *client.Cache[*corev1.Pod] {
	c := client.CacheOf[*corev1.Pod](cs)
	c.AddIndex(ByNode, func(p *corev1.Pod) []string {
		if p.Spec.NodeName == "" {
			return nil
		}
		return []string{p.Spec.NodeName}
	})
	return c
}

// heard remembers when each node last said something.
type heard struct {
	mu    sync.Mutex
	times map[string]time.Time
}

func (h *heard) from(node string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.times[node] = at
}

func (h *heard) forget(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.times, node)
}

// last is when the node was last heard; one never heard of is heard of now.
func (h *heard) last(node string, now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.times[node]; ok {
		return t
	}
	h.times[node] = now
	return now
}

// New is the node lifecycle controller.
func New(d reconcile.Deps, cfg Config) reconcile.Controller {
	cs := d.Caches
	cfg = cfg.withDefaults()
	nodes, pods := client.CacheOf[*corev1.Node](cs), PodsByNode(cs)
	h, z := &heard{times: map[string]time.Time{}}, &zones{cfg: cfg, limiters: map[string]*rate.Limiter{}}
	return reconcile.Controller{
		Name: "node-lifecycle-controller",
		Inputs: []reconcile.Input{
			reconcile.Map(cs, func(old, new *corev1.Node) []reconcile.Key { return nodeChanged(h, nodes, d.Clock.Now(), old, new) }),
			reconcile.Map(cs, func(old, new *coordinationv1.Lease) []reconcile.Key { return renewed(h, nodes, d.Clock.Now(), new) }),
		},
		Writes: []string{"nodes", "nodes/status", "pods/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			n, ok := nodes.Get("", key.Name)
			if !ok {
				h.forget(key.Name)
				return reconcile.Result{}, nil
			}
			now := d.Clock.Now()
			in := Input{Node: n, Heard: h.last(n.Name, now), Grace: cfg.Grace, Now: now}
			if condition(n, corev1.NodeReady) == nil {
				in.Grace = cfg.Startup
			}
			if !isReady(n) { // of a node that is well, neither its pods nor its neighbours matter
				zone := zoneOf(n)
				var pace float64
				in.Pods = pods.By(ByNode, n.Name)
				in.AllUnready, pace = z.survey(nodes.List(""), zone)
				in.Turn = func() (bool, time.Duration) { return z.turn(zone, pace, now) }
			}
			actions, again := Plan(in)
			return reconcile.Result{After: again}, plan.Apply(ctx, d, actions...)
		},
	}
}

func isReady(n *corev1.Node) bool {
	c := condition(n, corev1.NodeReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// nodeChanged hears the node's heartbeat. When a node becomes ready or stops being so, all others are due as well:
// whether they are tainted depends on whether anybody is healthy.
func nodeChanged(h *heard, nodes client.Reader[*corev1.Node], now time.Time, old, new *corev1.Node) []reconcile.Key {
	if new == nil {
		return []reconcile.Key{plan.KeyOf(old)}
	}
	var before, after corev1.NodeCondition
	if c := condition(new, corev1.NodeReady); c != nil {
		after = *c
	}
	if old != nil {
		if c := condition(old, corev1.NodeReady); c != nil {
			before = *c
		}
	}
	if old == nil || before.LastHeartbeatTime != after.LastHeartbeatTime {
		h.from(new.Name, now)
	}
	if before.Status == after.Status {
		return []reconcile.Key{plan.KeyOf(new)}
	}
	keys := []reconcile.Key{plan.KeyOf(new)}
	for _, n := range nodes.List("") {
		if n.Name != new.Name && !isReady(n) {
			keys = append(keys, plan.KeyOf(n))
		}
	}
	return keys
}

// renewed hears a lease. Only a node that counts as not ready is due at once: the others are asked when their time
// is up.
func renewed(h *heard, nodes client.Reader[*corev1.Node], now time.Time, lease *coordinationv1.Lease) []reconcile.Key {
	if lease == nil || lease.Namespace != corev1.NamespaceNodeLease {
		return nil
	}
	h.from(lease.Name, now)
	if n, ok := nodes.Get("", lease.Name); !ok || isReady(n) {
		return nil
	}
	return []reconcile.Key{{Name: lease.Name}}
}
