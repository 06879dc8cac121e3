package alloc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

func newAllocator(cidr string, ports [2]int) (*Allocator, *memstore.Store) {
	st := memstore.New()
	a := New(st, []netip.Prefix{netip.MustParsePrefix(cidr)}, ports)
	a.random = func(int) int { return 0 }
	return a, st
}

func service(name string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"app": "x"},
			Ports: []corev1.ServicePort{{Name: "p", Port: 80, Protocol: "TCP"}}}}
	for _, f := range change {
		f(&s.Spec)
	}
	return s
}

func ofType(t corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type = t }
}
func withIP(ip string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP = ip }
}
func withPort(p int32) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = p }
}

// put claims and stores a Service.
func put(t *testing.T, a *Allocator, st *memstore.Store, s, old *corev1.Service) *corev1.Service {
	t.Helper()
	s = s.DeepCopy()
	var done func(bool)
	var err error
	if old == nil {
		done, err = a.Claim(t.Context(), s, nil, false)
	} else {
		done, err = a.Claim(t.Context(), s, old, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := st.Put(s).(*corev1.Service)
	done(true)
	return out
}

func ips(st *memstore.Store) []string {
	var out []string
	for ip := range read.All[*networkingv1.IPAddress](st, "") {
		out = append(out, ip.Name)
	}
	return out
}

func TestCreate(t *testing.T) {
	a, st := newAllocator("10.96.0.0/16", [2]int{})
	s := put(t, a, st, service("web"), nil)
	if s.Spec.ClusterIP != "10.96.1.1" || !slices.Equal(s.Spec.ClusterIPs, []string{"10.96.1.1"}) || *s.Spec.IPFamilyPolicy != "SingleStack" || s.Spec.IPFamilies[0] != "IPv4" {
		t.Errorf("%+v", s.Spec)
	}
	ip, _ := read.Get[*networkingv1.IPAddress](st, "", "10.96.1.1")
	if ip == nil || *ip.Spec.ParentRef != (networkingv1.ParentReference{Resource: "services", Namespace: "a", Name: "web"}) ||
		ip.Labels["ipaddress.kubernetes.io/managed-by"] != "ipallocator.k8s.io" || ip.Labels["ipaddress.kubernetes.io/ip-family"] != "IPv4" || ip.UID == "" {
		t.Errorf("%+v", ip)
	}
	if s := put(t, a, st, service("two"), nil); s.Spec.ClusterIP != "10.96.1.2" {
		t.Errorf("%s", s.Spec.ClusterIP)
	}
	if s := put(t, a, st, service("api", withIP("10.96.0.1")), nil); s.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("%s", s.Spec.ClusterIP)
	}
	if s := put(t, a, st, service("none", withIP("None")), nil); s.Spec.ClusterIP != "None" || !slices.Equal(s.Spec.ClusterIPs, []string{"None"}) || *s.Spec.IPFamilyPolicy != "SingleStack" {
		t.Errorf("%+v", s.Spec)
	}
	alone := service("alone", withIP("None"))
	alone.Spec.Selector = nil
	if s := put(t, a, st, alone, nil); *s.Spec.IPFamilyPolicy != "RequireDualStack" || len(s.Spec.IPFamilies) != 2 {
		t.Errorf("%+v", s.Spec)
	}
	if s := put(t, a, st, service("ext", ofType(corev1.ServiceTypeExternalName)), nil); s.Spec.ClusterIP != "" || s.Spec.IPFamilies != nil {
		t.Errorf("%+v", s.Spec)
	}
	if s := put(t, a, st, service("np", ofType(corev1.ServiceTypeNodePort)), nil); s.Spec.Ports[0].NodePort != 30086 {
		t.Errorf("%+v", s.Spec.Ports)
	}
	lb := service("lb", ofType(corev1.ServiceTypeLoadBalancer))
	lb.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	if s := put(t, a, st, lb, nil); s.Spec.Ports[0].NodePort != 30087 || s.Spec.HealthCheckNodePort != 30088 {
		t.Errorf("%+v", s.Spec)
	}
	both := service("both", ofType(corev1.ServiceTypeNodePort))
	both.Spec.Ports = []corev1.ServicePort{{Name: "t", Port: 53, Protocol: "TCP"}, {Name: "u", Port: 53, Protocol: "UDP", NodePort: 30053}}
	if s := put(t, a, st, both, nil); s.Spec.Ports[0].NodePort != 30053 {
		t.Errorf("one port in two protocols: %+v", s.Spec.Ports)
	}
	if len(a.taken) != 0 {
		t.Errorf("reservations left: %v", a.taken)
	}
}

func TestRefusals(t *testing.T) {
	a, st := newAllocator("10.96.0.0/16", [2]int{})
	put(t, a, st, service("x", withIP("10.96.0.7"), ofType(corev1.ServiceTypeNodePort), withPort(30007)), nil)
	before := len(ips(st))
	dual := corev1.IPFamilyPolicyRequireDualStack
	for _, c := range []struct {
		s    *corev1.Service
		want string
	}{
		{service("y", withIP("10.96.0.7")), `Service "y" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.7"]: failed to allocate IP 10.96.0.7: provided IP is already allocated`},
		{service("y", withIP("10.97.0.7")), "failed to allocate IP 10.97.0.7: the provided network does not match the current range"},
		{service("y", withIP("10.96.0.0")), "the provided IP (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/16"},
		{service("y", withIP("x")), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"},
		{service("y", withIP("fd00::1")), "IPv6 is not configured on this cluster"},
		{service("y", func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &dual }), "this cluster is not configured for dual-stack services"},
		{service("y", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{"IPv6"} }), "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"},
		{service("y", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{"IPv9"} }), `spec.ipFamilies[0]: Unsupported value: "IPv9": supported values: "IPv4", "IPv6"`},
		{service("y", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{"IPv4", "IPv4"} }), `is invalid: spec.ipFamilies[1]: Duplicate value: "IPv4"`},
		{service("y", ofType(corev1.ServiceTypeNodePort), func(s *corev1.ServiceSpec) {
			s.Ports = []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30100}, {Name: "b", Port: 81, NodePort: 30100}}
		}), "spec.ports[1].nodePort: Invalid value: 30100: provided port is already allocated"},
		{service("y", ofType(corev1.ServiceTypeNodePort), withPort(30007)), `spec.ports[0].nodePort: Invalid value: 30007: provided port is already allocated`},
		{service("y", ofType(corev1.ServiceTypeNodePort), withPort(80)), "provided port is not in the valid range. The range of valid ports is 30000-32767"},
	} {
		_, err := a.Claim(t.Context(), c.s, nil, false)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
	if got := ips(st); len(got) != before || len(a.taken) != 0 {
		t.Errorf("refused claims left %v %v", got, a.taken)
	}
}

