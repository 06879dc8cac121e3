package daemonset

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/revisions"
	"github.com/skiff-sh/skiff/reconcile"
)

// How long a failed pod stays before it is replaced: doubled with each failure on the same node.
const (
	retryFirst = time.Second
	retryMost  = 15 * time.Minute
)

type controller struct {
	reconcile.Deps
	sets      *client.Cache[*appsv1.DaemonSet]
	pods      *client.Cache[*corev1.Pod]
	nodes     *client.Cache[*corev1.Node]
	revisions *client.Cache[*appsv1.ControllerRevision]

	mu      sync.Mutex
	retries map[string]retry // by set UID and node
}

type retry struct {
	wait time.Duration
	last time.Time
}

// New is the DaemonSet controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	c := &controller{Deps: d, sets: client.CacheOf[*appsv1.DaemonSet](cs), pods: plan.Dependents[*corev1.Pod](cs),
		nodes: client.CacheOf[*corev1.Node](cs), revisions: plan.Dependents[*appsv1.ControllerRevision](cs), retries: map[string]retry{}}
	return reconcile.Controller{
		Name: "daemonset-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*appsv1.DaemonSet](cs),
			reconcile.Owned[*corev1.Pod](cs, "DaemonSet"),
			reconcile.Owned[*appsv1.ControllerRevision](cs, "DaemonSet"),
			plan.Orphans[*corev1.Pod](cs, c.sets, selector),
			reconcile.Map(cs, c.nodeChanged),
		},
		Writes:    []string{"pods", "apps/controllerrevisions", "apps/daemonsets/status"},
		Reconcile: c.reconcile,
	}
}

func selector(ds *appsv1.DaemonSet) labels.Selector { return plan.Selector(ds.Spec.Selector) }

// nodeChanged makes the sets due for which the node now fits differently.
func (c *controller) nodeChanged(old, new *corev1.Node) (keys []reconcile.Key) {
	if old != nil && new != nil && maps.Equal(old.Labels, new.Labels) && equality.Semantic.DeepEqual(old.Spec.Taints, new.Spec.Taints) {
		return nil
	}
	for _, ds := range c.sets.List("") {
		fit := fitter(ds)
		judge := func(n *corev1.Node) [2]bool {
			if n == nil {
				return [2]bool{}
			}
			wanted, stay := fit(n)
			return [2]bool{wanted, stay}
		}
		if judge(old) != judge(new) {
			keys = append(keys, plan.KeyOf(ds))
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	ds, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok || ds.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	sel := selector(ds)
	mine, claims := plan.Claim(ds, sel, plan.Candidates(c.pods, ds))
	history, more := plan.Claim(ds, sel, plan.Candidates(c.revisions, ds))
	if err := plan.Apply(ctx, c.Deps, append(claims, more...)...); err != nil {
		return reconcile.Result{}, err
	}
	owner := revisions.Owner{Obj: ds, Kind: kind, Template: &ds.Spec.Template, Collisions: ds.Status.CollisionCount, Limit: ds.Spec.RevisionHistoryLimit}
	current, err := revisions.Ensure(ctx, c.Deps, owner, history, c.revisions, func(n *int32) api.Object {
		next := ds.DeepCopy()
		next.Status.CollisionCount = n
		return next
	})
	if current == nil || err != nil {
		return reconcile.Result{}, err
	}
	now := c.Clock.Now()
	d := Plan(Input{Set: ds, Nodes: c.nodes.List(""), Pods: mine, Hash: revisions.Hash(current), Now: now,
		Retry: func(node string) time.Duration { return c.left(ds, node, now) }})
	for _, node := range d.Failed {
		c.failed(ds, node, now)
	}
	err = plan.Apply(ctx, c.Deps, d.Actions...)
	live := map[string]bool{revisions.Hash(current): true}
	for _, p := range mine {
		live[p.Labels[revisions.HashLabel]] = true
	}
	if err == nil {
		err = plan.Apply(ctx, c.Deps, revisions.Trim(owner, history, live)...)
	}
	if !equality.Semantic.DeepEqual(ds.Status, d.Status) {
		next := ds.DeepCopy()
		next.Status = d.Status
		err = errors.Join(err, plan.Apply(ctx, c.Deps, plan.Status(next)))
	}
	return reconcile.Result{After: d.Again}, err
}

func retryKey(ds *appsv1.DaemonSet, node string) string { return string(ds.UID) + "/" + node }

// left is how long the failed pod on a node must still stay.
func (c *controller) left(ds *appsv1.DaemonSet, node string, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.retries[retryKey(ds, node)]
	if !ok {
		return 0
	}
	return max(r.last.Add(r.wait).Sub(now), 0)
}

func (c *controller) failed(ds *appsv1.DaemonSet, node string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.retries[retryKey(ds, node)]
	if r.wait = min(max(2*r.wait, retryFirst), retryMost); now.Sub(r.last) > 2*retryMost {
		r.wait = retryFirst
	}
	r.last = now
	c.retries[retryKey(ds, node)] = r
	for k, r := range c.retries { // forget what is long past, so that the map stays small
		if now.Sub(r.last) > 2*retryMost {
			delete(c.retries, k)
		}
	}
}
