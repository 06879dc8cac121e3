package quota

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func list(s string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, f := range strings.Fields(s) {
		k, v, _ := strings.Cut(f, "=")
		l[corev1.ResourceName(k)] = resource.MustParse(v)
	}
	return l
}

func text(l corev1.ResourceList) string {
	var out []string
	for k, v := range l {
		out = append(out, string(k)+"="+v.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestUsage(t *testing.T) {
	now := time.Unix(1000, 0)
	always, ten := corev1.ContainerRestartPolicyAlways, int64(10)
	pod := func(change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu=100m"), Limits: list("memory=1Gi")}}}}}
		for _, f := range change {
			f(p)
		}
		return p
	}
	no := false
	for _, c := range []struct {
		gr   schema.GroupResource
		o    runtime.Object
		want string
	}{
		{pods, pod(), "count/pods=1 cpu=100m limits.memory=1Gi pods=1 requests.cpu=100m"},
		{pods, pod(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu=1")}},
				{RestartPolicy: &always, Resources: corev1.ResourceRequirements{Requests: list("cpu=50m")}}}
		}), "count/pods=1 cpu=1 limits.memory=1Gi pods=1 requests.cpu=1"},
		{pods, pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), "count/pods=1"},
		{pods, pod(func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: now.Add(-time.Minute)}, &ten
		}), "count/pods=1"},
		{services, &corev1.Service{Spec: corev1.ServiceSpec{Type: "LoadBalancer", AllocateLoadBalancerNodePorts: &no, Ports: []corev1.ServicePort{{}, {NodePort: 30000}}}},
			"count/services=1 services.loadbalancers=1 services.nodeports=1 services=1"},
		{schema.GroupResource{Resource: "secrets"}, &corev1.Secret{}, "count/secrets=1 secrets=1"},
		{schema.GroupResource{Group: "example.com", Resource: "widgets"}, &metav1.PartialObjectMetadata{}, "count/widgets.example.com=1"},
		{devices, &resourcev1.ResourceClaim{Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: "ExactCount", Count: 2}},
			{FirstAvailable: []resourcev1.DeviceSubRequest{{DeviceClassName: "gpu", Count: 1}, {DeviceClassName: "gpu", Count: 3}}}}}}},
			"count/resourceclaims.resource.k8s.io=1 gpu.deviceclass.resource.k8s.io/devices=5"},
	} {
		if got := text(Usage(c.gr, c.o, now)); got != c.want {
			t.Errorf("%T:\ngot  %s\nwant %s", c.o, got, c.want)
		}
	}
}

func TestScopes(t *testing.T) {
	quota := func(op corev1.ScopeSelectorOperator, values ...string) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: op, Values: values}}}}}
	}
	high, none := &corev1.Pod{Spec: corev1.PodSpec{PriorityClassName: "high"}}, &corev1.Pod{}
	for _, c := range []struct {
		q    *corev1.ResourceQuota
		p    *corev1.Pod
		want bool
	}{
		{quota("In", "high"), high, true}, {quota("In", "low"), high, false}, {quota("In", "high"), none, false},
		{quota("NotIn", "high"), none, true}, {quota("Exists"), high, true}, {quota("Exists"), none, false}, {quota("DoesNotExist"), none, true},
	} {
		if got := InScope(c.q, c.p); got != c.want {
			t.Errorf("%v %q: %v", c.q.Spec.ScopeSelector, c.p.Spec.PriorityClassName, got)
		}
	}
	if InScope(quota("Exists"), &corev1.Service{}) {
		t.Error("a scope of pods holds for a service")
	}
}
