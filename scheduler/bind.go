package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
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
		if one.standIn != nil {
			s.unmakeStandIn(ctx, one.standIn)
		}
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
	if len(volumes)+len(devices) > 0 {
		s.metrics.step("PreBind", one.profile.SchedulerName, "Success", s.deps.Clock.Since(one.began))
	}
	began := s.deps.Clock.Now()
	err := s.bindTo(ctx, p, node)
	s.metrics.step("Bind", one.profile.SchedulerName, succeeded(err == nil), s.deps.Clock.Since(began))
	return err
}

func (s *Scheduler) bindTo(ctx context.Context, p *corev1.Pod, node string) error {
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
