package dns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/internal/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func service(name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, Ports: ports}}
}

// slice makes a slice of endpoints, "address" or "address hostname"; an address after "!" is not ready.
func slice(svc, name string, port int32, eps ...string) *discoveryv1.EndpointSlice {
	portName := "http"
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: svc}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &portName, Port: &port}}}
	for _, e := range eps {
		text, unready := strings.CutPrefix(e, "!")
		addr, host, _ := strings.Cut(text, " ")
		ready := !unready
		ep := discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
		if host != "" {
			ep.Hostname = &host
		}
		s.Endpoints = append(s.Endpoints, ep)
	}
	return s
}

func testZone() *zone {
	z := newZone("cluster.local")
	http, dns := corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "dns", Protocol: "UDP", Port: 53}
	// The slices of a service may be known before the service.
	z.setSlice(nil, slice("db", "db-1", 5432, "10.1.0.3 db-0", "10.1.0.4", "!10.1.0.5 db-2"))
	z.setService(nil, service("web", "10.96.0.9", http, dns))
	z.setService(nil, service("db", "None", http))
	z.setService(nil, service("empty", "None"))
	z.setSlice(nil, slice("web", "web-1", 8080, "10.1.0.9"))
	z.setService(nil, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "out"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}})
	z.setService(nil, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "alias"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.ns.svc.cluster.local"}})
	z.setService(nil, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "round"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "round.ns.svc.cluster.local"}})
	z.setService(nil, service("twins", "None"))
	z.setSlice(nil, slice("twins", "twins-1", 80, "10.2.0.1 twin", "10.2.0.2 twin"))
	return z
}

func render(rcode int, records, extra []mdns.RR) string {
	var parts []string
	for _, rr := range records {
		f := strings.Fields(rr.String())
		parts = append(parts, strings.Join(append([]string{f[3]}, f[4:]...), " "))
	}
	for _, rr := range extra {
		f := strings.Fields(rr.String())
		parts = append(parts, "+"+f[0]+" "+f[4])
	}
	return strings.Join(append([]string{mdns.RcodeToString[rcode]}, parts...), ", ")
}

func TestZone(t *testing.T) {
	z := testZone()
	for _, tt := range []struct{ qtype, name, want string }{
		{"A", "web.ns.svc.cluster.local.", "NOERROR, A 10.96.0.9"},
		{"A", "WEB.ns.SVC.cluster.local.", "NOERROR, A 10.96.0.9"},
		{"AAAA", "web.ns.svc.cluster.local.", "NOERROR"},
		{"A", "none.ns.svc.cluster.local.", "NXDOMAIN"},
		{"A", "10-1-0-9.web.ns.svc.cluster.local.", "NXDOMAIN"},
		{"A", "ns.svc.cluster.local.", "NOERROR"},
		{"A", "other.svc.cluster.local.", "NXDOMAIN"},
		{"A", "svc.cluster.local.", "NOERROR"},
		{"SRV", "_http._tcp.web.ns.svc.cluster.local.", "NOERROR, SRV 0 100 80 web.ns.svc.cluster.local., +web.ns.svc.cluster.local. 10.96.0.9"},
		{"SRV", "_dns._udp.web.ns.svc.cluster.local.", "NOERROR, SRV 0 100 53 web.ns.svc.cluster.local., +web.ns.svc.cluster.local. 10.96.0.9"},
		{"SRV", "_dns._tcp.web.ns.svc.cluster.local.", "NXDOMAIN"},
		{"A", "_http._tcp.web.ns.svc.cluster.local.", "NOERROR"},
		{"A", "db.ns.svc.cluster.local.", "NOERROR, A 10.1.0.3, A 10.1.0.4"},
		{"A", "db-0.db.ns.svc.cluster.local.", "NOERROR, A 10.1.0.3"},
		{"A", "db-2.db.ns.svc.cluster.local.", "NXDOMAIN"},
		{"A", "10-1-0-4.db.ns.svc.cluster.local.", "NOERROR, A 10.1.0.4"},
		{"A", "empty.ns.svc.cluster.local.", "NXDOMAIN"},
		{"SRV", "_http._tcp.db.ns.svc.cluster.local.", "NOERROR, SRV 0 50 5432 10-1-0-4.db.ns.svc.cluster.local., SRV 0 50 5432 db-0.db.ns.svc.cluster.local., " +
			"+10-1-0-4.db.ns.svc.cluster.local. 10.1.0.4, +db-0.db.ns.svc.cluster.local. 10.1.0.3"},
		{"SRV", "_http._tcp.twins.ns.svc.cluster.local.", "NOERROR, SRV 0 100 80 twin.twins.ns.svc.cluster.local., " +
			"+twin.twins.ns.svc.cluster.local. 10.2.0.1, +twin.twins.ns.svc.cluster.local. 10.2.0.2"},
		{"A", "twin.twins.ns.svc.cluster.local.", "NOERROR, A 10.2.0.1, A 10.2.0.2"},
		{"A", "pod.cluster.local.", "NOERROR"},
		{"A", "ns.pod.cluster.local.", "NOERROR"},
		{"A", "out.ns.svc.cluster.local.", "NOERROR, CNAME example.com."},
		{"PTR", "9.0.96.10.in-addr.arpa.", "NOERROR, PTR web.ns.svc.cluster.local."},
		{"PTR", "3.0.1.10.in-addr.arpa.", "NOERROR, PTR db-0.db.ns.svc.cluster.local."},
		{"PTR", "9.0.1.10.in-addr.arpa.", "not ours"},
		{"PTR", "5.0.1.10.in-addr.arpa.", "not ours"},
		{"A", "10-1-0-77.ns.pod.cluster.local.", "NOERROR, A 10.1.0.77"},
		{"A", "10-1-0.ns.pod.cluster.local.", "NXDOMAIN"},
		{"AAAA", "fd00--1.ns.pod.cluster.local.", "NOERROR, AAAA fd00::1"},
		{"TXT", "dns-version.cluster.local.", `NOERROR, TXT "1.1.0"`},
		{"NS", "cluster.local.", "NOERROR, NS ns.dns.cluster.local."},
		{"A", "nonsense.cluster.local.", "NXDOMAIN"},
		{"A", "a.b.c.d.e.ns.svc.cluster.local.", "NXDOMAIN"},
		{"A", "notcluster.local.", "not ours"},
		{"A", "example.com.", "not ours"},
	} {
		rcode, records, extra, ours := z.answer(mdns.Question{Name: tt.name, Qtype: mdns.StringToType[tt.qtype], Qclass: mdns.ClassINET})
		got := render(rcode, records, extra)
		if !ours {
			got = "not ours"
		}
		if got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.qtype, tt.name, got, tt.want)
		}
	}
}

