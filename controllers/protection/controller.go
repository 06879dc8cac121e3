// Package protection keeps claims that pods use, volumes that claims use, and the attribute classes of both from being
// deleted under them.
//
// Invariant: the finalizer of a claim is removed only when no pod that has a node and has not finished names it, that
// of a volume only when it is not bound, and that of a class only when no claim and no volume has or wants it. Only
// controllers/ may import protection.
package protection

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	claimFinalizer  = "kubernetes.io/pvc-protection"
	volumeFinalizer = "kubernetes.io/pv-protection"
	classFinalizer  = "kubernetes.io/vac-protection"
)

// ByClaim is the name of the index of pods by "namespace/claim".
const ByClaim = "claim"

// PodsByClaim is the cache of pods with that index.
func PodsByClaim(cs *client.Caches) *client.Cache[*corev1.Pod] {
	all := client.CacheOf[*corev1.Pod](cs)
	all.AddIndex(ByClaim, func(p *corev1.Pod) (out []string) {
		for _, name := range ClaimsOf(p) {
			out = append(out, p.Namespace+"/"+name)
		}
		return out
	})
	return all
}

// Claims is the controller for claims.
func Claims(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	claims, all := client.CacheOf[*corev1.PersistentVolumeClaim](cs), PodsByClaim(cs)
	return reconcile.Controller{
		Name: "persistentvolumeclaim-protection-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.PersistentVolumeClaim](cs),
			reconcile.Map(cs, func(old, new *corev1.Pod) (keys []reconcile.Key) {
				if new != nil && !pods.Finished(new) || old == nil {
					return nil
				}
				for _, name := range ClaimsOf(old) {
					keys = append(keys, reconcile.Key{Namespace: old.Namespace, Name: name})
				}
				return keys
			}),
		},
		Writes: []string{"persistentvolumeclaims"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			c, ok := claims.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			users := all.By(ByClaim, key.Namespace+"/"+key.Name)
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(c, claimFinalizer, slices.ContainsFunc(users, uses))...)
		},
	}
}

// Volumes is the controller for volumes.
func Volumes(d reconcile.Deps) reconcile.Controller {
	volumes := client.CacheOf[*corev1.PersistentVolume](d.Caches)
	return reconcile.Controller{
		Name:   "persistentvolume-protection-controller",
		Inputs: []reconcile.Input{reconcile.Own[*corev1.PersistentVolume](d.Caches)},
		Writes: []string{"persistentvolumes"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			v, ok := volumes.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(v, volumeFinalizer, v.Status.Phase == corev1.VolumeBound)...)
		},
	}
}

func uses(p *corev1.Pod) bool { return p.Spec.NodeName != "" && !pods.Finished(p) }

// ClaimsOf names the claims that a pod uses, those of its ephemeral volumes too.
func ClaimsOf(p *corev1.Pod) (out []string) {
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Name+"-"+v.Name)
		}
	}
	return out
}

// Plan puts the finalizer on an object that lives, and takes it off one that is being deleted and not in use.
func Plan(o api.Object, finalizer string, inUse bool) []plan.Action {
	has := slices.Contains(o.GetFinalizers(), finalizer)
	next := func(finalizers []string) []plan.Action {
		c := o.DeepCopyObject().(api.Object)
		c.(metav1.Object).SetFinalizers(finalizers)
		return []plan.Action{plan.Update{Obj: c}}
	}
	switch {
	case o.GetDeletionTimestamp() == nil && !has:
		return next(append(slices.Clone(o.GetFinalizers()), finalizer))
	case o.GetDeletionTimestamp() != nil && has && !inUse:
		return next(slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == finalizer }))
	}
	return nil
}
