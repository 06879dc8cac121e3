package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// This file knows which changes may help pods that were refused, by the rules that refused them: upstream's queueing hints.

// fromExtender is how a pod is parked that no rule refused, but an extender, or that there were no nodes: any change may help.
const fromExtender = "extender"

var (
	everyRule    = append(slices.Clone(core.FilterOrder), fromExtender)
	ofVolumes    = []string{core.VolumeRestrictions, core.NodeVolumeLimits, core.VolumeBinding, core.VolumeZone, fromExtender}
	ofDevices    = []string{core.DynamicResources, fromExtender}
	ofOthers     = []string{core.PodTopologySpread, core.InterPodAffinity}
	ofDepartures = []string{core.NodePorts, core.NodeResourcesFit}
)

// hint lets pods be tried again after an object changed; the cluster knows of the change.
func (s *Scheduler) hint(old, new api.Object) {
	if len(s.queue.parked.list) == 0 {
		return
	}
	now := s.deps.Clock.Now()
	o := new
	if o == nil {
		o = old
	}
	switch o := o.(type) {
	case *corev1.Node:
		// A node can take a pod only if the rules about single nodes let it; gone, it can change others' domains.
		fits := func(it *item) bool { return new != nil && it.asked != nil && s.cluster.Accepts(it.asked, o.Name) }
		s.queue.change(now, everyRule, fits)
		if before, ok := old.(*corev1.Node); new == nil || ok && !maps.Equal(before.Labels, o.Labels) {
			s.queue.change(now, ofOthers, nil)
		}
	case *corev1.Pod:
		s.hintPod(old, new, o)
	case *corev1.Namespace:
		s.queue.change(now, []string{core.InterPodAffinity}, nil)
	case *resourcev1.ResourceClaim, *resourcev1.ResourceSlice, *resourcev1.DeviceClass:
		s.queue.change(now, ofDevices, nil)
	case *corev1.PersistentVolume, *corev1.PersistentVolumeClaim, *storagev1.StorageClass, *storagev1.CSINode, *storagev1.CSIDriver,
		*storagev1.CSIStorageCapacity, *storagev1.VolumeAttachment:
		s.queue.change(now, ofVolumes, nil)
	case *policyv1.PodDisruptionBudget:
		// Budgets decide who is preempted first, not whether.
	}
}

// hintPod is hint for a pod that has, or had, a node.
func (s *Scheduler) hintPod(old, new api.Object, o *corev1.Pod) {
	now := s.deps.Clock.Now()
	ended := o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
	if new == nil || ended || old != nil && old.(*corev1.Pod).Spec.NodeName != "" && old.GetGeneration() != new.GetGeneration() {
		s.queue.change(now, ofDepartures, func(it *item) bool { return it.asked != nil && s.cluster.Accepts(it.asked, o.Spec.NodeName) })
		s.queue.change(now, ofOthers, nil)
		if len(o.Spec.Volumes) > 0 {
			s.queue.change(now, ofVolumes, nil)
		}
		s.queue.change(now, []string{fromExtender}, nil)
		return
	}
	s.queue.change(now, []string{core.InterPodAffinity}, func(it *item) bool { return it.asked != nil && s.cluster.Attracts(it.asked, o) })
	s.queue.change(now, []string{core.PodTopologySpread}, func(it *item) bool { return it.pod.Namespace == o.Namespace })
}
