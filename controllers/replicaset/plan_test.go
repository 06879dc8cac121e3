package replicaset

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func setOf(replicas int32, have int) (Set, []*corev1.Pod) {
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "rs"}}
	kind := appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	app := map[string]string{"app": "web"}
	list := make([]*corev1.Pod, have)
	for i := range list {
		name := fmt.Sprintf("web-%d", i)
		list[i] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Labels: app,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rs, kind)}}, Status: corev1.PodStatus{Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}}}}
	}
	return Set{Owner: rs, Kind: kind, Replicas: replicas, Selector: labels.SelectorFromSet(app),
		Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app}}}, list
}

func TestMissingAndExcess(t *testing.T) {
	for _, c := range []struct {
		replicas                 int32
		have, creates, deletions int
	}{{3, 3, 0, 0}, {5, 3, 2, 0}, {1, 3, 0, 2}, {2000, 0, burst, 0}, {0, 2000, 0, burst}} {
		set, list := setOf(c.replicas, c.have)
		d := Plan(set, list, func() map[string]int { return nil }, now)
		creates, deletions := 0, 0
		for _, a := range d.Manage {
			switch a.(type) {
			case plan.Create:
				creates++
			case plan.Delete:
				deletions++
			}
		}
		if creates != c.creates || deletions != c.deletions {
			t.Errorf("%d of %d: %d creates and %d deletions, want %d and %d", c.have, c.replicas, creates, deletions, c.creates, c.deletions)
		}
		if s := d.Status(nil); int(s.ReadyReplicas) != c.have || int(s.AvailableReplicas) != c.have {
			t.Errorf("status %+v, want %d ready", s, c.have)
		}
	}
}

// A set of 2,000 pods that has what it wants: this is what every change of one of them costs.
func BenchmarkPlan(b *testing.B) {
	set, list := setOf(2000, 2000)
	b.ReportAllocs()
	for b.Loop() {
		d := Plan(set, list, func() map[string]int { return nil }, now)
		d.Status(nil)
	}
}
