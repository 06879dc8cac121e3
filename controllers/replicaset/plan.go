// Package replicaset keeps the number of pods that a ReplicaSet asks for. The planner serves the ReplicationController
// as well, which says the same in older words.
//
// Invariant: a pod is created or deleted only where the observed active pods differ in number from the wanted, and
// a pod that another controller owns is never touched. Only controllers/ may import replicaset.
package replicaset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// burst bounds how many pods of one set are created or deleted in one go.
const burst = 500

// Set is what the planner needs to know of a ReplicaSet or a ReplicationController.
type Set struct {
	Owner    api.Object
	Kind     schema.GroupVersionKind
	Replicas int32
	MinReady int32 // seconds
	Selector labels.Selector
	Template *corev1.PodTemplateSpec
	Status   appsv1.ReplicaSetStatus
}

// Decision is what to do for one set.
type Decision struct {
	Claims []plan.Action // adoptions and releases
	Manage []plan.Action // creates and deletes
	Again  time.Duration // when a ready pod becomes available; 0: no need

	set  Set
	mine []*corev1.Pod
	now  time.Time
}

// Plan compares a set with the pods that it controls or could adopt. Related gives the number of pods of the same
// family on each node, for the choice of what to delete; it is called only for that.
func Plan(set Set, candidates []*corev1.Pod, related func() map[string]int, now time.Time) Decision {
	d := Decision{set: set, now: now}
	relevant := slices.DeleteFunc(slices.Clone(candidates), pods.Finished)
	d.mine, d.Claims = plan.Claim(set.Owner, set.Selector, relevant)
	for _, p := range d.mine {
		if ok, wait := pods.Available(p, set.MinReady, now); !ok && wait > 0 && (d.Again == 0 || wait < d.Again) {
			d.Again = wait
		}
	}
	if set.Owner.GetDeletionTimestamp() != nil {
		return d
	}
	active := slices.DeleteFunc(slices.Clone(d.mine), func(p *corev1.Pod) bool { return !pods.Active(p) })
	switch missing := int(set.Replicas) - len(active); {
	case missing > 0:
		for range min(missing, burst) {
			p := pods.FromTemplate(set.Template, set.Owner, set.Kind)
			d.Manage = append(d.Manage, plan.Create{Obj: p, Report: set.Owner, Noun: "pod"})
		}
	case missing < 0:
		pods.SortForDeletion(active, related(), now)
		for _, p := range active[:min(-missing, burst)] {
			d.Manage = append(d.Manage, plan.Delete{Obj: p, Report: set.Owner, Noun: "pod"})
		}
	}
	return d
}

// Status is the set's status after the decision was carried out, or failed with err.
func (d *Decision) Status(err error) appsv1.ReplicaSetStatus {
	s := *d.set.Status.DeepCopy()
	s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas = 0, 0, 0, 0
	var terminating int32
	template := labels.SelectorFromSet(d.set.Template.Labels)
	for _, p := range d.mine {
		if p.DeletionTimestamp != nil {
			terminating++
			continue
		}
		s.Replicas++
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if pods.Ready(p) {
			s.ReadyReplicas++
			if ok, _ := pods.Available(p, d.set.MinReady, d.now); ok {
				s.AvailableReplicas++
			}
		}
	}
	s.TerminatingReplicas = &terminating
	s.ObservedGeneration = d.set.Owner.GetGeneration()
	s.Conditions = d.failure(s.Conditions, err)
	return s
}

// failure keeps the ReplicaFailure condition true to the last attempt.
func (d *Decision) failure(conditions []appsv1.ReplicaSetCondition, err error) []appsv1.ReplicaSetCondition {
	at := slices.IndexFunc(conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case err == nil && at >= 0:
		return slices.Delete(conditions, at, at+1)
	case err == nil || at >= 0:
		return conditions
	}
	reason := "FailedDelete"
	if len(d.Manage) > 0 {
		if _, ok := d.Manage[0].(plan.Create); ok {
			reason = "FailedCreate"
		}
	}
	return append(conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(d.now), Reason: reason, Message: err.Error()})
}

// Changed reports whether a status differs from the one that the set has.
func (d *Decision) Changed(s appsv1.ReplicaSetStatus) bool {
	return !equality.Semantic.DeepEqual(d.set.Status, s)
}
