package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/internal/netlab"
	"github.com/skiff-sh/skiff/internal/nft"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// lab is a node with two pods on a bridge and a client in the world outside.
type lab struct {
	t           *testing.T
	api         *clienttest.API
	proxy       *Proxy
	a, b, world *netlab.Host
}

const nodeIP = "192.0.2.1"

func newLab(t *testing.T) *lab {
	netlab.Need(t)
	for path, v := range map[string]string{"net/ipv4/ip_forward": "1", "net/bridge/bridge-nf-call-iptables": "1"} {
		if err := os.WriteFile("/proc/sys/"+path, []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l := &lab{t: t, a: netlab.NewHost(t, "a"), b: netlab.NewHost(t, "b"), world: netlab.NewHost(t, "world")}
	netlab.NewBridge(t, "pods0", netip.MustParsePrefix("10.1.0.1/24"))
	netlab.NewBridge(t, "uplink", netip.MustParsePrefix(nodeIP+"/24"))
	l.a.Plug(t, "pods0", netip.MustParsePrefix("10.1.0.2/24"), netip.MustParseAddr("10.1.0.1"))
	l.b.Plug(t, "pods0", netip.MustParsePrefix("10.1.0.3/24"), netip.MustParseAddr("10.1.0.1"))
	l.world.Plug(t, "uplink", netip.MustParsePrefix("192.0.2.9/24"), netip.MustParseAddr(nodeIP))
	for _, h := range []*netlab.Host{l.a, l.b} {
		h.Listen(t, "tcp", ":8080")
		h.Listen(t, "udp", ":8080")
	}
	// As everywhere, services have no route of their own: the default route takes them as far as the rules.
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(192, 0, 2, 254)}); err != nil {
		t.Fatal(err)
	}
	l.api = clienttest.New(nil, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	caches := client.NewCaches(l.api, nil)
	var err error
	l.proxy, err = New(Config{Caches: caches, NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr(nodeIP)},
		ClusterCIDR: netip.MustParsePrefix("10.1.0.0/16"), Table: "skiff-test-proxy"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- caches.Run(ctx) }()
	go func() { ended <- l.proxy.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
		for range 2 {
			if err := Purge(context.Background(), l.proxy.cfg); err != nil {
				t.Error(err)
			}
		}
		if there, err := nft.HasTable("skiff-test-proxy"); there || err != nil {
			t.Errorf("the table is left: %v %v", there, err)
		}
	})
	return l
}

