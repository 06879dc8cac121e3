package statefulset

import (
	"context"
	"errors"

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

type controller struct {
	reconcile.Deps
	sets      *client.Cache[*appsv1.StatefulSet]
	pods      *client.Cache[*corev1.Pod]
	claims    *client.Cache[*corev1.PersistentVolumeClaim]
	revisions *client.Cache[*appsv1.ControllerRevision]
}

// New is the StatefulSet controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	c := &controller{Deps: d, sets: client.CacheOf[*appsv1.StatefulSet](cs), pods: plan.Dependents[*corev1.Pod](cs),
		claims: client.CacheOf[*corev1.PersistentVolumeClaim](cs), revisions: plan.Dependents[*appsv1.ControllerRevision](cs)}
	return reconcile.Controller{
		Name: "statefulset-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*appsv1.StatefulSet](cs),
			reconcile.Owned[*corev1.Pod](cs, "StatefulSet"),
			reconcile.Owned[*appsv1.ControllerRevision](cs, "StatefulSet"),
			plan.Orphans[*corev1.Pod](cs, c.sets, selector),
		},
		Writes:    []string{"pods", "persistentvolumeclaims", "apps/controllerrevisions", "apps/statefulsets/status"},
		Reconcile: c.reconcile,
	}
}

func selector(s *appsv1.StatefulSet) labels.Selector { return plan.Selector(s.Spec.Selector) }

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	set, ok := c.sets.Get(key.Namespace, key.Name)
	if !ok {
		return reconcile.Result{}, nil
	}
	sel := selector(set)
	mine, claims := plan.ClaimIf(set, sel, plan.Candidates(c.pods, set), func(p *corev1.Pod) bool { _, ok := Ordinal(set, p); return ok })
	history, more := plan.Claim(set, sel, plan.Candidates(c.revisions, set))
	if err := plan.Apply(ctx, c.Deps, append(claims, more...)...); err != nil {
		return reconcile.Result{}, err
	}
	if set.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	owner := revisions.Owner{Obj: set, Kind: kind, Template: &set.Spec.Template, Collisions: set.Status.CollisionCount, Limit: set.Spec.RevisionHistoryLimit}
	update, err := revisions.Ensure(ctx, c.Deps, owner, history, c.revisions, func(n *int32) api.Object {
		next := set.DeepCopy()
		next.Status.CollisionCount = n
		return next
	})
	if update == nil || err != nil {
		return reconcile.Result{}, err
	}
	current := update
	for _, r := range history {
		if r.Name == set.Status.CurrentRevision {
			current = r
		}
	}
	d := Plan(Input{Set: set, Pods: mine, Current: current, Update: update, Now: c.Clock.Now(),
		Claim: func(name string) (*corev1.PersistentVolumeClaim, bool) { return c.claims.Get(set.Namespace, name) }})
	err = c.apply(ctx, set, d.Actions)
	if !equality.Semantic.DeepEqual(set.Status, d.Status) {
		next := set.DeepCopy()
		next.Status = d.Status
		err = errors.Join(err, plan.Apply(ctx, c.Deps, plan.Status(next)))
	}
	if err == nil {
		live := map[string]bool{current.Name: true, update.Name: true}
		for _, p := range mine {
			live[revisionOf(p)] = true
		}
		err = plan.Apply(ctx, c.Deps, revisions.Trim(owner, history, live)...)
	}
	return reconcile.Result{After: d.Again}, err
}

// apply carries the actions out one by one, so that each event tells what has happened, and says which create failed.
func (c *controller) apply(ctx context.Context, set *appsv1.StatefulSet, actions []plan.Action) error {
	for _, a := range actions {
		err := plan.Apply(ctx, c.Deps, a)
		if err == nil {
			continue
		}
		if made, ok := a.(plan.Create); ok {
			c.Events.Eventf(set, corev1.EventTypeWarning, "FailedCreate", "create %s %s in StatefulSet %s failed error: %s", nounOf(made), made.Obj.GetName(), set.Name, err)
		}
		return err
	}
	return nil
}

func nounOf(a plan.Create) string {
	if _, ok := a.Obj.(*corev1.Pod); ok {
		return "Pod"
	}
	return "Claim"
}