func TestZoneForgets(t *testing.T) {
	z := testZone()
	db, sl := service("db", "None"), slice("db", "db-1", 5432, "10.1.0.3 db-0", "10.1.0.4", "!10.1.0.5 db-2")
	moved := slice("db", "db-1", 5432, "10.1.0.4")
	z.setSlice(sl, moved)
	if name, ok := z.nameOf(netip.MustParseAddr("10.1.0.3")); ok {
		t.Errorf("an endpoint that is gone is still called %s", name)
	}
	z.setService(db, nil)
	z.setSlice(moved, nil)
	for _, name := range []string{"web", "out", "empty", "alias", "round", "twins"} {
		z.setService(service(name, "None"), nil)
	}
	z.setSlice(slice("web", "web-1", 1), nil)
	z.setSlice(slice("twins", "twins-1", 1), nil)
	left := 0
	for _, m := range []interface{ Range(func(k, v any) bool) }{&z.services, &z.namespaces, &z.reverse} {
		m.Range(func(k, v any) bool { left++; t.Logf("left: %v", k); return true })
	}
	if left+len(z.sources)+len(z.names)+len(z.inside) > 0 {
		t.Errorf("left: %d, %v, %v, %v", left, z.sources, z.names, z.inside)
	}
}

// upstream is a name server of the world that knows any.example.com.
func upstream(t *testing.T, addr string) {
	srv := &mdns.Server{Addr: addr, Net: "udp", Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
		m := new(mdns.Msg)
		m.SetReply(r)
		if strings.HasSuffix(r.Question[0].Name, "example.com.") && r.Question[0].Qtype == mdns.TypeA {
			m.Answer = append(m.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: r.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: []byte{198, 51, 100, 7}})
		} else {
			m.Rcode = mdns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})}
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	go func() { _ = srv.ListenAndServe() }()
	<-started
	t.Cleanup(func() { _ = srv.Shutdown() })
}

