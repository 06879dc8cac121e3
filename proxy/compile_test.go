package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func service(name, ip string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
	if change != nil {
		change(s)
	}
	return s
}

// ep is an endpoint written as "address node state hint", of which the last three may be missing: state is one of
// "ready", "ending" (serving, terminating), "unready"; hint is a zone, or "@node".
func ep(text string) discoveryv1.Endpoint {
	f := append(strings.Fields(text), "", "", "")
	yes, no := true, false
	e := discoveryv1.Endpoint{Addresses: f[:1]}
	if f[1] != "" {
		e.NodeName = &f[1]
	}
	switch f[2] {
	case "ending":
		e.Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
	case "unready":
		e.Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &no}
	}
	if node, ok := strings.CutPrefix(f[3], "@"); ok {
		e.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: node}}}
	} else if f[3] != "" {
		e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: f[3]}}}
	}
	return e
}

func slice(svc *corev1.Service, port int32, eps ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name + "-1",
		Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}}, AddressType: discoveryv1.AddressTypeIPv4}
	for i := range svc.Spec.Ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &svc.Spec.Ports[i].Name, Port: &port})
	}
	for _, e := range eps {
		s.Endpoints = append(s.Endpoints, ep(e))
	}
	return s
}

func TestCompile(t *testing.T) {
	nodePort := func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	}
	local := func(s *corev1.Service) {
		nodePort(s)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	for _, tt := range []struct {
		name   string
		change func(*corev1.Service)
		eps    []string
		want   string
	}{
		{"cluster address", nil, []string{"10.1.0.2 n1", "10.1.1.2 n2", "10.1.1.2 n2", "10.1.0.3 n1 unready"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			chain svc, masquerade outside: [10.1.0.2:8080 10.1.1.2:8080]
			hairpins 10.1.0.2
			hairpins 10.1.0.3`},
		{"nobody answers", nodePort, []string{"10.1.0.3 n2 unready"}, `
			10.96.0.9:80/tcp -> reject
			cluster-ips 10.96.0.9
			node:30080/tcp -> reject`},
		{"endpoints that go away serve when no other does", nil, []string{"10.1.1.2 n2 ending", "10.1.1.3 n2 unready"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			chain svc, masquerade outside: [10.1.1.2:8080]`},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, []string{"10.1.0.2 n1"}, ``},
		{"another proxy's", func(s *corev1.Service) { s.Labels = map[string]string{labelProxyName: "other"} }, []string{"10.1.0.2 n1"}, ``},
		{"said to be headless", func(s *corev1.Service) { s.Labels = map[string]string{corev1.IsHeadlessService: ""} }, []string{"10.1.0.2 n1"}, ``},
		{"external name", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ClusterIP, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "", "example.com"
		}, nil, ``},
		{"node port", nodePort, []string{"10.1.1.2 n2"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			node:30080/tcp -> ext
			chain ext, masquerade: [10.1.1.2:8080]
			chain svc, masquerade outside: [10.1.1.2:8080]`},
		{"node port, local", local, []string{"10.1.0.2 n1", "10.1.1.2 n2"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			node:30080/tcp -> ext
			chain ext, insiders svc: [10.1.0.2:8080]
			chain svc, masquerade outside: [10.1.0.2:8080 10.1.1.2:8080]
			hairpins 10.1.0.2`},
		{"node port, local, all elsewhere", local, []string{"10.1.1.2 n2"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			node:30080/tcp -> ext
			chain ext, insiders svc: []
			chain svc, masquerade outside: [10.1.1.2:8080]`},
		{"internal, local", func(s *corev1.Service) {
			l := corev1.ServiceInternalTrafficPolicyLocal
			s.Spec.InternalTrafficPolicy = &l
		}, []string{"10.1.0.2 n1 ending", "10.1.1.2 n2"}, `
			10.96.0.9:80/tcp -> int
			cluster-ips 10.96.0.9
			chain int, masquerade outside: [10.1.0.2:8080]
			hairpins 10.1.0.2`},
		{"load balancer with source ranges and affinity", func(s *corev1.Service) {
			nodePort(s)
			s.Spec.Type, s.Spec.SessionAffinity = corev1.ServiceTypeLoadBalancer, corev1.ServiceAffinityClientIP
			s.Spec.LoadBalancerSourceRanges, s.Spec.ExternalIPs = []string{"198.51.100.0/24"}, []string{"203.0.113.5", "2001:db8::1"}
			proxy := corev1.LoadBalancerIPModeProxy
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}, {IP: "203.0.113.2", IPMode: &proxy}}
		}, []string{"10.1.1.2 n2"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			203.0.113.1:80/tcp -> lb
			203.0.113.5:80/tcp -> ext
			node:30080/tcp -> ext
			chain ext, masquerade, affinity 3h0m0s: [10.1.1.2:8080]
			chain lb, allow [198.51.100.0/24], masquerade, affinity 3h0m0s: [10.1.1.2:8080]
			chain svc, masquerade outside, affinity 3h0m0s: [10.1.1.2:8080]`},
		{"zone", nil, []string{"10.1.1.2 n2 ready east", "10.1.1.3 n2 ready west", "10.1.1.4 n2 ending"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			chain svc, masquerade outside: [10.1.1.3:8080]`},
		{"a zone with an endpoint that has none", nil, []string{"10.1.1.2 n2 ready east", "10.1.1.3 n2 ready west", "10.1.1.4 n2"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			chain svc, masquerade outside: [10.1.1.2:8080 10.1.1.3:8080 10.1.1.4:8080]`},
		{"nothing in the zone", nil, []string{"10.1.1.2 n2 ready east"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			chain svc, masquerade outside: [10.1.1.2:8080]`},
		{"node", nil, []string{"10.1.1.2 n2 ready @n2", "10.1.0.3 n1 ready @n1"}, `
			10.96.0.9:80/tcp -> svc
			cluster-ips 10.96.0.9
			chain svc, masquerade outside: [10.1.0.3:8080]
			hairpins 10.1.0.3`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			svc := service("s", "10.96.0.9", tt.change)
			r := newRuleSet()
			r.set("ns/s", compile(svc, []*discoveryv1.EndpointSlice{slice(svc, 8080, tt.eps...)}, nodeFacts{"n1", "west"}), newChange())
			got := r.state.String()
			for kind := range strings.FieldsSeq("svc ext int lb") {
				got = strings.ReplaceAll(got, chainName(kind, svc, &svc.Spec.Ports[0]), kind)
			}
			want := strings.ReplaceAll(strings.TrimSpace(tt.want), "\t", "")
			if strings.TrimSpace(got) != sorted(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func sorted(lines string) string {
	list := strings.Split(lines, "\n")
	slices.Sort(list)
	return strings.Join(list, "\n")
}

func TestChainNamesFit(t *testing.T) {
	svc := service(strings.Repeat("s", 63), "10.96.0.9", nil)
	svc.Namespace = strings.Repeat("n", 63)
	if n := chainName("svc", svc, &svc.Spec.Ports[0]); len(n) > 120 {
		t.Errorf("%d characters: %s", len(n), n)
	}
}

func TestArrangeMovesAsFewAsPossible(t *testing.T) {
	list := func(text string) (out []backend) {
		for _, c := range text {
			out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(c)}), 80))
		}
		return out
	}
	for _, tt := range []struct{ before, want, out string }{
		{"", "abc", "abc"}, {"abc", "abc", "abc"}, {"abc", "bc", "cb"}, {"abc", "bcd", "dbc"}, {"abc", "abcd", "abcd"},
		{"abcd", "e", "e"}, {"abcd", "", ""}, {"abc", "xyz", "xyz"},
	} {
		if got := arrange(list(tt.before), list(tt.want)); fmt.Sprint(got) != fmt.Sprint(list(tt.out)) {
			t.Errorf("%s to %s: %v", tt.before, tt.want, got)
		}
	}
}

func TestAContestedFrontGoesToTheFirstByName(t *testing.T) {
	ext := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.5"} }
	r := newRuleSet()
	put := func(name, ip string) {
		svc := service(name, ip, ext)
		r.set("ns/"+name, compile(svc, []*discoveryv1.EndpointSlice{slice(svc, 8080, "10.1.1.2 n2")}, nodeFacts{name: "n1"}), newChange())
	}
	owner := func() string { return r.state.fronts[front{netip.MustParseAddr("203.0.113.5"), tcp, 80}] }
	put("b", "10.96.0.2")
	put("a", "10.96.0.1")
	if !strings.Contains(owner(), "ns/a:") {
		t.Errorf("both claim it, and %s has it", owner())
	}
	c := newChange()
	r.set("ns/a", rules{}, c)
	if !strings.Contains(owner(), "ns/b:") || len(c.fronts) != 2 {
		t.Errorf("a is gone, and %s has it; changed: %v", owner(), c.fronts)
	}
	r.set("ns/b", rules{}, c)
	if s := r.state.String(); s != "\n" || len(r.claims)+len(r.services) > 0 {
		t.Errorf("left: %s, %v", s, r.claims)
	}
}
