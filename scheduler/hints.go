package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// This file knows which changes may help pods that were refused, by the rules that refused them: upstream's queueing hints.

// fromExtender is how a pod is parked that no rule refused, but an extender, or that there were no nodes: any change may help.
const fromExtender = "extender"

var (
	everyRule    = append(slices.Clone(core.FilterOrder), fromExtender)
	ofVolumes    = []string{core.VolumeRestrictions, core.NodeVolumeLimits, core.VolumeBinding, core.VolumeZone, fromExtender}
	ofDevices    = []string{core.DynamicResources, fromExtender}
	ofClasses    = []string{core.DynamicResources, core.NodeResourcesFit, fromExtender} // a class can stand for an extended resource
	ofOthers     = []string{core.PodTopologySpread, core.InterPodAffinity}
	ofDepartures = []string{core.NodePorts, core.NodeResourcesFit}
)

// hint lets pods be tried again after an object changed; the cluster knows of the change.
func (s *Scheduler) hint(old, new api.Object) {
	if len(s.queue.parked.list) == 0 {
		return
	}
	o := new
	if o == nil {
		o = old
	}
	now, event := s.deps.Clock.Now(), eventOf(old, new)
	again := func(rules []string, helps func(*item) bool) { s.queue.change(now, event, rules, helps) }
	switch o := o.(type) {
	case *corev1.Node:
		// A node can take a pod only if the rules about single nodes let it; gone, it can change others' domains.
		fits := func(it *item) bool { return new != nil && it.asked != nil && s.cluster.Accepts(it.asked, o.Name) }
		again(everyRule, fits)
		if before, ok := old.(*corev1.Node); new == nil || ok && !maps.Equal(before.Labels, o.Labels) {
			again(ofOthers, nil)
		}
	case *corev1.Pod:
		s.hintPod(old, new, o, again)
	case *corev1.Namespace:
		again([]string{core.InterPodAffinity}, nil)
	case *resourcev1.DeviceClass:
		again(ofClasses, nil)
	case *resourcev1.ResourceClaim, *resourcev1.ResourceSlice:
		again(ofDevices, nil)
	case *corev1.PersistentVolume, *corev1.PersistentVolumeClaim, *storagev1.StorageClass, *storagev1.CSINode, *storagev1.CSIDriver,
		*storagev1.CSIStorageCapacity, *storagev1.VolumeAttachment:
		again(ofVolumes, nil)
	case *policyv1.PodDisruptionBudget:
		// Budgets decide who is preempted first, not whether.
	}
}

// hintPod is hint for a pod that has, or had, a node.
func (s *Scheduler) hintPod(old, new api.Object, o *corev1.Pod, again func([]string, func(*item) bool)) {
	ended := o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
	if new == nil || ended || old != nil && old.(*corev1.Pod).Spec.NodeName != "" && old.GetGeneration() != new.GetGeneration() {
		again(ofDepartures, func(it *item) bool { return it.asked != nil && s.cluster.Accepts(it.asked, o.Spec.NodeName) })
		again(ofOthers, nil)
		if len(o.Spec.Volumes) > 0 {
			again(ofVolumes, nil)
		}
		again([]string{fromExtender}, nil)
		return
	}
	again([]string{core.InterPodAffinity}, func(it *item) bool { return it.asked != nil && s.cluster.Attracts(it.asked, o) })
	again([]string{core.PodTopologySpread}, func(it *item) bool { return it.pod.Namespace == o.Namespace })
}

// eventOf names a change as the metrics do.
func eventOf(old, new api.Object) string {
	what, o := "Update", new
	switch {
	case new == nil:
		what, o = "Delete", old
	case old == nil:
		what = "Add"
	}
	k, ok := builtin.Table().Of(o)
	switch {
	case !ok:
		return what
	case k.Plural == "pods":
		return "AssignedPod" + what
	}
	return k.Kind + what
}
