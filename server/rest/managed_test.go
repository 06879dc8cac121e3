package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/codec"
)

func testPod() *corev1.Pod {
	return &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"a": "b"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i",
			Env:       []corev1.EnvVar{{Name: "A", Value: "1"}},
			Ports:     []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}, {ContainerPort: 80, Protocol: "UDP"}},
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1m")}}}}}}
}

// TestManageIsUpstreams holds our short cuts against the field manager that looks at everything.
func TestManageIsUpstreams(t *testing.T) {
	table := api.NewTable(builtin.Kinds()...)
	r := New(Config{Kinds: table})
	conv := codec.Converter{Table: table}
	pod := func(sub, manager string, f func(*corev1.Pod)) step {
		return step{sub, manager, func(o api.Object) { f(o.(*corev1.Pod)) }}
	}
	deployment := func(sub, manager string, f func(*appsv1.Deployment)) step {
		return step{sub, manager, func(o api.Object) { f(o.(*appsv1.Deployment)) }}
	}
	replicas := int32(3)
	for name, c := range map[string]struct {
		first api.Object
		steps []step
	}{
		"event": {&corev1.Event{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"}, ObjectMeta: metav1.ObjectMeta{Namespace: "n"}}, []step{
			{"", "scheduler", func(o api.Object) {
				e := o.(*corev1.Event)
				e.Reason, e.FirstTimestamp, e.EventTime = "Scheduled", metav1.Now(), metav1.NowMicro()
			}},
			{"", "scheduler", func(o api.Object) { o.(*corev1.Event).Count = 2; o.(*corev1.Event).LastTimestamp = metav1.Now() }},
		}},
		"pod": {testPod(), []step{
			pod("", "kubectl", func(*corev1.Pod) {}),
			pod("status", "agent", func(p *corev1.Pod) {
				p.Status.Phase = "Running"
				p.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}, {Type: "Initialized", Status: "True"}}
			}),
			pod("", "other", func(p *corev1.Pod) { p.Labels["x"] = "y"; p.Spec.Containers[0].Image = "j" }),
			pod("status", "agent", func(p *corev1.Pod) { p.Status.Conditions = p.Status.Conditions[:1]; p.Status.PodIP = "10.0.0.1" }),
			pod("", "other", func(p *corev1.Pod) { delete(p.Labels, "a"); p.Spec.Containers[0].Env = nil }),
			pod("status", "third", func(p *corev1.Pod) {
				p.Status.Conditions[0].Status = "False"
				p.Annotations = map[string]string{"k": "v"}
			}),
			pod("", "kubectl", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a"}, {Key: "a"}} }),
			pod("", "kubectl", func(p *corev1.Pod) { p.ManagedFields = []metav1.ManagedFieldsEntry{{}} }),
			pod("", "kubectl", func(p *corev1.Pod) { p.Labels = map[string]string{"new": "1"} }),
			pod("status", "agent", func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }),
		}},
		"deployment": {&appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
			ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "n"}, Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: testPod().Spec}}}, []step{
			deployment("", "kubectl", func(*appsv1.Deployment) {}),
			deployment("", "scaler", func(d *appsv1.Deployment) { d.Spec.Replicas = &replicas }),
			deployment("status", "controller", func(d *appsv1.Deployment) { d.Status.Replicas = 3; d.Status.ObservedGeneration = 1 }),
			deployment("", "kubectl", func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"a": "b"} }),
		}},
	} {
		// Several objects of nearly the same shapes: what was learned of one must hold for the next.
		for round := range 5 {
			k, _ := table.Of(c.first)
			old := k.New()
			old.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
			obj := c.first.DeepCopyObject().(api.Object)
			obj.SetName(fmt.Sprint("object-", round))
			for i, s := range c.steps {
				s.change(obj)
				if p, ok := obj.(*corev1.Pod); ok {
					at := metav1.Unix(int64(1000*round), 0)
					for j := range p.Status.Conditions {
						p.Status.Conditions[j].LastTransitionTime = at
						if round == 2 && j == 1 {
							p.Status.Conditions[j].LastTransitionTime = metav1.Unix(5, 0)
						}
					}
					if round >= 3 {
						p.Spec.Containers[0].Name = "another"
						p.Labels["round"] = fmt.Sprint(round)
					}
				}
				theirs, err := managedfields.NewDefaultFieldManager(applyconfigurations.NewTypeConverter(codec.Scheme()), conv, conv, conv,
					k.GroupVersionKind(), k.GroupVersion(), s.sub, r.resetFields(k, s.sub))
				if err != nil {
					t.Fatal(err)
				}
				want := theirs.UpdateNoErrors(old, obj.DeepCopyObject(), s.manager).(api.Object)
				before := old.DeepCopyObject()
				got, err := r.manage(k, s.sub, old, obj.DeepCopyObject().(api.Object), s.manager)
				if err != nil {
					t.Fatal(err)
				}
				if !apiequality.Semantic.DeepEqual(before, old) {
					t.Fatalf("%s, round %d, step %d: the old object was changed", name, round, i)
				}
				if a, b := timeless(got), timeless(want); a != b {
					t.Fatalf("%s, round %d, step %d:\n got %s\nwant %s", name, round, i, a, b)
				}
				got.SetManagedFields(want.GetManagedFields())
				if !apiequality.Semantic.DeepEqual(got, want) {
					t.Fatalf("%s, round %d, step %d: the object differs", name, round, i)
				}
				aged := got.GetManagedFields()
				for j := range aged { // no two of the same age
					aged[j].Time = &metav1.Time{Time: time.Date(2020, 1, 1, round, i, j, 0, time.UTC)}
				}
				got.SetManagedFields(aged)
				old, obj = got, got.DeepCopyObject().(api.Object)
			}
		}
	}
}

