package deployment

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

type controller struct {
	reconcile.Deps
	deployments *client.Cache[*appsv1.Deployment]
	sets        *client.Cache[*appsv1.ReplicaSet]
	pods        *client.Cache[*corev1.Pod]
}

// New is the Deployment controller.
func New(d reconcile.Deps) reconcile.Controller {
	c := &controller{Deps: d, deployments: client.CacheOf[*appsv1.Deployment](d.Caches),
		sets: plan.Dependents[*appsv1.ReplicaSet](d.Caches), pods: plan.Dependents[*corev1.Pod](d.Caches)}
	return reconcile.Controller{
		Name: "deployment-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*appsv1.Deployment](d.Caches),
			reconcile.Owned[*appsv1.ReplicaSet](d.Caches, "Deployment"),
			plan.Orphans[*appsv1.ReplicaSet](d.Caches, c.deployments, selector),
		},
		Writes:    []string{"apps/replicasets", "apps/deployments", "apps/deployments/status"},
		Reconcile: c.reconcile,
	}
}

func selector(d *appsv1.Deployment) labels.Selector { return plan.Selector(d.Spec.Selector) }

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	d, ok := c.deployments.Get(key.Namespace, key.Name)
	if !ok {
		return reconcile.Result{}, nil
	}
	mine, claims := plan.Claim(d, selector(d), plan.Candidates(c.sets, d))
	if err := plan.Apply(ctx, c.Deps, claims...); err != nil {
		return reconcile.Result{}, err
	}
	in := Input{Deployment: d, Sets: mine, Now: c.Clock.Now(),
		Named: func(name string) (*appsv1.ReplicaSet, bool) { return c.sets.Get(key.Namespace, name) },
		Pods:  func(rs *appsv1.ReplicaSet) []*corev1.Pod { return plan.Controlled(c.pods, rs) }}
	actions, again := Plan(in)
	for _, a := range actions {
		err := plan.Apply(ctx, c.Deps, a)
		if err == nil {
			continue
		}
		if create, ok := a.(plan.Create); ok && !apierrors.IsConflict(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			err = errors.Join(err, plan.Apply(ctx, c.Deps, CreateFailed(in, create.Obj.GetName(), err)...))
		}
		return reconcile.Result{}, err
	}
	return reconcile.Result{After: again}, nil
}
