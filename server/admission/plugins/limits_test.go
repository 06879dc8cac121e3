package plugins

import (
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

func limitRange(items ...corev1.LimitRangeItem) *corev1.LimitRange {
	return &corev1.LimitRange{ObjectMeta: inA("l"), Spec: corev1.LimitRangeSpec{Limits: items}}
}

func TestLimitRangerDefaults(t *testing.T) {
	p := &limitRanger{memstore.New(limitRange(corev1.LimitRangeItem{Type: "Container",
		Default: resources("cpu", "500m", "memory", "1Gi"), DefaultRequest: resources("cpu", "100m")}))}
	o := newPod(with(nil, resources("memory", "2Gi")))
	expect(t, "defaults", run(t, p, create(o)), "")
	r := o.Spec.Containers[0].Resources
	if r.Requests.Cpu().String() != "100m" || r.Limits.Cpu().String() != "500m" || r.Limits.Memory().String() != "2Gi" {
		t.Errorf("%+v", r)
	}
	if got := o.Annotations["kubernetes.io/limit-ranger"]; got != "LimitRanger plugin set: cpu request for container c; cpu limit for container c" {
		t.Errorf("%q", got)
	}
}

func TestLimitRangerBounds(t *testing.T) {
	for _, c := range []struct {
		item             corev1.LimitRangeItem
		requests, limits corev1.ResourceList
		want             string
	}{
		{corev1.LimitRangeItem{Type: "Container", Min: resources("cpu", "50m")}, resources("cpu", "50m"), nil, ""},
		{corev1.LimitRangeItem{Type: "Container", Min: resources("cpu", "50m")}, resources("cpu", "10m"), nil, `pods "p" is forbidden: minimum cpu usage per Container is 50m, but request is 10m`},
		{corev1.LimitRangeItem{Type: "Container", Min: resources("cpu", "50m")}, nil, nil, "minimum cpu usage per Container is 50m.  No request is specified"},
		{corev1.LimitRangeItem{Type: "Container", Max: resources("cpu", "1")}, nil, resources("cpu", "2"), "maximum cpu usage per Container is 1, but limit is 2"},
		{corev1.LimitRangeItem{Type: "Container", Max: resources("cpu", "1")}, nil, nil, "maximum cpu usage per Container is 1.  No limit is specified"},
		{corev1.LimitRangeItem{Type: "Pod", Max: resources("memory", "1Gi")}, nil, resources("memory", "2Gi"), "maximum memory usage per Pod is 1Gi, but limit is 2Gi"},
		{corev1.LimitRangeItem{Type: "Container", MaxLimitRequestRatio: resources("cpu", "2")}, resources("cpu", "1"), resources("cpu", "3"), "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"},
		{corev1.LimitRangeItem{Type: "Container", MaxLimitRequestRatio: resources("cpu", "2")}, resources("cpu", "1"), resources("cpu", "2"), ""},
		{corev1.LimitRangeItem{Type: "Container", Max: resources("cpu", "1", "memory", "1Gi")}, nil, nil, "[maximum cpu usage per Container is 1.  No limit is specified, maximum memory usage per Container is 1Gi.  No limit is specified]"},
	} {
		expect(t, fmt.Sprint(c.item), run(t, &limitRanger{memstore.New(limitRange(c.item))}, create(newPod(with(c.requests, c.limits)))), c.want)
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: inA("c"), Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: resources("storage", "2Gi")}}}
	p := &limitRanger{memstore.New(limitRange(corev1.LimitRangeItem{Type: "PersistentVolumeClaim", Max: resources("storage", "1Gi")}))}
	expect(t, "claim", run(t, p, create(claim)), "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi")
}

func quotaOf(hard, used corev1.ResourceList, scopes ...corev1.ResourceQuotaScope) *corev1.ResourceQuota {
	return &corev1.ResourceQuota{ObjectMeta: inA("q"), Spec: corev1.ResourceQuotaSpec{Hard: hard, Scopes: scopes},
		Status: corev1.ResourceQuotaStatus{Hard: hard, Used: used}}
}