func TestServer(t *testing.T) {
	netlab.Need(t)
	netlab.NewBridge(t, "dns0", netip.MustParsePrefix("10.1.0.1/24"))
	upstream(t, "127.0.0.9:53")
	conf := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(conf, []byte("search x\nnameserver 10.96.0.10\nnameserver 127.0.0.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("10.1.1.%d", i+1))
	}
	big := service("big", "None")
	api := clienttest.New(nil, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.1.0.0/24"}},
		service("web", "10.96.0.9"), big, slice("big", "big-1", 80, many...),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "out"}, Spec: corev1.ServiceSpec{Type: "ExternalName", ExternalName: "www.example.com"}})
	caches := client.NewCaches(api, nil)
	s, err := New(Config{Client: api, Caches: caches, NodeName: "n1", ServiceIP: netip.MustParseAddr("10.96.0.10"), ResolvConf: conf})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- caches.Run(ctx) }()
	go func() { ended <- s.Run(ctx) }()
	defer func() { cancel(); <-ended; <-ended }()

	ask := func(network, name string, qtype uint16, edns uint16) *mdns.Msg {
		t.Helper()
		m := new(mdns.Msg)
		m.SetQuestion(name, qtype)
		if edns > 0 {
			m.SetEdns0(edns, false)
		}
		var last error
		for range 200 {
			r, _, err := (&mdns.Client{Net: network, UDPSize: 65535}).Exchange(m, "10.1.0.1:53")
			if err == nil {
				return r
			}
			last = err
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s %s: %v", network, name, last)
		return nil
	}
	if r := ask("udp", "web.ns.svc.cluster.local.", mdns.TypeA, 0); render(r.Rcode, r.Answer, nil) != "NOERROR, A 10.96.0.9" || !r.Authoritative {
		t.Errorf("%v", r)
	}
	if r := ask("tcp", "none.ns.svc.cluster.local.", mdns.TypeA, 0); r.Rcode != mdns.RcodeNameError || len(r.Ns) != 1 {
		t.Errorf("an unknown name needs a SOA: %v", r)
	}
	if r := ask("udp", "www.example.com.", mdns.TypeA, 0); render(r.Rcode, r.Answer, nil) != "NOERROR, A 198.51.100.7" || r.Authoritative {
		t.Errorf("forwarded: %v", r)
	}
	if r := ask("udp", "out.ns.svc.cluster.local.", mdns.TypeA, 0); render(r.Rcode, r.Answer, nil) != "NOERROR, CNAME www.example.com., A 198.51.100.7" {
		t.Errorf("an external name is followed: %v", r)
	}
	if r := ask("udp", "big.ns.svc.cluster.local.", mdns.TypeA, 0); !r.Truncated || compressed(r) > 512 {
		t.Errorf("100 records in %d bytes, truncated %v", compressed(r), r.Truncated)
	}
	if r := ask("udp", "big.ns.svc.cluster.local.", mdns.TypeA, 8192); r.Truncated || len(r.Answer) != 100 || r.IsEdns0() == nil {
		t.Errorf("with EDNS: %d records, truncated %v", len(r.Answer), r.Truncated)
	}
	if r := ask("tcp", "big.ns.svc.cluster.local.", mdns.TypeA, 0); len(r.Answer) != 100 {
		t.Errorf("by TCP: %d records", len(r.Answer))
	}
	first := map[string]bool{}
	for range 20 {
		first[ask("tcp", "big.ns.svc.cluster.local.", mdns.TypeA, 0).Answer[0].String()] = true
	}
	if len(first) < 2 {
		t.Error("every answer begins with the same address")
	}

	// What is published comes back when somebody deletes it.
	published := func() bool {
		svc, err1 := client.Get[*corev1.Service](ctx, api, "kube-system", "kube-dns")
		sl, err2 := client.Get[*discoveryv1.EndpointSlice](ctx, api, "kube-system", "kube-dns-n1")
		return err1 == nil && err2 == nil && svc.Spec.ClusterIP == "10.96.0.10" && svc.Labels["k8s-app"] == "kube-dns" &&
			slices.Equal(sl.Endpoints[0].Addresses, []string{"10.1.0.1"})
	}
	eventually(t, "the service", published)
	if err := client.Delete[*discoveryv1.EndpointSlice](ctx, api, "kube-system", "kube-dns-n1", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slice again", published)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 500 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func FuzzAnswer(f *testing.F) {
	s := &Server{zone: testZone(), forward: &forwarder{}}
	for _, name := range []string{"web.ns.svc.cluster.local.", "_http._tcp.db.ns.svc.cluster.local.", "3.0.1.10.in-addr.arpa.", "out.ns.svc.cluster.local.", "."} {
		m := new(mdns.Msg)
		m.SetQuestion(name, mdns.TypeSRV)
		m.SetEdns0(4096, true)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req := new(mdns.Msg)
		if req.Unpack(b) != nil {
			return
		}
		m := s.Answer(t.Context(), req)
		if m.Id != req.Id || !m.Response {
			t.Fatalf("this is no answer to %v: %v", req, m)
		}
		if _, err := m.Pack(); err != nil {
			t.Fatalf("the answer to %v cannot be packed: %v: %v", req, m, err)
		}
	})
}

func compressed(m *mdns.Msg) int {
	m.Compress = true
	return m.Len()
}