type step struct {
	sub, manager string
	change       func(api.Object)
}

// timeless is the managed fields without the present time.
func timeless(o api.Object) string {
	var out string
	for _, e := range o.GetManagedFields() {
		when := "now"
		if time.Since(e.Time.Time) > time.Hour {
			when = e.Time.UTC().String()
		}
		out += fmt.Sprintln(e.Manager, e.Operation, e.Subresource, e.APIVersion, when, e.FieldsV1)
	}
	return out
}

// TestPatchInParts holds a patch of the touched fields alone against one of the whole object.
func TestPatchInParts(t *testing.T) {
	k, _ := builtin.Table().Of(testPod())
	old := testPod()
	old.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "True"}}
	for _, c := range []string{
		`{}`,
		`{"status":{"phase":"Running","conditions":[{"type":"Other","status":"False"}]}}`,
		`{"status":null,"metadata":{"labels":{"a":null,"c":"d"}}}`,
		`{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"name":"c","image":"k"}]}}`,
		`{"spec":{"containers":[{"name":"e"}],"nodeName":"n"},"nonsense":1}`,
		`{"metadata":{"annotations":{"x":"y"}}}`,
		`{"$retainKeys":["metadata"],"metadata":{"name":"p"}}`,
	} {
		for _, pt := range []types.PatchType{types.MergePatchType, types.StrategicMergePatchType} {
			p, err := newPatcher(k, pt, []byte(c), metav1.FieldValidationWarn)
			if err != nil {
				t.Fatal(err)
			}
			var warned [2][]string
			var out [2]corev1.Pod
			var errs [2]error
			for i, f := range []func(context.Context, *corev1.Pod, *corev1.Pod) error{
				func(ctx context.Context, a, b *corev1.Pod) error { return p.into(ctx, a, b, k.GroupVersionKind()) },
				func(ctx context.Context, a, b *corev1.Pod) error { return p.whole(ctx, a, b, k.GroupVersionKind()) },
			} {
				errs[i] = f(WithWarnings(t.Context(), func(s string) { warned[i] = append(warned[i], s) }), old, &out[i])
			}
			a, _ := json.Marshal(out[0])
			b, _ := json.Marshal(out[1])
			if string(a) != string(b) || !reflect.DeepEqual(warned[0], warned[1]) || fmt.Sprint(errs[0]) != fmt.Sprint(errs[1]) {
				t.Errorf("%s %s:\n got %s %q %v\nwant %s %q %v", pt, c, a, warned[0], errs[0], b, warned[1], errs[1])
			}
		}
	}
}
