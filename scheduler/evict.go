package scheduler

import (
	"context"
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
)

// makeRoom tries preemption for a pod that no node takes. It returns the node that is being cleared ("" if none), and
// what the pod's message says about it.
func (s *Scheduler) makeRoom(ctx context.Context, p *podState, d *decision) (node, hint string) {
	if why := s.state.mayNotPreempt(p); why != "" {
		return s.state.nominated[p.pod.UID].node, " preemption: " + why
	}
	chosen, ok := s.state.preempt(p, d, s.budgets())
	if !ok {
		delete(s.state.nominated, p.pod.UID)
		return "", d.noVictims()
	}
	for _, other := range s.state.nominate(p, chosen.node.name) {
		pod := other.pod
		s.background(ctx, func(ctx context.Context) {
			s.patchStatus(ctx, pod, map[string]any{"nominatedNodeName": nil})
		})
	}
	for _, v := range chosen.victims {
		if !s.state.evicting[v.pod.UID] {
			s.state.evicting[v.pod.UID] = true
			victim := v.pod
			s.background(ctx, func(ctx context.Context) { s.evict(ctx, victim, p.pod, chosen.node.name) })
		}
	}
	return chosen.node.name, ""
}

func (s *Scheduler) budgets() []budget {
	var out []budget
	for _, b := range s.pdbs.List("") {
		sel := selectorOf(b.Spec.Selector)
		if sel.Empty() {
			continue
		}
		disrupted := map[string]bool{}
		for name := range b.Status.DisruptedPods {
			disrupted[name] = true
		}
		out = append(out, budget{b.Namespace, sel, int(b.Status.DisruptionsAllowed), disrupted})
	}
	return out
}

// evict says in the victim's status why it must go, and deletes it.
func (s *Scheduler) evict(ctx context.Context, victim, pod *corev1.Pod, node string) {
	if victim.DeletionTimestamp == nil {
		s.patchStatus(ctx, victim, map[string]any{"conditions": []map[string]any{{
			"type": corev1.DisruptionTarget, "status": corev1.ConditionTrue, "reason": corev1.PodReasonPreemptionByScheduler,
			"message":            s.cfg.SchedulerName + ": preempting to accommodate a higher priority pod",
			"observedGeneration": victim.Generation, "lastProbeTime": nil,
			"lastTransitionTime": metav1.NewTime(s.deps.Clock.Now()).Rfc3339Copy()}}})
	}
	err := client.Delete[*corev1.Pod](ctx, s.deps.Client, victim.Namespace, victim.Name, victim.UID)
	if err != nil && !apierrors.IsNotFound(err) {
		if ctx.Err() == nil {
			s.log.Warn("a pod could not be preempted", "pod", victim.Namespace+"/"+victim.Name, "error", err)
		}
		s.post(func() { delete(s.state.evicting, victim.UID) }) // so that the next try chooses anew
		return
	}
	s.deps.Events.Eventf(victim, corev1.EventTypeNormal, "Preempted", "Preempted by pod %s on node %s", pod.UID, node)
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
