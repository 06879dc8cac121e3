package tainteviction

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestPlan(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	taints := []corev1.Taint{{Key: "a", Effect: corev1.TaintEffectNoExecute}, {Key: "b", Effect: corev1.TaintEffectNoExecute}}
	forever := corev1.Toleration{Operator: corev1.TolerationOpExists}
	limited := func(key string, s int64) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, TolerationSeconds: ptr.To(s)}
	}
	for name, c := range map[string]struct {
		tolerations []corev1.Toleration
		evict       bool
		again       time.Duration
	}{
		"none tolerated":    {evict: true},
		"one not tolerated": {tolerations: []corev1.Toleration{limited("a", 100)}, evict: true},
		"all for ever":      {tolerations: []corev1.Toleration{forever}},
		"the shortest":      {tolerations: []corev1.Toleration{limited("a", 100), limited("b", 30)}, again: 20 * time.Second},
		"run out":           {tolerations: []corev1.Toleration{limited("a", 100), limited("b", 10)}, evict: true},
	} {
		t.Run(name, func(t *testing.T) {
			actions, again := Plan(&corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.tolerations}}, taints, now.Add(-10*time.Second), now)
			if len(actions) > 0 != c.evict || again != c.again {
				t.Errorf("%d actions, again in %v", len(actions), again)
			}
		})
	}
}
