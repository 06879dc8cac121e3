package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// Reasons of the Progressing condition that the planner asks about again.
const (
	reasonPaused   = "DeploymentPaused"
	reasonResumed  = "DeploymentResumed"
	reasonComplete = "NewReplicaSetAvailable"
	reasonTimedOut = "ProgressDeadlineExceeded"
)

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// setCondition replaces a condition unless status and reason stay; the transition time changes with the status alone.
func (r *rollout) setCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, format string, args ...any) {
	r.putCondition(t, status, reason, false, fmt.Sprintf(format, args...))
}

func (r *rollout) putCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason string, touch bool, message string) {
	c := appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message,
		LastUpdateTime: metav1.NewTime(r.Now), LastTransitionTime: metav1.NewTime(r.Now)}
	if old := condition(&r.d.Status, t); old != nil {
		if old.Status == status && old.Reason == reason && !touch {
			return
		}
		if old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		r.dropCondition(t)
	}
	r.d.Status.Conditions = append(r.d.Status.Conditions, c)
}

func (r *rollout) dropCondition(t appsv1.DeploymentConditionType) {
	r.d.Status.Conditions = slices.DeleteFunc(r.d.Status.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

// hasDeadline reports whether progress is watched at all; the greatest number stands for "never".
func (r *rollout) hasDeadline() bool {
	return r.d.Spec.ProgressDeadlineSeconds != nil && *r.d.Spec.ProgressDeadlineSeconds != 1<<31-1
}

// pauseChanged tells a pause or its end in the Progressing condition, so that the time spent paused does not count
// towards the deadline.
func (r *rollout) pauseChanged() bool {
	if !r.hasDeadline() {
		return false
	}
	c := condition(&r.d.Status, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonTimedOut {
		return false
	}
	paused := c != nil && c.Reason == reasonPaused
	switch {
	case r.d.Spec.Paused && !paused:
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonPaused, "Deployment is paused")
	case !r.d.Spec.Paused && paused:
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, reasonResumed, "Deployment is resumed")
	default:
		return false
	}
	return true
}

// complete reports whether all wanted replicas are updated and available and no old ones remain.
func (r *rollout) complete(s appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas == r.replicas && s.Replicas == r.replicas && s.AvailableReplicas == r.replicas &&
		s.ObservedGeneration >= r.d.Generation
}

// status computes the status from the sets and writes it if it changed.
func (r *rollout) status() {
	s, old := &r.d.Status, r.Deployment.Status
	all := r.all()
	s.ObservedGeneration = r.d.Generation
	s.Replicas, s.ReadyReplicas, s.UpdatedReplicas = 0, 0, 0
	terminating := ptr.To[int32](0)
	for _, rs := range all {
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		if rs.Status.TerminatingReplicas == nil {
			terminating = nil
		} else if terminating != nil {
			*terminating += *rs.Status.TerminatingReplicas
		}
	}
	s.TerminatingReplicas = terminating
	s.AvailableReplicas = available(all)
	s.UnavailableReplicas = max(total(all)-s.AvailableReplicas, 0)
	if r.new != nil {
		s.UpdatedReplicas = r.new.Status.Replicas
	}
	if s.AvailableReplicas >= r.replicas-r.missing {
		r.setCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		r.setCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
	if !r.d.Spec.Paused && r.d.DeletionTimestamp == nil {
		r.progress(old)
		r.replicaFailure()
	}
	r.writeStatus()
}

// progress tells whether the rollout is done, moves, or has stood still for too long.
func (r *rollout) progress(old appsv1.DeploymentStatus) {
	s := r.d.Status
	if !r.hasDeadline() {
		r.dropCondition(appsv1.DeploymentProgressing)
		return
	}
	now := condition(&s, appsv1.DeploymentProgressing)
	if s.Replicas == s.UpdatedReplicas && now != nil && now.Reason == reasonComplete {
		return
	}
	what := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.new != nil {
		what = fmt.Sprintf("ReplicaSet %q", r.new.Name)
	}
	switch {
	case r.complete(s):
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonComplete, "%s has successfully progressed.", what)
	case s.UpdatedReplicas > old.UpdatedReplicas || s.ReadyReplicas > old.ReadyReplicas || s.AvailableReplicas > old.AvailableReplicas ||
		s.Replicas-s.UpdatedReplicas < old.Replicas-old.UpdatedReplicas:
		r.putCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", true, what+" is progressing.")
	case r.timedOut(now):
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, reasonTimedOut, "%s has timed out progressing.", what)
	}
}

func (r *rollout) timedOut(c *appsv1.DeploymentCondition) bool {
	if c == nil || c.Reason == reasonComplete {
		return false
	}
	return c.Reason == reasonTimedOut || c.LastUpdateTime.Add(r.deadline()).Before(r.Now)
}

func (r *rollout) deadline() time.Duration {
	return time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
}

// stuckAfter is how long until the deadline would be missed if nothing happens; 0 where none runs.
func (r *rollout) stuckAfter() time.Duration {
	c := condition(&r.d.Status, appsv1.DeploymentProgressing)
	if !r.hasDeadline() || r.d.Spec.Paused || c == nil || c.Reason == reasonTimedOut || c.Reason == reasonComplete {
		return 0
	}
	return max(c.LastUpdateTime.Add(r.deadline()).Sub(r.Now), 0) + time.Second
}

// replicaFailure passes on what a set says about failing creates and deletes, the new set's word first.
func (r *rollout) replicaFailure() {
	all := r.all()
	slices.Reverse(all)
	for _, rs := range all {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				r.setCondition(appsv1.DeploymentReplicaFailure, c.Status, c.Reason, "%s", c.Message)
				return
			}
		}
	}
	r.dropCondition(appsv1.DeploymentReplicaFailure)
}

func (r *rollout) writeStatus() {
	if !equality.Semantic.DeepEqual(r.Deployment.Status, r.d.Status) {
		r.actions = append(r.actions, plan.Status(r.d))
	}
}

// CreateFailed is the plan after the new set could not be created.
func CreateFailed(in Input, name string, err error) []plan.Action {
	r := newRollout(in)
	message := fmt.Sprintf("Failed to create new replica set %q: %v", name, err)
	actions := []plan.Action{plan.Warning(in.Deployment, "ReplicaSetCreateError", "%s", message)}
	if r.hasDeadline() {
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", "%s", message)
		r.writeStatus()
	}
	return append(actions, r.actions...)
}
