package etcd

import (
	"fmt"
	"maps"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func samplePod(cpu, app, fields string) *corev1.Pod {
	need := func() corev1.ResourceList { return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)} }
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}, Annotations: map[string]string{"a": app},
		ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)}}}},
		Spec: corev1.PodSpec{NodeSelector: map[string]string{"app": app}, Containers: []corev1.Container{
			{Resources: corev1.ResourceRequirements{Requests: need(), Limits: need()}}}}}
}

// shares lists which of the parts that are interned two pods have in common.
func shares(a, b *corev1.Pod) (out []string) {
	same := func(what string, x, y any) {
		if reflect.ValueOf(x).Pointer() == reflect.ValueOf(y).Pointer() {
			out = append(out, what)
		}
	}
	same("labels", a.Labels, b.Labels)
	same("annotations", a.Annotations, b.Annotations)
	same("fields", a.ManagedFields[0].FieldsV1, b.ManagedFields[0].FieldsV1)
	same("selector", a.Spec.NodeSelector, b.Spec.NodeSelector)
	same("requests", a.Spec.Containers[0].Resources.Requests, b.Spec.Containers[0].Resources.Requests)
	same("limits", a.Spec.Containers[0].Resources.Limits, b.Spec.Containers[0].Resources.Limits)
	return out
}

func TestEqualPartsAreOne(t *testing.T) {
	in := newInterner()
	first := samplePod("1", "x", `{"f:a":{}}`)
	in.intern(first)
	for _, c := range []struct {
		pod  *corev1.Pod
		want string
	}{
		{samplePod("1", "x", `{"f:a":{}}`), "[labels annotations fields selector requests limits]"},
		{samplePod("2", "x", `{"f:a":{}}`), "[labels annotations fields selector]"},
		{samplePod("1", "y", `{"f:a":{}}`), "[fields requests limits]"},
		{samplePod("1", "x", `{"f:b":{}}`), "[labels annotations selector requests limits]"},
	} {
		before := c.pod.DeepCopy()
		in.intern(c.pod)
		if got := fmt.Sprint(shares(first, c.pod)); got != c.want {
			t.Errorf("shares %s, want %s", got, c.want)
		}
		if !reflect.DeepEqual(before, c.pod) {
			t.Errorf("changed %v to %v", before, c.pod)
		}
	}
}

// TestInternerForgets: what nobody has any more is not kept for ever, and what is met all the time stays.
func TestInternerForgets(t *testing.T) {
	in := newInterner()
	first := samplePod("1", "often", "{}")
	in.intern(first)
	for i := range 5 * maxInterned {
		in.intern(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": fmt.Sprint(i)}}})
		in.intern(samplePod("1", "often", "{}"))
	}
	if n := len(in.texts.young) + len(in.texts.old); n > 2*maxInterned {
		t.Errorf("%d maps are known", n)
	}
	again := samplePod("1", "often", "{}")
	in.intern(again)
	if got := shares(first, again); len(got) != 6 {
		t.Errorf("shares only %v", got)
	}
	for _, m := range in.texts.young {
		if maps.Equal(m, map[string]string{"app": "0"}) {
			t.Error("what was met once, long ago, is still known")
		}
	}
}
