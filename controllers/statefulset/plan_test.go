package statefulset

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// TestScaleDownHaltsAtUnhealthyPods: of several unhealthy pods only the lowest may be stopped for a scale-down.
func TestScaleDownHaltsAtUnhealthyPods(t *testing.T) {
	now := time.Unix(1e9, 0)
	pod := func(n int, ready bool) *corev1.Pod {
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ss-%d", n)}, Status: corev1.PodStatus{Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}}}
	}
	for _, test := range []struct {
		ready   [3]bool
		deleted string
	}{
		{[3]bool{true, true, true}, "ss-2"},
		{[3]bool{true, true, false}, "ss-2"},
		{[3]bool{false, true, true}, "ss-2"},
		{[3]bool{true, false, false}, ""},
		{[3]bool{false, false, false}, ""},
	} {
		rev := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "r"}}
		in := Input{Set: &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "ss"}, Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](0)}},
			Current: rev, Update: rev, Now: now}
		for i, ready := range test.ready {
			in.Pods = append(in.Pods, pod(i, ready))
		}
		deleted := ""
		for _, a := range Plan(in).Actions {
			if d, ok := a.(plan.Delete); ok {
				deleted += d.Obj.GetName()
			}
		}
		if deleted != test.deleted {
			t.Errorf("ready %v: deleted %q, want %q", test.ready, deleted, test.deleted)
		}
	}
}
