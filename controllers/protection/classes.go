package protection

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

const byClass = "attributes-class"

// Classes is the controller for VolumeAttributesClasses.
func Classes(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	classes := client.CacheOf[*storagev1.VolumeAttributesClass](cs)
	claims, volumes := client.CacheOf[*corev1.PersistentVolumeClaim](cs), client.CacheOf[*corev1.PersistentVolume](cs)
	claims.AddIndex(byClass, classesOfClaim)
	volumes.AddIndex(byClass, classesOfVolume)
	return reconcile.Controller{
		Name: "volumeattributesclass-protection-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*storagev1.VolumeAttributesClass](cs),
			reconcile.Map(cs, func(old, new *corev1.PersistentVolumeClaim) []reconcile.Key {
				if old == nil {
					return nil
				}
				return dropped(classesOfClaim(old), new != nil, func() []string { return classesOfClaim(new) })
			}),
			reconcile.Map(cs, func(old, new *corev1.PersistentVolume) []reconcile.Key {
				if old == nil {
					return nil
				}
				return dropped(classesOfVolume(old), new != nil, func() []string { return classesOfVolume(new) })
			}),
		},
		Writes: []string{"storage.k8s.io/volumeattributesclasses"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			c, ok := classes.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			inUse := len(claims.By(byClass, c.Name)) > 0 || len(volumes.By(byClass, c.Name)) > 0
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(c, classFinalizer, inUse)...)
		},
	}
}

// classesOfClaim are the classes that a claim has, wants, or is on the way to.
func classesOfClaim(c *corev1.PersistentVolumeClaim) (out []string) {
	names := []string{ptr.Deref(c.Spec.VolumeAttributesClassName, ""), ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "")}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	seen := map[string]bool{"": true}
	for _, n := range names {
		if !seen[n] {
			seen[n], out = true, append(out, n)
		}
	}
	return out
}

func classesOfVolume(v *corev1.PersistentVolume) []string {
	if n := ptr.Deref(v.Spec.VolumeAttributesClassName, ""); n != "" {
		return []string{n}
	}
	return nil
}

// dropped makes the classes due that an object had and has no longer.
func dropped(had []string, exists bool, has func() []string) (keys []reconcile.Key) {
	if len(had) == 0 {
		return nil
	}
	kept := map[string]bool{}
	if exists {
		for _, n := range has() {
			kept[n] = true
		}
	}
	for _, n := range had {
		if !kept[n] {
			keys = append(keys, reconcile.Key{Name: n})
		}
	}
	return keys
}
