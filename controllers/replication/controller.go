// Package replication keeps the number of pods that a ReplicationController asks for, with the ReplicaSet's planner.
//
// Invariant: as package replicaset. Only controllers/ may import replication.
package replication

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/replicaset"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the ReplicationController controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	sets, pods := client.CacheOf[*corev1.ReplicationController](cs), plan.Dependents[*corev1.Pod](cs)
	return reconcile.Controller{
		Name: "replicationcontroller-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.ReplicationController](cs),
			reconcile.Owned[*corev1.Pod](cs, "ReplicationController"),
			plan.Orphans[*corev1.Pod](cs, sets, selector),
		},
		Writes: []string{"pods", "replicationcontrollers/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			rc, ok := sets.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			template := rc.Spec.Template
			if template == nil {
				template = &corev1.PodTemplateSpec{}
			}
			set := replicaset.Set{Owner: rc, Kind: corev1.SchemeGroupVersion.WithKind("ReplicationController"),
				Replicas: ptr.Deref(rc.Spec.Replicas, 1), MinReady: rc.Spec.MinReadySeconds, Selector: selector(rc),
				Template: template, Status: fromStatus(rc.Status)}
			none := func() map[string]int { return nil }
			return replicaset.Reconcile(ctx, d, set, plan.Candidates(pods, rc), none, func(s appsv1.ReplicaSetStatus) plan.Action {
				rc := rc.DeepCopy()
				rc.Status = toStatus(s)
				return plan.Status(rc)
			})
		},
	}
}

func selector(rc *corev1.ReplicationController) labels.Selector {
	if len(rc.Spec.Selector) == 0 {
		return labels.Nothing()
	}
	return labels.SelectorFromSet(rc.Spec.Selector)
}

// The ReplicationController has no count of terminating pods: a constant zero keeps its status from changing.
func fromStatus(s corev1.ReplicationControllerStatus) appsv1.ReplicaSetStatus {
	out := appsv1.ReplicaSetStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration, TerminatingReplicas: ptr.To[int32](0)}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return out
}

func toStatus(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{Type: corev1.ReplicationControllerConditionType(c.Type),
			Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return out
}