// put creates or replaces a service and its endpoints, and waits until the kernel has it.
func (l *lab) put(svc *corev1.Service, port int32, eps ...string) {
	l.t.Helper()
	sl := slice(svc, port, eps...)
	l.api.Put(svc)
	l.api.Put(sl)
	r := newRuleSet()
	r.set("x", compile(svc, []*discoveryv1.EndpointSlice{sl}, nodeFacts{name: "n1"}), newChange())
	for range 500 {
		if got := kernel(l.t, "skiff-test-proxy"); containsAll(got, r.state.fronts) && containsAll(got, backendsOf(r.state)) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("the kernel never had\n%s\nbut\n%s", r.state, kernel(l.t, "skiff-test-proxy"))
}

func backendsOf(s *state) map[string]string {
	out := map[string]string{}
	for name, c := range s.chains {
		out[name] = fmt.Sprint(slices.SortedFunc(slices.Values(c.backends), backend.Compare))
	}
	return out
}

func containsAll[K comparable](text string, lines map[K]string) bool {
	for k, v := range lines {
		if !strings.Contains(text, fmt.Sprintf("%v -> %s\n", k, v)) {
			return false
		}
	}
	return true
}

// kernel renders the table as it is: where fronts lead, the backends of every chain, and the rules. A table
// that is changing at the moment is an error's text.
func kernel(t *testing.T, name string) string {
	t.Helper()
	conn, err := nft.Conn()
	if err != nil {
		t.Fatal(err)
	}
	tab := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: name}
	sets, err := conn.GetSets(tab)
	if err != nil {
		return err.Error()
	}
	var lines []string
	port := func(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }
	at := func(b []byte) backend {
		a, _ := netip.AddrFromSlice(b[:4])
		return netip.AddrPortFrom(a, port(b[4:]))
	}
	for _, s := range sets {
		elements, err := conn.GetSetElements(s)
		if err != nil {
			return err.Error()
		}
		var backends []backend
		for _, e := range elements {
			to := reject
			if len(e.Val) > 12 { // two attributes, the verdict's code and its chain
				to, _, _ = strings.Cut(string(e.Val[12:]), "\x00")
			}
			switch {
			case s.Name == fronts || s.Name == refuse:
				lines = append(lines, fmt.Sprintf("%v -> %s", front{at(e.Key).Addr(), e.Key[4], port(e.Key[8:])}, to))
			case s.Name == nodeFronts || s.Name == nodeRefuse:
				lines = append(lines, fmt.Sprintf("%v -> %s", front{protocol: e.Key[0], port: port(e.Key[4:])}, to))
			case strings.HasPrefix(s.Name, "of-"):
				b := at(e.Val)
				if _, name, ok := strings.Cut(to, "@"); ok { // a chain of its own
					b = netip.MustParseAddrPort(name)
				}
				backends = append(backends, b)
			case s.Name == hairpins:
				lines = append(lines, "hairpins "+at(append(e.Key[:4:4], 0, 0)).Addr().String())
			case s.Name == virtual:
				lines = append(lines, "cluster-ips "+at(append(e.Key[:4:4], 0, 0)).Addr().String())
			}
		}
		slices.SortFunc(backends, backend.Compare)
		if chain, ok := strings.CutPrefix(s.Name, "of-"); ok {
			lines = append(lines, fmt.Sprintf("%s -> %v", chain, backends))
		} else if strings.HasPrefix(s.Name, "by-") {
			lines = append(lines, fmt.Sprintf("%s lasts %v", s.Name, s.Timeout))
		}
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		t.Fatal(err)
	}
	for _, ch := range chains {
		if ch.Table.Name != name {
			continue
		}
		rules, err := conn.GetRules(tab, ch)
		if err != nil {
			return err.Error()
		}
		for i, r := range rules {
			line := fmt.Sprintf("rule %s %d:", ch.Name, i)
			for _, e := range r.Exprs {
				if l, ok := e.(*expr.Lookup); ok {
					l.SetID = 0
				}
				line += fmt.Sprintf(" %T%+v", e, e)
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// answers asks n times and returns who answered, sorted, and the last peer's address.
func answers(n int, ask func() (string, string)) (names []string, peer string) {
	for range n {
		name, at := ask()
		peer, _, _ = strings.Cut(at, ":")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, peer
}

func (l *lab) expect(what string, n int, from *netlab.Host, network, addr, want, wantPeer string) {
	l.t.Helper()
	ask := netlab.Ask
	if from != nil {
		ask = from.Ask
	}
	names, peer := answers(n, func() (string, string) { return ask(network, addr) })
	if got := strings.Join(names, " "); got != want || wantPeer != "" && peer != wantPeer {
		l.t.Errorf("%s: %s answered and saw %s; want %s and %s", what, got, peer, want, wantPeer)
	}
}

func TestConnections(t *testing.T) {
	l := newLab(t)
	const both1, both2 = "10.1.0.2 n1", "10.1.0.3 n1"
	web := func(change func(*corev1.Service)) *corev1.Service {
		return service("web", "10.96.0.9", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
			if change != nil {
				change(s)
			}
		})
	}
	l.put(web(nil), 8080, both1, both2)
	l.expect("pod to service", 40, l.b, "tcp", "10.96.0.9:80", "a b", "")
	l.expect("world to node port", 40, l.world, "tcp", nodeIP+":30080", "a b", "10.1.0.1")
	l.expect("pod to node port", 40, l.a, "tcp", nodeIP+":30080", "a b", "")
	l.expect("node to node port", 40, nil, "tcp", nodeIP+":30080", "a b", "10.1.0.1")
	l.expect("node to node port at loopback", 1, nil, "tcp", "127.0.0.1:30080", "refused", "")

	l.expect("pod to another port of the service", 1, l.b, "tcp", "10.96.0.9:81", "refused", "")
	l.expect("node to another port of the service", 1, nil, "tcp", "10.96.0.9:81", "refused", "")

	l.put(web(nil), 8080, both1)
	l.expect("pod to service of the other", 5, l.b, "tcp", "10.96.0.9:80", "a", "10.1.0.3")
	l.expect("pod to itself by its service", 5, l.a, "tcp", "10.96.0.9:80", "a", "10.1.0.1")
	l.expect("node to service", 5, nil, "tcp", "10.96.0.9:80", "a", "10.1.0.1")
	l.expect("world to service", 5, l.world, "tcp", "10.96.0.9:80", "a", "10.1.0.1")

	local := web(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	l.put(local, 8080, both1, "10.1.9.9 n2")
	l.expect("local policy keeps the client's address", 10, l.world, "tcp", nodeIP+":30080", "a", "192.0.2.9")
	l.put(local, 8080, "10.1.9.9 n2")
	l.expect("local policy without a local pod", 1, l.world, "tcp", nodeIP+":30080", "timeout", "")

	l.put(web(nil), 8080)
	l.expect("pod to a service without endpoints", 1, l.b, "tcp", "10.96.0.9:80", "refused", "")
	l.expect("world to its node port", 1, l.world, "tcp", nodeIP+":30080", "refused", "")
	l.expect("node to it", 1, nil, "tcp", "10.96.0.9:80", "refused", "")

	l.put(web(nil), 8080, both2)
	l.expect("after it came back", 5, l.a, "tcp", "10.96.0.9:80", "b", "")
	if err := nft.DropTable("skiff-test-proxy"); err != nil {
		t.Fatal(err)
	}
	l.proxy.changed() // what the timer does once a minute
	l.expect("without the table", 1, l.a, "tcp", "10.96.0.9:80", "timeout", "")
}

func TestAddressesOutside(t *testing.T) {
	l := newLab(t)
	lb := func(ranges ...string) *corev1.Service {
		return service("lb", "10.96.0.9", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalIPs, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"203.0.113.5"}, ranges
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
		})
	}
	l.put(lb(), 8080, "10.1.0.2 n1")
	l.expect("world to the load balancer's address", 3, l.world, "tcp", "203.0.113.1:80", "a", "10.1.0.1")
	l.expect("world to an external address", 3, l.world, "tcp", "203.0.113.5:80", "a", "10.1.0.1")
	l.expect("pod to the load balancer's address", 3, l.b, "tcp", "203.0.113.1:80", "a", "")
	l.put(lb("192.0.2.8/30", "198.51.100.0/24"), 8080, "10.1.0.2 n1")
	l.expect("world, which is allowed", 3, l.world, "tcp", "203.0.113.1:80", "a", "10.1.0.1")
	l.expect("pod, which is not", 1, l.b, "tcp", "203.0.113.1:80", "timeout", "")
	l.expect("pod to the external address, which has no ranges", 3, l.b, "tcp", "203.0.113.5:80", "a", "")
}

func TestAffinity(t *testing.T) {
	l := newLab(t)
	svc := func() *corev1.Service {
		return service("web", "10.96.0.9", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
	}
	l.put(svc(), 8080, "10.1.0.2 n1", "10.1.0.3 n1")
	first, _ := l.world.Ask("tcp", "10.96.0.9:80")
	listed(t, "skiff-test-proxy", "update @by-svc-")
	l.expect("the same client", 20, l.world, "tcp", "10.96.0.9:80", first, "")
	// Another backend comes: the client stays. Its own goes: it moves, and stays there.
	l.put(svc(), 8080, "10.1.0.2 n1", "10.1.0.3 n1", "10.1.9.9 n2")
	l.expect("after another came", 20, l.world, "tcp", "10.96.0.9:80", first, "")
	other, rest := "b", "10.1.0.3 n1"
	if first == "b" {
		other, rest = "a", "10.1.0.2 n1"
	}
	l.put(svc(), 8080, rest)
	l.expect("after its own went", 20, l.world, "tcp", "10.96.0.9:80", other, "")
	l.put(svc(), 8080, "10.1.0.2 n1", "10.1.0.3 n1")
	l.expect("after its own came back", 20, l.world, "tcp", "10.96.0.9:80", other, "")
}

// listed lets the administrator's tool read the table, where it is installed: versions of it die of rules that they do not
// understand.
func listed(t *testing.T, table, part string) {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Log("there is no nft")
		return
	}
	if out, err := exec.Command(nft, "list", "table", "ip", table).CombinedOutput(); err != nil || !strings.Contains(string(out), part) {
		t.Errorf("nft lists %v: %s", err, out)
	}
}

// Affinity comes and goes while the service lives.
func TestAffinitySwitches(t *testing.T) {
	l := newLab(t)
	for i, a := range []corev1.ServiceAffinity{corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone} {
		l.put(service("web", "10.96.0.9", func(s *corev1.Service) {
			s.Spec.SessionAffinity, s.Spec.Type, s.Spec.Ports[0].NodePort = a, corev1.ServiceTypeNodePort, 30080
		}), 8080, "10.1.0.2 n1", "10.1.0.3 n1")
		sticks := a == corev1.ServiceAffinityClientIP
		for range 500 { // until the kernel has the change
			if i == 0 || strings.Contains(kernel(t, "skiff-test-proxy"), "by-ext-") == sticks {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, at := range []string{"10.96.0.9:80", nodeIP + ":30080"} {
			want := "a b"
			if sticks {
				want, _ = l.world.Ask("tcp", at)
			}
			l.expect(string(a)+" at "+at, 40, l.world, "tcp", at, want, "")
		}
		listed(t, "skiff-test-proxy", "numgen random mod 2")
	}
}

func TestUDPFlowsMoveWithTheBackends(t *testing.T) {
	l := newLab(t)
	svc := func() *corev1.Service {
		return service("dns", "10.96.0.10", func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP })
	}
	l.put(svc(), 8080, "10.1.0.2 n1")
	l.expect("udp", 3, l.b, "udp", "10.96.0.10:80", "a", "")
	l.put(svc(), 8080, "10.1.0.3 n1")
	l.expect("udp after the move", 3, l.world, "udp", "10.96.0.10:80", "b", "")
	l.put(svc(), 8080)
	l.expect("udp to nobody", 1, l.world, "udp", "10.96.0.10:80", "refused", "")
}

func TestHealthCheckNodePort(t *testing.T) {
	l := newLab(t)
	svc := service("lb", "10.96.0.9", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, 30080, 30999
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	l.put(svc, 8080, "10.1.0.2 n1", "10.1.9.9 n2")
	ask := func() string {
		r, err := http.Get("http://127.0.0.1:30999/healthz")
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return fmt.Sprint(r.StatusCode, " ", strings.TrimSpace(string(b)))
	}
	wait := func(want string) {
		t.Helper()
		got := ""
		for range 300 {
			if got = ask(); got == want {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("got %s, want %s", got, want)
	}
	wait(`200 {"localEndpoints":1,"service":{"name":"lb","namespace":"ns"},"serviceProxyHealthy":true}`)
	l.put(svc, 8080, "10.1.9.9 n2")
	wait(`503 {"localEndpoints":0,"service":{"name":"lb","namespace":"ns"},"serviceProxyHealthy":true}`)
}

// A random walk over services: the table that many small changes made is the one that is written whole.
func TestChangesAddUpToTheWhole(t *testing.T) {
	netlab.Need(t)
	rng := rand.New(rand.NewPCG(1, 2))
	walk, whole := table{"skiff-test-walk", netip.MustParsePrefix("10.1.0.0/16")}, table{"skiff-test-walk", netip.MustParsePrefix("10.1.0.0/16")}
	defer nft.DropTable(walk.name)
	r := newRuleSet()
	if err := walk.renew(r.state); err != nil {
		t.Fatal(err)
	}
	for step := range 150 {
		c := newChange()
		for range 1 + rng.IntN(3) {
			n := rng.IntN(6)
			svc := service(fmt.Sprint("s", n), fmt.Sprintf("10.96.0.%d", n+1), func(s *corev1.Service) { randomize(rng, s, n) })
			var eps []string
			for i := range rng.IntN(8) {
				eps = append(eps, fmt.Sprintf("10.1.0.%d n%d %s", 2+rng.IntN(12), rng.IntN(2), []string{"ready", "ready", "ending", "unready"}[(i+step)%4]))
			}
			now := rules{}
			if rng.IntN(5) > 0 {
				now = compile(svc, []*discoveryv1.EndpointSlice{slice(svc, 8080, eps...)}, nodeFacts{name: "n1"})
			}
			r.set("ns/"+svc.Name, now, c)
		}
		if err := walk.apply(c); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		if step%10 != 9 {
			continue
		}
		got := kernel(t, walk.name)
		if err := whole.renew(r.state); err != nil {
			t.Fatal(err)
		}
		if want := kernel(t, walk.name); got != want {
			t.Fatalf("step %d: changes made\n%s\nthe whole is\n%s", step, got, want)
		}
	}
}

func randomize(rng *rand.Rand, s *corev1.Service, n int) {
	coin := func() bool { return rng.IntN(2) == 0 }
	if coin() {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, int32(30000+n)
	}
	if coin() {
		s.Spec.ExternalIPs = []string{fmt.Sprintf("203.0.113.%d", rng.IntN(3))}
	}
	if coin() {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	if coin() {
		local := corev1.ServiceInternalTrafficPolicyLocal
		s.Spec.InternalTrafficPolicy = &local
	}
	if coin() {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		seconds := int32(60 + rng.IntN(2))
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	if coin() {
		s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"198.51.100.0/24", "192.0.2.0/24"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: fmt.Sprintf("203.0.113.%d", 10+n)}}
	}
	if coin() {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "u", Port: 53, Protocol: corev1.ProtocolUDP})
	}
}
