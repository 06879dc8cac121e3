package quota

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestUsage(t *testing.T) {
	pods, maps, gadgets := schema.GroupResource{Resource: "pods"}, schema.GroupResource{Resource: "configmaps"}, schema.GroupResource{Group: "example.com", Resource: "gadgets"}
	pod := func(phase corev1.PodPhase, cpu string) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{Phase: phase}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Resources: corev1.ResourceRequirements{Requests: list("cpu", cpu)}}}}}
	}
	there := map[schema.GroupResource][]api.Object{
		pods: {pod(corev1.PodRunning, "1"), pod(corev1.PodPending, "500m"), pod(corev1.PodFailed, "1")},
		maps: {&corev1.ConfigMap{}},
	}
	q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods", "5", "requests.cpu", "4", "limits.memory", "1Gi", "configmaps", "2", "count/gadgets.example.com", "1", "secrets", "9")}}
	got := Usage(q, []schema.GroupResource{pods, maps, gadgets}, func(gr schema.GroupResource) ([]api.Object, bool) { return there[gr], true }, time.Unix(0, 0))
	want := list("pods", "2", "requests.cpu", "1500m", "limits.memory", "0", "configmaps", "1", "count/gadgets.example.com", "0")
	if len(got) != len(want) { // secrets are not served, so not counted
		t.Errorf("counted %v, want %v", got, want)
	}
	for name, n := range want {
		if g := got[name]; g.Cmp(n) != 0 {
			t.Errorf("%s is %s, want %s", name, g.String(), n.String())
		}
	}
}

// TestComingIsNotCounted: admission has booked what comes; a count before it is in the cache would take that back.
func TestComingIsNotCounted(t *testing.T) {
	due := changed(oneQuota{})
	pod := func(phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a"}, Status: corev1.PodStatus{Phase: phase}}
	}
	for _, test := range []struct {
		name     string
		old, new api.Object
		want     int
	}{
		{"comes", nil, pod(corev1.PodPending), 0},
		{"runs", pod(corev1.PodPending), pod(corev1.PodRunning), 0},
		{"ends", pod(corev1.PodRunning), pod(corev1.PodSucceeded), 1},
		{"goes", pod(corev1.PodRunning), nil, 1},
	} {
		if got := due(nil, test.old, test.new); len(got) != test.want {
			t.Errorf("a pod that %s makes %v due", test.name, got)
		}
	}
	booked := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: list("pods", "5")}, Status: corev1.ResourceQuotaStatus{Hard: list("pods", "5")}}
	again := booked.DeepCopy()
	again.Status.Used = list("pods", "1")
	if keys := limits(booked, again); len(keys) > 0 {
		t.Error("a booking makes a count due")
	}
	again.Spec.Hard = list("pods", "6")
	if keys := limits(booked, again); len(keys) != 1 {
		t.Error("a new limit makes no count due")
	}
}

// oneQuota answers only what changed asks for.
type oneQuota struct {
	client.Reader[*corev1.ResourceQuota]
}

func (oneQuota) List(string) []*corev1.ResourceQuota { return []*corev1.ResourceQuota{{}} }