func TestFailedWriteGivesBack(t *testing.T) {
	a, st := newAllocator("10.96.0.0/16", [2]int{30000, 30000})
	done, err := a.Claim(t.Context(), service("x", ofType(corev1.ServiceTypeNodePort)), nil, false)
	if err != nil || len(ips(st)) != 1 {
		t.Fatal(err, ips(st))
	}
	if _, err := a.Claim(t.Context(), service("y", ofType(corev1.ServiceTypeNodePort)), nil, false); err == nil || !strings.Contains(err.Error(), "range is full") {
		t.Errorf("the only port is under way: %v", err)
	}
	done(false)
	if len(ips(st)) != 0 {
		t.Errorf("left %v", ips(st))
	}
	put(t, a, st, service("y", ofType(corev1.ServiceTypeNodePort)), nil)
}

func TestUpdateAndDelete(t *testing.T) {
	a, st := newAllocator("10.96.0.0/16", [2]int{})
	old := put(t, a, st, service("x", ofType(corev1.ServiceTypeNodePort)), nil)
	ip, port := old.Spec.ClusterIP, old.Spec.Ports[0].NodePort

	// A replacement that leaves the allocated values out keeps them.
	next := put(t, a, st, service("x", ofType(corev1.ServiceTypeNodePort)), old)
	if next.Spec.ClusterIP != ip || next.Spec.Ports[0].NodePort != port || *next.Spec.IPFamilyPolicy != "SingleStack" {
		t.Errorf("%+v", next.Spec)
	}
	// To a cluster address alone.
	plain := next.DeepCopy()
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	next = put(t, a, st, plain, next)
	if next.Spec.ClusterIP != ip || next.Spec.Ports[0].NodePort != 0 {
		t.Errorf("%+v", next.Spec)
	}
	// To an external name: the address goes.
	ext := next.DeepCopy()
	ext.Spec.Type, ext.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
	next = put(t, a, st, ext, next)
	if next.Spec.ClusterIP != "" || next.Spec.ClusterIPs != nil || next.Spec.IPFamilies != nil || next.Spec.IPFamilyPolicy != nil || len(ips(st)) != 0 {
		t.Errorf("%+v %v", next.Spec, ips(st))
	}
	// And back.
	back := next.DeepCopy()
	back.Spec.Type, back.Spec.ExternalName = corev1.ServiceTypeNodePort, ""
	next = put(t, a, st, back, next)
	if next.Spec.ClusterIP == "" || next.Spec.Ports[0].NodePort == 0 || len(ips(st)) != 1 {
		t.Errorf("%+v %v", next.Spec, ips(st))
	}
	// A failed update keeps what the stored one has.
	ext = next.DeepCopy()
	ext.Spec.Type = corev1.ServiceTypeExternalName
	done, err := a.Claim(t.Context(), ext, next, false)
	if err != nil {
		t.Fatal(err)
	}
	done(false)
	if len(ips(st)) != 1 {
		t.Error("a failed update released the address")
	}
	done, err = a.Claim(t.Context(), nil, next, false)
	if err != nil {
		t.Fatal(err)
	}
	st.Remove(next)
	done(true)
	if len(ips(st)) != 0 {
		t.Errorf("left %v", ips(st))
	}
}

