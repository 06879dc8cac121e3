package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// This file writes what a decision means for resource claims.

// bindDevices writes a claim's allocation and enters the pod in it, and waits until its devices are ready.
func (s *Scheduler) bindDevices(ctx context.Context, one *placement, d core.Devices) error {
	claim := d.Claim
	if d.Uses != nil {
		var err error
		if claim, err = s.makeStandIn(ctx, one, d); err != nil {
			return err
		}
	}
	for try := 0; ; try++ {
		written, err := s.reserve(ctx, one.pod, claim, d.Allocation)
		if err == nil {
			claim = written
			break
		}
		if !apierrors.IsConflict(err) || try == 4 {
			return fmt.Errorf("add allocation and reservation to claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		if claim, err = client.Get[*resourcev1.ResourceClaim](ctx, s.deps.Client, claim.Namespace, claim.Name); err != nil {
			return err
		}
		if d.Allocation != nil && claim.Status.Allocation != nil {
			return fmt.Errorf("claim %s/%s got allocated elsewhere in the meantime", claim.Namespace, claim.Name)
		}
	}
	if d.Uses != nil {
		if err := s.tellStandIn(ctx, one.pod, claim.Name, d.Uses); err != nil {
			return err
		}
	}
	if ready, err := core.DevicesReady(claim); ready || err != nil {
		return err
	}
	s.deps.Events.Eventf(one.pod, corev1.EventTypeNormal, "BindingConditionsPending", "waiting for binding conditions for device on node %s", one.decision.Node)
	wait, cancel := context.WithTimeout(ctx, one.profile.DeviceTimeout)
	defer cancel()
	err := await(wait, s, claim.Namespace, claim.Name, core.DevicesReady)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// Others may be ready sooner, perhaps on another node.
	if now, getErr := client.Get[*resourcev1.ResourceClaim](ctx, s.deps.Client, claim.Namespace, claim.Name); getErr == nil && core.UsedByNoneBut(now, one.pod.UID) {
		s.giveBack(ctx, now)
	}
	return fmt.Errorf("device binding of claim %s/%s: %w", claim.Namespace, claim.Name, err)
}

func (s *Scheduler) reserve(ctx context.Context, p *corev1.Pod, claim *resourcev1.ResourceClaim, allocation *resourcev1.AllocationResult) (*resourcev1.ResourceClaim, error) {
	if claim.DeletionTimestamp != nil {
		return nil, fmt.Errorf("claim %s/%s got deleted in the meantime", claim.Namespace, claim.Name)
	}
	claim = claim.DeepCopy()
	var err error
	if allocation != nil && !slices.Contains(claim.Finalizers, resourcev1.Finalizer) {
		claim.Finalizers = append(claim.Finalizers, resourcev1.Finalizer)
		if claim, err = client.Update(ctx, s.deps.Client, claim); err != nil {
			return nil, err
		}
		claim = claim.DeepCopy()
	}
	if slices.ContainsFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID }) {
		return claim, nil
	}
	if allocation != nil {
		claim.Status.Allocation = allocation.DeepCopy()
		now := metav1.NewTime(s.deps.Clock.Now().Truncate(time.Second))
		claim.Status.Allocation.AllocationTimestamp = &now
	}
	claim.Status.ReservedFor = append(claim.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	return client.UpdateStatus(ctx, s.deps.Client, claim)
}

// freeDevices gives back the devices of a claim that nobody else uses, when they are what keeps a pod from all nodes.
func (s *Scheduler) freeDevices(ctx context.Context, p *core.Pod, d *core.Decision) {
	if leftover := s.cluster.Leftover(p); leftover != nil {
		s.background(ctx, func(ctx context.Context) { s.unmakeStandIn(ctx, leftover) })
		return
	}
	if len(p.Object().Spec.ResourceClaims) == 0 || !d.RefusedBy()[core.DynamicResources] {
		return
	}
	free := s.cluster.Freeable(p)
	if len(free) == 0 {
		return
	}
	s.background(ctx, func(ctx context.Context) { s.giveBack(ctx, free[0]) })
}

// giveBack takes a claim's devices away from it.
func (s *Scheduler) giveBack(ctx context.Context, claim *resourcev1.ResourceClaim) {
	claim = claim.DeepCopy()
	claim.Status.ReservedFor, claim.Status.Allocation, claim.Status.Devices = nil, nil, nil
	if _, err := client.UpdateStatus(ctx, s.deps.Client, claim); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("a claim's devices could not be given back", "claim", claim.Namespace+"/"+claim.Name, "error", err)
	}
}

// makeStandIn creates the claim that stands in for a pod's extended resources.
func (s *Scheduler) makeStandIn(ctx context.Context, one *placement, d core.Devices) (*resourcev1.ResourceClaim, error) {
	claim := d.Claim.DeepCopy()
	claim.Name, claim.UID = "", ""
	made, err := client.Create(ctx, s.deps.Client, claim)
	if err != nil {
		s.metrics.standIns.WithLabelValues("failure").Inc()
		return nil, fmt.Errorf("create claim for extended resources %s/%s: %w", one.pod.Namespace, d.Claim.Name, err)
	}
	s.metrics.standIns.WithLabelValues("success").Inc()
	one.standIn = made
	return made, nil
}

// tellStandIn says in the pod's status which of the claim's requests each container uses, for the node agent.
func (s *Scheduler) tellStandIn(ctx context.Context, p *corev1.Pod, claim string, uses []corev1.ContainerExtendedResourceRequest) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{
		"extendedResourceClaimStatus": corev1.PodExtendedResourceClaimStatus{RequestMappings: uses, ResourceClaimName: claim}}})
	if err != nil {
		return err
	}
	if _, err := client.Patch[*corev1.Pod](ctx, s.deps.Client, p.Namespace, p.Name, "status", types.StrategicMergePatchType, patch); err != nil {
		return fmt.Errorf("update pod %s/%s ExtendedResourceClaimStatus: %w", p.Namespace, p.Name, err)
	}
	return nil
}

// unmakeStandIn deletes a stand-in of a pod that was not bound.
func (s *Scheduler) unmakeStandIn(ctx context.Context, claim *resourcev1.ResourceClaim) {
	err := s.withoutFinalizer(ctx, claim)
	if err == nil {
		err = client.Delete[*resourcev1.ResourceClaim](ctx, s.deps.Client, claim.Namespace, claim.Name, claim.UID)
	}
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("a claim for extended resources could not be deleted", "claim", claim.Namespace+"/"+claim.Name, "error", err)
	}
}

func (s *Scheduler) withoutFinalizer(ctx context.Context, claim *resourcev1.ResourceClaim) error {
	for try := 0; ; try++ {
		now, err := client.Get[*resourcev1.ResourceClaim](ctx, s.deps.Client, claim.Namespace, claim.Name)
		if err != nil || now.UID != claim.UID || !slices.Contains(now.Finalizers, resourcev1.Finalizer) {
			return err
		}
		now = now.DeepCopy()
		now.Finalizers = slices.DeleteFunc(now.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if _, err = client.Update(ctx, s.deps.Client, now); !apierrors.IsConflict(err) || try == 4 {
			return err
		}
	}
}
