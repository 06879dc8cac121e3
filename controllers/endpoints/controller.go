package endpoints

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/endpointslice"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the Endpoints controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	services, all, existing := client.CacheOf[*corev1.Service](cs), client.CacheOf[*corev1.Pod](cs), client.CacheOf[*corev1.Endpoints](cs)
	return reconcile.Controller{
		Name: "endpoints-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.Service](cs),
			pods.Services(cs, services),
			reconcile.Map(cs, func(old, new *corev1.Endpoints) []reconcile.Key {
				if new != nil {
					return nil
				}
				return []reconcile.Key{plan.KeyOf(old)}
			}),
		},
		Writes: []string{"endpoints"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			have, exists := existing.Get(key.Namespace, key.Name)
			svc, ok := services.Get(key.Namespace, key.Name)
			switch {
			case ok && svc.Spec.Selector != nil:
				return reconcile.Result{}, plan.Apply(ctx, d, Plan(svc, endpointslice.Selected(all, svc), have)...)
			case !ok && exists:
				return reconcile.Result{}, plan.Apply(ctx, d, plan.Delete{Obj: have})
			}
			return reconcile.Result{}, nil
		},
	}
}