func TestDryRun(t *testing.T) {
	a, st := newAllocator("10.96.0.0/16", [2]int{})
	s := service("x", ofType(corev1.ServiceTypeNodePort))
	done, err := a.Claim(t.Context(), s, nil, true)
	if err != nil || s.Spec.ClusterIP == "" || s.Spec.Ports[0].NodePort == 0 {
		t.Fatal(err, s.Spec)
	}
	done(true)
	if len(ips(st)) != 0 || len(a.taken) != 0 {
		t.Errorf("a dry run kept %v %v", ips(st), a.taken)
	}
}

func TestOrphanIsTakenOver(t *testing.T) {
	a, st := newAllocator("10.96.0.0/16", [2]int{})
	if _, err := a.Claim(t.Context(), service("dead", withIP("10.96.0.9")), nil, false); err != nil {
		t.Fatal(err) // and its server dies here
	}
	if _, err := a.Claim(t.Context(), service("x", withIP("10.96.0.9")), nil, false); err == nil {
		t.Error("a claim that may be under way was taken over")
	}
	a.now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	put(t, a, st, service("x", withIP("10.96.0.9")), nil)
}

func TestConcurrentClaimsDiffer(t *testing.T) {
	a, st := newAllocator("10.96.0.0/24", [2]int{30000, 30099})
	b := New(st, a.cidrs, a.ports) // another server
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	ports := map[int32]int{}
	for i := range 60 {
		wg.Go(func() {
			s := service(fmt.Sprint("s", i), ofType(corev1.ServiceTypeNodePort))
			alloc := a
			if i%2 == 0 {
				alloc, s.Spec.Type = b, corev1.ServiceTypeClusterIP
			}
			done, err := alloc.Claim(t.Context(), s, nil, false)
			if err != nil {
				t.Error(err)
				return
			}
			st.Put(s)
			done(true)
			mu.Lock()
			defer mu.Unlock()
			if seen[s.Spec.ClusterIP] {
				t.Errorf("%s twice", s.Spec.ClusterIP)
			}
			seen[s.Spec.ClusterIP] = true
			if p := s.Spec.Ports[0].NodePort; p != 0 {
				if ports[p]++; ports[p] > 1 {
					t.Errorf("port %d twice", p)
				}
			}
		})
	}
	wg.Wait()
}

func TestMoreRanges(t *testing.T) {
	a, st := newAllocator("10.96.0.0/30", [2]int{})
	put(t, a, st, service("a"), nil)
	put(t, a, st, service("b"), nil)
	if _, err := a.Claim(t.Context(), service("c"), nil, false); err == nil {
		t.Fatal("a /30 has two addresses")
	}
	st.Put(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.97.0.0/28"}},
		Status: networkingv1.ServiceCIDRStatus{Conditions: []metav1.Condition{{Type: "Ready", Status: "True"}}}})
	if s := put(t, a, st, service("c"), nil); s.Spec.ClusterIP != "10.97.0.1" {
		t.Errorf("%s", s.Spec.ClusterIP)
	}
}

// Two servers that share a store give out every node port once, and all of them.
func TestServersShareNodePorts(t *testing.T) {
	a, st := newAllocator("10.96.0.0/24", [2]int{30000, 30063})
	b := New(st, a.cidrs, a.ports)
	for _, one := range []*Allocator{a, b} {
		one.random = func(int) int { return 0 } // they always want the same port
		if err := one.Share(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	ports := map[int32]string{}
	for i := range 64 {
		wg.Go(func() {
			s := service(fmt.Sprint("s", i), ofType(corev1.ServiceTypeNodePort))
			done, err := []*Allocator{a, b}[i%2].Claim(t.Context(), s, nil, false)
			if err != nil {
				t.Error(err)
				return
			}
			st.Put(s)
			done(true)
			mu.Lock()
			defer mu.Unlock()
			p := s.Spec.Ports[0].NodePort
			if other := ports[p]; other != "" {
				t.Errorf("%s and %s have the port %d", s.Name, other, p)
			}
			ports[p] = s.Name
		})
	}
	wg.Wait()
	if left := st.Snapshot(claimsPrefix).Len(claimsPrefix); left != 0 {
		t.Errorf("%d claims are left", left)
	}
}