func TestResourceQuota(t *testing.T) {
	cpu := with(resources("cpu", "1"), resources("cpu", "1"))
	deadline := int64(10)
	nodePort := &corev1.Service{ObjectMeta: inA("s"), Spec: corev1.ServiceSpec{Type: "NodePort", Ports: make([]corev1.ServicePort, 2)}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: inA("c"), Spec: corev1.PersistentVolumeClaimSpec{Resources: corev1.VolumeResourceRequirements{Requests: resources("storage", "2Gi")}}}
	gold := claim.DeepCopy()
	gold.Spec.StorageClassName = new(string)
	*gold.Spec.StorageClassName = "gold"
	for _, c := range []struct {
		name string
		q    *corev1.ResourceQuota
		r    *admission.Request
		want string
		used string
	}{
		{"room", quotaOf(resources("pods", "2"), resources("pods", "1")), create(newPod()), "", "pods=2"},
		{"no room", quotaOf(resources("pods", "1"), resources("pods", "1")), create(newPod()), `pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1`, "pods=1"},
		{"cpu", quotaOf(resources("requests.cpu", "3", "limits.cpu", "3"), resources("requests.cpu", "1", "limits.cpu", "1")), create(newPod(cpu)), "", "limits.cpu=2,requests.cpu=2"},
		{"too much cpu", quotaOf(resources("cpu", "1500m"), resources("cpu", "1")), create(newPod(cpu)), "exceeded quota: q, requested: cpu=1, used: cpu=1, limited: cpu=1500m", "cpu=1"},
		{"unspecified", quotaOf(resources("limits.cpu", "1", "requests.memory", "1"), resources("limits.cpu", "0", "requests.memory", "0")), create(newPod()), "failed quota: q: must specify limits.cpu for: c; requests.memory for: c", ""},
		{"unknown", quotaOf(resources("pods", "1"), nil), create(newPod()), "status unknown for quota: q, resources: pods", ""},
		{"not its scope", quotaOf(resources("pods", "1"), resources("pods", "1"), "Terminating"), create(newPod()), "", "pods=1"},
		{"its scope", quotaOf(resources("pods", "1"), resources("pods", "1"), "Terminating"), create(newPod(func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &deadline })), "exceeded quota", ""},
		{"best effort", quotaOf(resources("pods", "1"), resources("pods", "1"), "BestEffort"), create(newPod(cpu)), "", "pods=1"},
		{"services", quotaOf(resources("services", "5", "services.nodeports", "1"), resources("services", "0", "services.nodeports", "0")), create(nodePort), "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1", ""},
		{"storage", quotaOf(resources("requests.storage", "3Gi", "persistentvolumeclaims", "2"), resources("requests.storage", "0", "persistentvolumeclaims", "0")), create(claim), "", "persistentvolumeclaims=1,requests.storage=2Gi"},
		{"a class", quotaOf(resources("gold.storageclass.storage.k8s.io/requests.storage", "1Gi"), resources("gold.storageclass.storage.k8s.io/requests.storage", "0")), create(gold), "exceeded quota", ""},
		{"count", quotaOf(resources("count/deployments.apps", "1"), resources("count/deployments.apps", "1")), create(&appsv1.Deployment{ObjectMeta: inA("d")}), "requested: count/deployments.apps=1", ""},
		{"config maps", quotaOf(resources("configmaps", "2", "count/configmaps", "2"), resources("configmaps", "1", "count/configmaps", "1")), create(&corev1.ConfigMap{ObjectMeta: inA("c")}), "", "configmaps=2,count/configmaps=2"},
		{"extended", quotaOf(resources("requests.example.com/gpu", "1"), resources("requests.example.com/gpu", "0")), create(newPod(with(resources("example.com/gpu", "2"), resources("example.com/gpu", "2")))), "requested: requests.example.com/gpu=2", ""},
		{"a grown claim", quotaOf(resources("requests.storage", "3Gi"), resources("requests.storage", "2Gi")), func() *admission.Request {
			big := claim.DeepCopy()
			big.Spec.Resources.Requests = resources("storage", "3Gi")
			return update(big, claim, "")
		}(), "", "requests.storage=3Gi"},
		{"dry run", quotaOf(resources("pods", "2"), resources("pods", "1")), func() *admission.Request { r := create(newPod()); r.DryRun = true; return r }(), "", "pods=1"},
		{"deployment update", quotaOf(resources("count/deployments.apps", "1"), resources("count/deployments.apps", "1")), update(&appsv1.Deployment{ObjectMeta: inA("d")}, &appsv1.Deployment{ObjectMeta: inA("d")}, ""), "", ""},
	} {
		st := memstore.New(c.q)
		expect(t, c.name, run(t, &resourceQuota{st: st, now: time.Now}, c.r), c.want)
		q, _ := read.Get[*corev1.ResourceQuota](st, "a", "q")
		if got := joinList(q.Status.Used); c.used != "" && got != c.used {
			t.Errorf("%s: used %s, want %s", c.name, got, c.used)
		}
	}
}

// TestQuotaUnderLoad has two servers let pods in at the same time: the quota must be met exactly.
func TestQuotaUnderLoad(t *testing.T) {
	st := memstore.New(quotaOf(resources("pods", "10"), resources("pods", "0")))
	servers := []*resourceQuota{{st: st, now: time.Now}, {st: st, now: time.Now}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for i := range 30 {
		wg.Go(func() {
			o := newPod(func(p *corev1.Pod) { p.ObjectMeta = metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprint("p", i)} })
			if err := run(t, servers[i%2], create(o)); err == nil {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	q, _ := read.Get[*corev1.ResourceQuota](st, "a", "q")
	if used := q.Status.Used["pods"]; in != 10 || used.Value() != 10 {
		t.Errorf("%d pods came in, %s are booked", in, used.String())
	}
}
