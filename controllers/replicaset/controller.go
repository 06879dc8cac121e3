package replicaset

import (
	"context"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

type controller struct {
	reconcile.Deps
	sets *client.Cache[*appsv1.ReplicaSet]
	pods *client.Cache[*corev1.Pod]
}

// New is the ReplicaSet controller.
func New(d reconcile.Deps) reconcile.Controller {
	c := &controller{Deps: d, sets: plan.Dependents[*appsv1.ReplicaSet](d.Caches), pods: plan.Dependents[*corev1.Pod](d.Caches)}
	return reconcile.Controller{
		Name: "replicaset-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*appsv1.ReplicaSet](d.Caches),
			reconcile.Owned[*corev1.Pod](d.Caches, "ReplicaSet"),
			plan.Orphans[*corev1.Pod](d.Caches, c.sets, selector),
		},
		Writes:    []string{"pods", "apps/replicasets/status"},
		Reconcile: c.reconcile,
	}
}

func selector(rs *appsv1.ReplicaSet) labels.Selector { return plan.Selector(rs.Spec.Selector) }

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	rs, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok {
		return reconcile.Result{}, nil
	}
	set := Set{Owner: rs, Kind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), Replicas: ptr.Deref(rs.Spec.Replicas, 1),
		MinReady: rs.Spec.MinReadySeconds, Selector: selector(rs), Template: &rs.Spec.Template, Status: rs.Status}
	related := func() map[string]int { return c.related(rs) }
	return Reconcile(ctx, c.Deps, set, plan.Candidates(c.pods, rs), related, func(s appsv1.ReplicaSetStatus) plan.Action {
		rs := rs.DeepCopy()
		rs.Status = s
		return plan.Status(rs)
	})
}

// related counts the active pods on each node of all sets that have the same controller (one Deployment).
func (c *controller) related(rs *appsv1.ReplicaSet) map[string]int {
	family := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		family = plan.Controlled(c.sets, &metav1.ObjectMeta{UID: ref.UID})
	}
	count := map[string]int{}
	for _, rs := range family {
		for _, p := range plan.Controlled(c.pods, rs) {
			if pods.Active(p) {
				count[p.Spec.NodeName]++
			}
		}
	}
	return count
}

// Reconcile plans one set, carries the plan out and writes the status that status makes an action of.
func Reconcile(ctx context.Context, deps reconcile.Deps, set Set, candidates []*corev1.Pod, related func() map[string]int,
	status func(appsv1.ReplicaSetStatus) plan.Action) (reconcile.Result, error) {
	d := Plan(set, candidates, related, deps.Clock.Now())
	if err := plan.Apply(ctx, deps, d.Claims...); err != nil {
		return reconcile.Result{}, err
	}
	err := plan.Apply(ctx, deps, d.Manage...)
	if s := d.Status(err); d.Changed(s) {
		err = errors.Join(err, plan.Apply(ctx, deps, status(s)))
	}
	r := reconcile.Result{After: d.Again}
	if len(d.Manage) == 0 {
		r.Rest = rest(len(candidates))
	}
	return r, err
}

// rest is how long a set is let alone that has nothing but its status to see to: it counts all its pods, of which one
// changes at a time. A set of 2,000 is counted 50 times a second at most, one of 20 as often as something happens.
func rest(pods int) time.Duration {
	return min(time.Duration(pods/10)*100*time.Microsecond, 50*time.Millisecond)
}
