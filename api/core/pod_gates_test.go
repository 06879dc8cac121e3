package core

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A group comes off a new pod, and stays on one that got it while the gate was on.
func TestSchedulingGroupIsGated(t *testing.T) {
	name := "g"
	with := func() *corev1.PodSpec {
		return &corev1.PodSpec{SchedulingGroup: &corev1.PodSchedulingGroup{PodGroupName: &name}}
	}
	s := with()
	if dropDisabled(s, nil); s.SchedulingGroup != nil {
		t.Error("a new pod keeps its group")
	}
	s = with()
	if dropDisabled(s, with()); s.SchedulingGroup == nil {
		t.Error("a pod lost the group that it had")
	}
}
