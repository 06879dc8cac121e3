// Package serviceaccount keeps a ServiceAccount "default" in every namespace.
//
// Invariant: it creates that one name and never changes or deletes an account. Only controllers/ may import
// serviceaccount.
package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

const name = "default"

// New is the service account controller. Its keys are namespaces.
func New(d reconcile.Deps) reconcile.Controller {
	namespaces, accounts := client.CacheOf[*corev1.Namespace](d.Caches), client.CacheOf[*corev1.ServiceAccount](d.Caches)
	return reconcile.Controller{
		Name: "serviceaccount-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.Namespace](d.Caches),
			reconcile.Map(d.Caches, func(old, new *corev1.ServiceAccount) []reconcile.Key {
				if new == nil && old.Name == name {
					return []reconcile.Key{{Name: old.Namespace}}
				}
				return nil
			}),
		},
		Writes: []string{"serviceaccounts"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			ns, ok := namespaces.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			_, exists := accounts.Get(key.Name, name)
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(ns, exists)...)
		},
	}
}

// Plan creates the account in a namespace that lives and lacks it.
func Plan(ns *corev1.Namespace, exists bool) []plan.Action {
	if exists || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return nil
	}
	return []plan.Action{plan.Create{IfMissing: true, Obj: &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}}}}
}
