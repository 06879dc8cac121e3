package volumebinder

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the binder. A key with a namespace is a claim, one without is a volume.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	claims, volumes, classes := client.CacheOf[*corev1.PersistentVolumeClaim](cs), client.CacheOf[*corev1.PersistentVolume](cs), client.CacheOf[*storagev1.StorageClass](cs)
	view := View{Claim: claims.Get, Volumes: func() []*corev1.PersistentVolume { return volumes.List("") },
		Volume: func(name string) (*corev1.PersistentVolume, bool) { return volumes.Get("", name) },
		Class:  func(name string) (*storagev1.StorageClass, bool) { return classes.Get("", name) }}
	pending := func() (keys []reconcile.Key) {
		for _, c := range claims.List("") {
			if c.Spec.VolumeName == "" {
				keys = append(keys, plan.KeyOf(c))
			}
		}
		return keys
	}
	return reconcile.Controller{
		Name: "persistentvolume-binder-controller", Workers: 1, // two claims must not choose the same volume side by side
		Inputs: []reconcile.Input{
			reconcile.Map(cs, func(old, new *corev1.PersistentVolumeClaim) []reconcile.Key {
				c := new
				if c == nil {
					c = old
				}
				keys := []reconcile.Key{plan.KeyOf(c)}
				for _, v := range volumes.List("") {
					if r := v.Spec.ClaimRef; r != nil && r.Namespace == c.Namespace && r.Name == c.Name {
						keys = append(keys, plan.KeyOf(v))
					}
				}
				return keys
			}),
			reconcile.Map(cs, func(old, new *corev1.PersistentVolume) []reconcile.Key {
				v := new
				if v == nil {
					v = old
				}
				keys := []reconcile.Key{plan.KeyOf(v)}
				if r := v.Spec.ClaimRef; r != nil {
					return append(keys, reconcile.Key{Namespace: r.Namespace, Name: r.Name})
				}
				return append(keys, pending()...)
			}),
			reconcile.Map(cs, func(_, _ *storagev1.StorageClass) []reconcile.Key { return pending() }),
		},
		Writes: []string{"persistentvolumes", "persistentvolumes/status", "persistentvolumeclaims", "persistentvolumeclaims/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			if key.Namespace != "" {
				if c, ok := claims.Get(key.Namespace, key.Name); ok {
					return reconcile.Result{}, plan.Apply(ctx, d, PlanClaim(c, view)...)
				}
				return reconcile.Result{}, nil
			}
			v, ok := volumes.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, PlanVolume(v, view, d.Clock.Now())...)
		},
	}
}
