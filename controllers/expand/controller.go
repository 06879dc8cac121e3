// Package expand says of claims that ask for more than their volume has that an external controller must expand them:
// every volume plug-in that can be expanded is outside of the cluster's own components now.
//
// Invariant: it changes nothing but the annotation that names the resizer of a volume whose in-tree plug-in a CSI
// driver has taken over; the driver's resizer does the work. Only controllers/ may import expand.
package expand

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// resizerAnnotation names the CSI driver that is to expand the volume.
const resizerAnnotation = "volume.kubernetes.io/storage-resizer"

// New is the volume expansion controller.
func New(d reconcile.Deps) reconcile.Controller {
	claims, volumes := client.CacheOf[*corev1.PersistentVolumeClaim](d.Caches), client.CacheOf[*corev1.PersistentVolume](d.Caches)
	return reconcile.Controller{
		Name: "persistentvolume-expander-controller",
		Inputs: []reconcile.Input{reconcile.Map(d.Caches, func(old, new *corev1.PersistentVolumeClaim) []reconcile.Key {
			if new == nil || old != nil && !request(new).grown(request(old)) {
				return nil
			}
			return []reconcile.Key{plan.KeyOf(new)}
		})},
		Writes: []string{"persistentvolumeclaims/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			c, ok := claims.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			v, _ := volumes.Get("", c.Spec.VolumeName)
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(c, v)...)
		},
	}
}
