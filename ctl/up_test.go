package ctl

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestPressureIsTold: a node may be ready and yet take no pods, which a user would not find out for long.
func TestPressureIsTold(t *testing.T) {
	n := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse}}}}
	if got := pressure(n); got != "" {
		t.Errorf("a healthy node: %q", got)
	}
	n.Status.Conditions[1].Status = corev1.ConditionTrue
	if got := pressure(n); !strings.Contains(got, "takes no pods: the disk") {
		t.Errorf("a full disk: %q", got)
	}
}
