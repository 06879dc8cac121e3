package spec

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testNode() *Node {
	return &Node{Name: "n", ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", Memory: 8 << 30,
		HostDNS: DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"example.com"}}}
}

func testPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst,
		Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

func TestDNS(t *testing.T) {
	cluster := DNS{[]string{"10.96.0.10"}, []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"}, []string{"ndots:5"}}
	host := DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"example.com"}}
	for name, tt := range map[string]struct {
		edit func(*corev1.PodSpec)
		want DNS
	}{
		"cluster first":               {func(*corev1.PodSpec) {}, cluster},
		"the node's network":          {func(s *corev1.PodSpec) { s.HostNetwork = true }, host},
		"the node's network, and yet": {func(s *corev1.PodSpec) { s.HostNetwork, s.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet }, cluster},
		"default":                     {func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSDefault }, host},
		"none": {func(s *corev1.PodSpec) {
			s.DNSPolicy = corev1.DNSNone
			s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"x"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}}}
		}, DNS{[]string{"1.1.1.1"}, []string{"x"}, []string{"ndots:2", "edns0"}}},
		"an option that is there": {func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("1")}}}
		}, DNS{cluster.Servers, cluster.Searches, []string{"ndots:1"}}},
	} {
		p := testPod()
		tt.edit(&p.Spec)
		if got := testNode().DNS(p); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestHostname(t *testing.T) {
	p := testPod()
	p.Spec.Hostname, p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "h", "sub", new(true)
	if got, err := Hostname(p, "n", "cluster.local"); err != nil || got != "h.sub.ns.svc.cluster.local" {
		t.Errorf("%q, %v", got, err)
	}
	p.Spec.Hostname = strings.Repeat("h", 50)
	if got, err := Hostname(p, "n", "cluster.local"); err == nil {
		t.Errorf("%q is too long", got)
	}
	p = testPod()
	p.Name = strings.Repeat("a", 62) + "-b"
	if got := ShortName(p); got != strings.Repeat("a", 62) {
		t.Errorf("%q", got)
	}
}

func TestNonRoot(t *testing.T) {
	uid := func(n int64) *int64 { return &n }
	for name, tt := range map[string]struct {
		user *int64
		img  ImageUser
		want string
	}{
		"a user":             {uid(5), ImageUser{}, ""},
		"root":               {uid(0), ImageUser{}, "container's runAsUser breaks non-root policy"},
		"an image of root":   {nil, ImageUser{UID: uid(0)}, "container has runAsNonRoot and image will run as root"},
		"an image of a name": {nil, ImageUser{Name: "web"}, "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root"},
		"an image of a user": {nil, ImageUser{UID: uid(7)}, ""},
	} {
		p := testPod()
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: tt.user}
		_, err := testNode().Container(p, &p.Spec.Containers[0], Extra{Image: "i", ImageUser: tt.img})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResources(t *testing.T) {
	p := testPod()
	c := &p.Spec.Containers[0]
	if r := testNode().Resources(p, c); r.CpuShares != 2 || r.CpuQuota != 0 || r.OomScoreAdj != 1000 {
		t.Errorf("best effort: %v", r)
	}
	c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m"), corev1.ResourceMemory: resource.MustParse("2Gi")}
	if r := testNode().Resources(p, c); r.CpuShares != 256 || r.OomScoreAdj != 750 {
		t.Errorf("burstable: %v", r)
	}
	c.Resources.Limits = c.Resources.Requests
	if r := testNode().Resources(p, c); r.CpuQuota != 25000 || r.MemoryLimitInBytes != 2<<30 || r.OomScoreAdj != -997 {
		t.Errorf("guaranteed: %v", r)
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add("nameserver 1.1.1.1\nsearch a. b\noptions ndots:2")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseResolvConf(strings.NewReader(s)); err == nil {
			for _, v := range append(d.Servers, d.Searches...) {
				if strings.ContainsAny(v, " \t\n") {
					t.Errorf("%q", v)
				}
			}
		}
	})
}
