package resourceclaim

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

func user(edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u"}, Spec: corev1.PodSpec{
		ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: ptr.To("t")}}}}
	if edit != nil {
		edit(p)
	}
	return p
}

func claim(edit func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p-gpu-1", Annotations: map[string]string{resourcev1.PodResourceClaimAnnotation: "gpu"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u", Controller: ptr.To(true)}}}}
	if edit != nil {
		edit(c)
	}
	return c
}

func TestPodGetsItsClaims(t *testing.T) {
	var made []*resourcev1.ResourceClaim
	known := true
	v := View{Made: func(*corev1.Pod) []*resourcev1.ResourceClaim { return made },
		Claim: func(name string) (*resourcev1.ResourceClaim, bool) {
			i := slices.IndexFunc(made, func(c *resourcev1.ResourceClaim) bool { return c.Name == name })
			if i < 0 {
				return nil, false
			}
			return made[i], true
		},
		Template: func(string) (*resourcev1.ResourceClaimTemplate, bool) {
			return &resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}}}, known
		}}
	actions, err := PlanPod(user(nil), v)
	if err != nil || len(actions) != 1 {
		t.Fatalf("%v, %v", actions, err)
	}
	c := actions[0].(plan.Create).Obj.(*resourcev1.ResourceClaim)
	if c.GenerateName != "p-gpu-" || c.Labels["a"] != "b" || !metav1.IsControlledBy(c, user(nil)) {
		t.Errorf("made %+v", c.ObjectMeta)
	}
	made = []*resourcev1.ResourceClaim{claim(nil)}
	if actions, err = PlanPod(user(nil), v); err != nil || len(actions) != 1 || !strings.Contains(string(actions[0].(plan.Patch).Data), `"resourceClaimName":"p-gpu-1"`) {
		t.Errorf("the name is not noted: %v, %v", actions, err)
	}
	noted := func(p *corev1.Pod) {
		p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: ptr.To("p-gpu-1")}}
	}
	if actions, err = PlanPod(user(noted), v); err != nil || len(actions) != 0 {
		t.Errorf("nothing is left to do: %v, %v", actions, err)
	}
	made[0].Status.Allocation = &resourcev1.AllocationResult{}
	bound := func(p *corev1.Pod) { noted(p); p.Spec.NodeName = "n1" }
	if actions, err = PlanPod(user(bound), v); err != nil || len(actions) != 1 || actions[0].(plan.Update).Obj.(*resourcev1.ResourceClaim).Status.ReservedFor[0].UID != "u" {
		t.Errorf("not reserved for a pod that came without the scheduler: %v, %v", actions, err)
	}
	made, known = nil, false
	if _, err = PlanPod(user(nil), v); err == nil {
		t.Error("a missing template is no error")
	}
	if actions, err = PlanPod(user(func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }), v); err != nil || len(actions) != 0 {
		t.Errorf("a pod that goes gets %v, %v", actions, err)
	}
}

func TestLongNamesKeepTheirShare(t *testing.T) {
	p, pc := user(func(p *corev1.Pod) { p.Name = strings.Repeat("p", 60) }), &corev1.PodResourceClaim{Name: strings.Repeat("c", 30)}
	if n := claimFor(p, pc, &resourcev1.ResourceClaimTemplate{}).GenerateName; len(n) > nameLength || strings.Count(n, "p") != 37 || strings.Count(n, "c") != 18 {
		t.Errorf("%q has %d letters", n, len(n))
	}
}

func TestClaimIsTakenBack(t *testing.T) {
	held := func(c *resourcev1.ResourceClaim) {
		c.Finalizers = []string{resourcev1.Finalizer}
		c.Status.Allocation = &resourcev1.AllocationResult{}
		c.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}}
	}
	for name, c := range map[string]struct {
		claim *resourcev1.ResourceClaim
		uses  bool
		pod   *corev1.Pod
		want  string
	}{
		"in use":                     {claim(held), true, user(nil), ""},
		"no longer in use":           {claim(held), false, user(nil), "status"},
		"deallocated, its pod ended": {claim(func(c *resourcev1.ResourceClaim) { c.Finalizers = []string{resourcev1.Finalizer} }), false, user(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), "update"},
		"unprotected, its pod ended": {claim(nil), false, user(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), "delete"},
		"its pod was replaced":       {claim(nil), false, user(func(p *corev1.Pod) { p.UID = "other" }), "delete"},
		"its pod is not known yet":   {claim(nil), false, nil, ""},
		"nobody's in particular":     {claim(func(c *resourcev1.ResourceClaim) { c.OwnerReferences = nil }), false, nil, ""},
		"deleted while protected": {claim(func(c *resourcev1.ResourceClaim) {
			c.Finalizers, c.DeletionTimestamp = []string{resourcev1.Finalizer}, ptr.To(metav1.Now())
		}), false, user(nil), "update"},
	} {
		t.Run(name, func(t *testing.T) {
			actions := PlanClaim(c.claim, func(resourcev1.ResourceClaimConsumerReference) bool { return c.uses },
				func(string) (*corev1.Pod, bool) { return c.pod, c.pod != nil })
			got := ""
			for _, a := range actions {
				switch a := a.(type) {
				case plan.Delete:
					got += "delete"
				case plan.Update:
					got += map[string]string{"": "update", "status": "status"}[a.Subresource]
					next := a.Obj.(*resourcev1.ResourceClaim)
					if a.Subresource == "status" && (next.Status.Allocation != nil || len(next.Status.ReservedFor) > 0) {
						t.Errorf("still allocated: %+v", next.Status)
					}
				}
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
