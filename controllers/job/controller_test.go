package job

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// TestReleasedPodLosesItsFinalizer: a pod that no job controls is untracked by nobody, and could never be deleted.
func TestReleasedPodLosesItsFinalizer(t *testing.T) {
	pod := func(name string, finalizers ...string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}}
	}
	got := leaving([]plan.Action{
		plan.Release{Obj: pod("tracked", batchv1.JobTrackingFinalizer)},
		plan.Release{Obj: pod("free")},
		plan.Adopt{Obj: pod("adopted", batchv1.JobTrackingFinalizer)},
	})
	if len(got) != 1 || got[0].(plan.Patch).Obj.GetName() != "tracked" {
		t.Errorf("untracked %v, want the tracked pod alone", got)
	}
}
