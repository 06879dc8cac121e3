// Package ephemeral makes the claims of pods' generic ephemeral volumes.
//
// Invariant: a claim is owned by the pod that it was made for, and a claim of the same name that the pod does not own
// is never used. Only controllers/ may import ephemeral.
package ephemeral

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the ephemeral volume controller. Its keys are pods.
func New(d reconcile.Deps) reconcile.Controller {
	pods, claims := client.CacheOf[*corev1.Pod](d.Caches), client.CacheOf[*corev1.PersistentVolumeClaim](d.Caches)
	return reconcile.Controller{
		Name: "ephemeral-volume-controller",
		Inputs: []reconcile.Input{
			reconcile.Map(d.Caches, func(old, new *corev1.Pod) []reconcile.Key {
				if old != nil || new == nil || len(volumesOf(new)) == 0 {
					return nil
				}
				return []reconcile.Key{plan.KeyOf(new)}
			}),
			reconcile.Map(d.Caches, func(old, new *corev1.PersistentVolumeClaim) []reconcile.Key {
				if new != nil {
					return nil
				}
				if ref := metav1.GetControllerOfNoCopy(old); ref != nil && ref.Kind == "Pod" {
					return []reconcile.Key{{Namespace: old.Namespace, Name: ref.Name}}
				}
				return nil
			}),
		},
		Writes: []string{"persistentvolumeclaims"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			p, ok := pods.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(p, func(name string) (*corev1.PersistentVolumeClaim, bool) { return claims.Get(p.Namespace, name) })...)
		},
	}
}

func volumesOf(p *corev1.Pod) (out []*corev1.Volume) {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Ephemeral != nil {
			out = append(out, &p.Spec.Volumes[i])
		}
	}
	return out
}

// Plan creates the claims that the pod lacks.
func Plan(p *corev1.Pod, claim func(name string) (*corev1.PersistentVolumeClaim, bool)) (actions []plan.Action) {
	if p.DeletionTimestamp != nil {
		return nil
	}
	for _, v := range volumesOf(p) {
		name := p.Name + "-" + v.Name
		if c, ok := claim(name); ok {
			if !metav1.IsControlledBy(c, p) {
				actions = append(actions, plan.Warning(p, "ClaimConflict", "PVC %q was not created for pod %q (pod is not owner)", c.Namespace+"/"+c.Name, p.Namespace+"/"+p.Name))
			}
			continue
		}
		t := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
		actions = append(actions, plan.Create{IfMissing: true, Obj: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name, Labels: t.Labels, Annotations: t.Annotations,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod"))}},
			Spec: t.Spec}})
	}
	return actions
}
