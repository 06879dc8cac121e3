package plugins

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

func TestAlwaysPullImages(t *testing.T) {
	p := newPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "r"}}}}
	})
	expect(t, "create", run(t, alwaysPullImages{}, create(p)), "")
	if p.Spec.Containers[0].ImagePullPolicy != corev1.PullAlways || p.Spec.Volumes[0].Image.PullPolicy != corev1.PullAlways {
		t.Errorf("got %+v", p.Spec)
	}
	old := newPod(func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever })
	same := old.DeepCopy()
	expect(t, "no new image", run(t, alwaysPullImages{}, update(same, old, "")), "")
	if same.Spec.Containers[0].ImagePullPolicy != corev1.PullNever {
		t.Error("what was there before has changed")
	}
	if err := (alwaysPullImages{}).Validate(t.Context(), &admission.Request{Operation: admission.Create, Kind: read.Kind[*corev1.Pod](), Object: old}); err == nil ||
		!strings.Contains(err.Error(), `spec.containers[0].imagePullPolicy: Unsupported value: "Never"`) {
		t.Errorf("got %v", err)
	}
}

func TestPlacement(t *testing.T) {
	apart := newPod(func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "zone"}}}}
	})
	expect(t, "zone", run(t, hardAntiAffinity{}, create(apart)), "TopologyKey zone but only key kubernetes.io/hostname is allowed")
	apart.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].TopologyKey = corev1.LabelHostname
	expect(t, "host", run(t, hardAntiAffinity{}, create(apart)), "")

	device := newPod(with(resources("example.com/gpu", "1", "cpu", "1", "hugepages-2Mi", "2Mi"), nil))
	expect(t, "device", run(t, extendedResourceToleration{}, create(device)), "")
	if ts := device.Spec.Tolerations; len(ts) != 1 || ts[0].Key != "example.com/gpu" || ts[0].Effect != corev1.TaintEffectNoSchedule {
		t.Errorf("got %v", ts)
	}

	st := memstore.New(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{nodeSelectorAnnotation: "disk=ssd"}}})
	p := newPod()
	expect(t, "selector", run(t, &podNodeSelector{st: st}, create(p)), "")
	if p.Spec.NodeSelector["disk"] != "ssd" {
		t.Errorf("got %v", p.Spec.NodeSelector)
	}
	other := newPod(func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "hdd"} })
	expect(t, "conflict", run(t, &podNodeSelector{st: st}, create(other)), "pod node label selector conflicts with its namespace node label selector")
}

func TestOwnerReferences(t *testing.T) {
	yes := true
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u", BlockOwnerDeletion: &yes}
	owned := newPod(func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{owner} })
	p := &ownerReferences{builtin.Table(), may{}}
	expect(t, "block", run(t, p, create(owned)), "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on")
	expect(t, "delete", run(t, p, update(owned, newPod(), "")), "cannot set an ownerRef on a resource you can't delete")
	expect(t, "unchanged", run(t, p, update(owned, owned, "")), "")
	p.a = may{"delete pods/p", "update nodes/n"}
	expect(t, "allowed", run(t, p, update(owned, newPod(), "")), "")
	owned.OwnerReferences[0].Kind = "Nonsense"
	expect(t, "unknown", run(t, p, create(owned)), "cannot find RESTMapping for APIVersion v1 Kind Nonsense")
}

func TestNamespaceExists(t *testing.T) {
	p := &namespaceExists{memstore.New(&corev1.Namespace{ObjectMeta: named("a")})}
	expect(t, "there", run(t, p, create(newPod())), "")
	gone := newPod(func(p *corev1.Pod) { p.Namespace = "b" })
	if err := run(t, p, &admission.Request{Operation: admission.Delete, Old: gone}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

func TestDenyExternalIPs(t *testing.T) {
	svc := func(ips ...string) *corev1.Service {
		return &corev1.Service{ObjectMeta: inA("s"), Spec: corev1.ServiceSpec{ExternalIPs: ips}}
	}
	expect(t, "none", run(t, denyExternalIPs{}, create(svc())), "")
	expect(t, "new", run(t, denyExternalIPs{}, create(svc("1.2.3.4"))), "Use of external IPs is denied by admission control")
	expect(t, "kept", run(t, denyExternalIPs{}, update(svc("1.2.3.4"), svc("1.2.3.4", "5.6.7.8"), "")), "")
	expect(t, "added", run(t, denyExternalIPs{}, update(svc("1.2.3.4", "9.9.9.9"), svc("1.2.3.4"), "")), "denied")
}

func TestPodResize(t *testing.T) {
	node := &corev1.Node{ObjectMeta: named("n"), Status: corev1.NodeStatus{Allocatable: resources("cpu", "2", "memory", "1Gi")}}
	p := &podResize{memstore.New(node)}
	old := newPod(on("n"), with(resources("cpu", "1", "memory", "1Gi"), nil))
	bigger := newPod(on("n"), with(resources("cpu", "3", "memory", "2Gi"), nil))
	err := run(t, p, update(bigger, old, "resize"))
	expect(t, "too big", err, "node didn't have enough allocatable resources: cpu, requested: 3000, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824")
	if s, ok := err.(apierrors.APIStatus); !ok || len(s.Status().Details.Causes) != 1 || s.Status().Details.Causes[0].Type != "NodeCapacity" {
		t.Errorf("got %v", err)
	}
	expect(t, "fits", run(t, p, update(newPod(on("n"), with(resources("cpu", "2"), nil)), old, "resize")), "")
	expect(t, "no node", run(t, p, update(newPod(on("m"), with(resources("cpu", "2"), nil)), old, "resize")), `node "m" not found`)
	node.Labels = map[string]string{corev1.LabelOSStable: "windows"}
	expect(t, "windows", run(t, &podResize{memstore.New(node)}, update(bigger, old, "resize")), "pod resize is only supported on linux nodes")
}
