package scheduler

import (
	"context"
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// makeRoom tries preemption for a pod that no node takes. It returns the node that is being cleared ("" if none), and
// what the pod's message says about it.
func (s *Scheduler) makeRoom(ctx context.Context, p *core.Pod, d *core.Decision) (node, hint string) {
	pod := p.Object()
	if !s.profiles[pod.Spec.SchedulerName].Preempt || d.Nodes == 0 {
		return "", ""
	}
	s.metrics.preempted.Inc()
	if why := s.cluster.MayNotPreempt(p); why != "" {
		return s.cluster.Nominated(pod.UID), why
	}
	chosen, ok, counts := s.cluster.Preempt(p, d, s.preemption(ctx, pod))
	if !ok {
		s.cluster.Unnominate(pod.UID)
		return "", d.PreemptionMessage(counts)
	}
	s.metrics.victims.Observe(float64(len(chosen.Victims)))
	for _, other := range s.cluster.Nominate(p, chosen.Node) {
		displaced := other.Object()
		s.background(ctx, func(ctx context.Context) {
			s.patchStatus(ctx, displaced, map[string]any{"nominatedNodeName": nil})
		})
	}
	for _, v := range chosen.Victims {
		victim := v.Object()
		if s.cluster.Depart(victim.UID) {
			s.background(ctx, func(ctx context.Context) { s.evict(ctx, victim, pod, chosen.Node) })
		}
	}
	return chosen.Node, ""
}

// evict says in the victim's status why it must go, and deletes it.
func (s *Scheduler) evict(ctx context.Context, victim, pod *corev1.Pod, node string) {
	if victim.DeletionTimestamp == nil {
		s.patchStatus(ctx, victim, map[string]any{"conditions": []map[string]any{{
			"type": corev1.DisruptionTarget, "status": corev1.ConditionTrue, "reason": corev1.PodReasonPreemptionByScheduler,
			"message":            pod.Spec.SchedulerName + ": preempting to accommodate a higher priority pod",
			"observedGeneration": victim.Generation, "lastProbeTime": nil,
			"lastTransitionTime": metav1.NewTime(s.deps.Clock.Now()).Rfc3339Copy()}}})
	}
	err := client.Delete[*corev1.Pod](ctx, s.deps.Client, victim.Namespace, victim.Name, victim.UID)
	if err != nil && !apierrors.IsNotFound(err) {
		if ctx.Err() == nil {
			s.log.Warn("a pod could not be preempted", "pod", victim.Namespace+"/"+victim.Name, "error", err)
		}
		s.post(func() { s.cluster.Stay(victim.UID) }) // so that the next try chooses anew
		return
	}
	s.deps.Events.Eventf(victim, corev1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", pod.UID, node)
}

// nominationKept as a node's name says that the pod keeps the nomination that it has.
const nominationKept = "\x00"

// sayWhyNot says in an event and in the pod's status why it has no node, and which one is being cleared for it.
func (s *Scheduler) sayWhyNot(ctx context.Context, pod *corev1.Pod, nominated, reason, message string) {
	s.deps.Events.Eventf(pod, corev1.EventTypeWarning, "FailedScheduling", "%s", message)
	status := map[string]any{}
	at := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
	if at < 0 || pod.Status.Conditions[at].Status != corev1.ConditionFalse || pod.Status.Conditions[at].Reason != reason || pod.Status.Conditions[at].Message != message {
		condition := map[string]any{"type": corev1.PodScheduled, "status": corev1.ConditionFalse, "reason": reason, "message": message,
			"lastProbeTime": nil, "observedGeneration": pod.Generation}
		if at < 0 || pod.Status.Conditions[at].Status != corev1.ConditionFalse {
			condition["lastTransitionTime"] = metav1.NewTime(s.deps.Clock.Now()).Rfc3339Copy()
		}
		status["conditions"] = []map[string]any{condition}
	}
	if nominated != nominationKept && nominated != pod.Status.NominatedNodeName {
		status["nominatedNodeName"] = nominated
	}
	if len(status) > 0 {
		s.background(ctx, func(ctx context.Context) { s.patchStatus(ctx, pod, status) })
	}
}

// patchStatus writes a part of a pod's status, unless it is another pod by now.
func (s *Scheduler) patchStatus(ctx context.Context, pod *corev1.Pod, status map[string]any) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return
	}
	_, err = client.Patch[*corev1.Pod](ctx, s.deps.Client, pod.Namespace, pod.Name, "status", types.StrategicMergePatchType, patch)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		s.log.Warn("a pod's status could not be written", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
}
