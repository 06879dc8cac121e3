package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/cgroup"
	"github.com/skiff-sh/skiff/node/cri"
	"github.com/skiff-sh/skiff/node/lifecycle"
	"github.com/skiff-sh/skiff/node/spec"
)

const resizeFirst, resizeLimit = time.Second, time.Minute

// resize brings the limits of the pod's running containers, and of the pod, to what its spec asks for. The pod's own
// limits are open meanwhile: the kernel refuses any order of steps in which a container may have more than its pod.
func (w *worker) resize(ctx context.Context, pod *corev1.Pod) func() {
	err := w.a.resize(ctx, pod)
	if err != nil && ctx.Err() == nil {
		w.a.event(pod, "", corev1.EventTypeWarning, "ResizeError", "%s", err.Error())
	}
	return func() {
		// Backing off when all went well keeps a runtime that reports other limits than it was given from being asked for ever.
		reason, message := "", ""
		if err != nil {
			reason, message = "Error", err.Error()
		}
		w.mem.ResizeTrouble = lifecycle.Again(w.mem.ResizeTrouble, w.a.cfg.Clock.Now(), reason, message, resizeFirst, resizeLimit)
	}
}

func (a *Agent) resize(ctx context.Context, pod *corev1.Pod) error {
	o, err := a.runtime.Observe(ctx, string(pod.UID))
	if err != nil {
		return err
	}
	uid, qos := string(pod.UID), lifecycle.QOS(pod)
	req, lim, mem := spec.PodResources(pod)
	limits := cgroup.Limits{CPUShares: lifecycle.Shares(req), CPUQuota: cgroup.Open, Memory: cgroup.Open}
	if err := a.groups.Ensure(uid, qos, limits); err != nil {
		return err
	}
	var errs []error
	for i := range o.Containers {
		c := &o.Containers[i]
		s, ok := lifecycle.Find(pod, c.Name)
		if !ok || c.State != lifecycle.Running || c.Limits == nil || *c.Limits == lifecycle.LimitsOf(s) {
			continue
		}
		r := a.spec.Resources(pod, s)
		if r.CpuQuota == 0 {
			r.CpuQuota = cgroup.Open
		}
		if _, err := a.runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: r}); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %s", c.Name, cri.Message(err)))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // the pod's limits stay open until its containers are right
	}
	limits.CPUQuota, limits.Memory = lifecycle.Quota(lim), mem
	return a.groups.Ensure(uid, qos, limits)
}

// resize counts what a pod asks for now instead of what it was admitted with, or says why the node has no room for it.
func (m *admitter) resize(pod *corev1.Pod, allocatable func() corev1.ResourceList) *lifecycle.Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.pods[pod.UID]
	if !ok {
		return nil
	}
	req := requests(pod)
	var room corev1.ResourceList
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		want, had := req[name], old[name]
		if want.Cmp(had) <= 0 {
			continue
		}
		if room == nil {
			room = allocatable()
		}
		if r := m.noRoom(pod, name, want, room[name]); r != nil {
			return r
		}
	}
	m.pods[pod.UID] = req
	return nil
}

func (m *admitter) noRoom(pod *corev1.Pod, name corev1.ResourceName, want, have resource.Quantity) *lifecycle.Refusal {
	value := func(q resource.Quantity) int64 {
		if name == corev1.ResourceCPU {
			return q.MilliValue()
		}
		return q.Value()
	}
	if want.Cmp(have) > 0 {
		return &lifecycle.Refusal{Reason: corev1.PodReasonInfeasible,
			Message: fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, value(want), value(have))}
	}
	var used resource.Quantity
	for uid, p := range m.pods {
		if uid != pod.UID {
			used.Add(p[name])
		}
	}
	sum := used.DeepCopy()
	sum.Add(want)
	if sum.Cmp(have) > 0 {
		return &lifecycle.Refusal{Reason: corev1.PodReasonDeferred, Message: outOf(string(name), value(want), value(used), value(have)).Message}
	}
	return nil
}
