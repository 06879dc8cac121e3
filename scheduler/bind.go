package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelpers "k8s.io/component-helpers/storage/volume"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/scheduler/core"
)

func sameLabels(a, b *corev1.Pod) bool { return maps.Equal(a.Labels, b.Labels) }

func (s *Scheduler) bindAll(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-s.binder:
			if len(one.decision.Volumes())+len(one.decision.Devices()) > 0 {
				s.group.Go(func() { s.place(ctx, one) }) // this may wait for others for minutes
				continue
			}
			s.place(ctx, one)
		}
	}
}

// place does what a decision says.
func (s *Scheduler) place(ctx context.Context, one *placement) {
	p, node := one.pod, one.decision.Node
	if err := s.bind(ctx, one); err != nil {
		s.undo(ctx, one, err)
		return
	}
	now := s.deps.Clock.Now()
	s.metrics.tried(one.profile.SchedulerName, "scheduled", now.Sub(one.began))
	s.metrics.podTries.Observe(float64(one.tries))
	s.metrics.sli.WithLabelValues(strconv.Itoa(min(one.tries, 16))).Observe(now.Sub(one.since).Seconds())
	s.deps.Events.Eventf(p, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", p.Namespace, p.Name, node)
}

func (s *Scheduler) bind(ctx context.Context, one *placement) error {
	p, node := one.pod, one.decision.Node
	volumes, devices := one.decision.Volumes(), one.decision.Devices()
	if len(volumes)+len(devices) > 0 && p.Status.NominatedNodeName != node {
		s.patchStatus(ctx, p, map[string]any{"nominatedNodeName": node}) // so that others see where it is going meanwhile
	}
	if err := s.bindVolumes(ctx, one, volumes); err != nil {
		return fmt.Errorf("binding volumes: %w", err)
	}
	for _, d := range devices {
		if err := s.bindDevices(ctx, one, d); err != nil {
			return err
		}
	}
	if e := s.binderFor(p); e != nil {
		return e.bind(ctx, p.Namespace, p.Name, p.UID, node)
	}
	_, err := s.deps.Client.Action(ctx, client.KindOf[*corev1.Pod](), p.Namespace, p.Name, "binding", &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node}})
	return err
}

// undo takes back what was assumed about a pod whose binding failed, and lets it be tried again.
func (s *Scheduler) undo(ctx context.Context, one *placement, err error) {
	s.post(func() {
		uid := one.pod.UID
		s.cluster.Release(&one.decision)
		if s.assumed[uid] != one {
			return // the cache has seen it bound or gone
		}
		delete(s.assumed, uid)
		s.cluster.Delete(one.pod)
		s.hint(one.pod, nil)
		if apierrors.IsNotFound(err) || errors.Is(err, context.Canceled) {
			return
		}
		s.metrics.tried(one.profile.SchedulerName, "error", s.deps.Clock.Since(one.began))
		now, ok := s.pods.Get(one.pod.Namespace, one.pod.Name)
		if !ok || now.UID != uid || now.Spec.NodeName != "" || now.DeletionTimestamp != nil {
			return
		}
		s.log.Warn("a pod could not be bound", "pod", one.pod.Namespace+"/"+one.pod.Name, "node", one.decision.Node, "error", err)
		s.queue.put(now, one.since)
		it := s.queue.items[uid]
		it.attempts = one.tries
		s.queue.fail(it, s.deps.Clock.Now())
		s.sayWhyNot(ctx, now, "", corev1.PodReasonSchedulerError, err.Error())
	})
}

const selectedNode = "volume.kubernetes.io/selected-node"

// bindVolumes binds volumes to claims, tells the provisioners which node to provide for, and waits until all is done.
func (s *Scheduler) bindVolumes(ctx context.Context, one *placement, volumes []core.Binding) error {
	if len(volumes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, one.profile.BindTimeout)
	defer cancel()
	for _, v := range volumes {
		if v.Volume != nil {
			bound, dirty, err := volumehelpers.GetBindVolumeToClaim(v.Volume, v.Claim)
			if err != nil {
				return err
			}
			if dirty {
				if _, err := client.Update(ctx, s.deps.Client, bound); err != nil {
					return err
				}
			}
			continue
		}
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": v.Claim.UID, "annotations": map[string]string{selectedNode: one.decision.Node}}})
		if err != nil {
			return err
		}
		if _, err := client.Patch[*corev1.PersistentVolumeClaim](ctx, s.deps.Client, v.Claim.Namespace, v.Claim.Name, "", types.MergePatchType, patch); err != nil {
			return err
		}
	}
	for _, v := range volumes {
		provisioned := v.Volume == nil
		told := false
		err := await(ctx, s, v.Claim.Namespace, v.Claim.Name, func(claim *corev1.PersistentVolumeClaim) (bool, error) {
			if claim.UID != v.Claim.UID {
				return false, fmt.Errorf("claim %s was replaced", claim.Name)
			}
			node, chosen := claim.Annotations[selectedNode]
			told = told || node == one.decision.Node
			if provisioned && told && claim.Spec.VolumeName == "" && (!chosen || node != one.decision.Node) {
				return false, fmt.Errorf("provisioning failed for PVC %q", claim.Name)
			}
			_, complete := claim.Annotations["pv.kubernetes.io/bind-completed"]
			return claim.Spec.VolumeName != "" && complete, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// await waits until a cached object is as it should be; an error of ok ends it.
func await[T api.Object](ctx context.Context, s *Scheduler, namespace, name string, ok func(T) (bool, error)) error {
	done := make(chan error, 1)
	var zero T
	defer client.CacheOf[T](s.deps.Caches).Subscribe(func(e client.Event[T]) {
		o, gone := e.New, any(e.New) == any(zero)
		if gone {
			o = e.Old
		}
		if o.GetNamespace() != namespace || o.GetName() != name {
			return
		}
		fine, err := false, fmt.Errorf("%s was deleted", name)
		if !gone {
			fine, err = ok(o)
		}
		if fine || err != nil {
			select {
			case done <- err:
			default:
			}
		}
	})()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bindDevices writes a claim's allocation and enters the pod in it, and waits until its devices are ready.
func (s *Scheduler) bindDevices(ctx context.Context, one *placement, d core.Devices) error {
	claim := d.Claim
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
