package dns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// dump renders all that a zone can answer from.
func dump(z *zone) string {
	var lines []string
	z.services.Range(func(k, v any) bool { lines = append(lines, fmt.Sprintf("%v: %+v", k, *v.(*entry))); return true })
	z.reverse.Range(func(k, v any) bool { lines = append(lines, fmt.Sprintf("%v: %v", k, v)); return true })
	z.namespaces.Range(func(k, _ any) bool { lines = append(lines, fmt.Sprint(k)); return true })
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Services and slices come in two streams: whatever their order, and whatever was there before, the zone is that of the
// objects as they are now.
func TestTheZoneDoesNotDependOnTheOrderOfEvents(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	randomService := func(n int) *corev1.Service {
		name := fmt.Sprint("s", n)
		switch rng.IntN(4) {
		case 0:
			return nil
		case 1:
			return service(name, "None", corev1.ServicePort{Name: "http", Port: 80})
		case 2:
			s := service(name, "")
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.com"
			return s
		}
		return service(name, fmt.Sprintf("10.96.0.%d", 1+rng.IntN(3)), corev1.ServicePort{Name: "http", Port: 80})
	}
	randomSlice := func(n, of int) *discoveryv1.EndpointSlice {
		if rng.IntN(4) == 0 {
			return nil
		}
		var eps []string
		for range rng.IntN(4) {
			eps = append(eps, []string{"", "!"}[rng.IntN(2)]+fmt.Sprintf("10.1.0.%d", rng.IntN(6))+[]string{"", " a", " b"}[rng.IntN(3)])
		}
		return slice(fmt.Sprint("s", of), fmt.Sprint("slice", n), int32(80+rng.IntN(2)), eps...)
	}
	for round := range 100 {
		walked := newZone("cluster.local")
		var services [3]*corev1.Service
		var slices [5]*discoveryv1.EndpointSlice
		for range 40 {
			if n := rng.IntN(8); n < 3 {
				next := randomService(n)
				if next != nil || services[n] != nil {
					walked.setService(services[n], next)
				}
				services[n] = next
			} else {
				n -= 3
				next := randomSlice(n, rng.IntN(3)) // which may move to another service
				if next != nil || slices[n] != nil {
					walked.setSlice(slices[n], next)
				}
				slices[n] = next
			}
		}
		fresh := newZone("cluster.local")
		for _, n := range rng.Perm(8) {
			if n < 3 && services[n] != nil {
				fresh.setService(nil, services[n])
			} else if n >= 3 && slices[n-3] != nil {
				fresh.setSlice(nil, slices[n-3])
			}
		}
		if a, b := dump(walked), dump(fresh); a != b {
			t.Fatalf("round %d: the events made\n%s\nthe objects alone make\n%s", round, a, b)
		}
	}
}

func TestExternalNamesOfTheClusterAreFollowed(t *testing.T) {
	s := &Server{zone: testZone(), forward: &forwarder{}}
	for name, want := range map[string]string{
		"alias": "NOERROR, CNAME web.ns.svc.cluster.local., A 10.96.0.9",
		"round": "NOERROR" + strings.Repeat(", CNAME round.ns.svc.cluster.local.", 1+maxAliases),
		"out":   "NOERROR, CNAME example.com.", // no server to ask further
	} {
		m := new(mdns.Msg)
		m.SetQuestion(name+".ns.svc.cluster.local.", mdns.TypeA)
		r := s.Answer(t.Context(), m)
		if got := render(r.Rcode, r.Answer, nil); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	s := &Server{zone: testZone(), forward: &forwarder{}}
	for i := range 5000 {
		s.zone.setService(nil, service(fmt.Sprint("s", i), fmt.Sprintf("10.97.%d.%d", i/250, i%250)))
	}
	for name, qtype := range map[string]uint16{"s7.ns.svc.cluster.local.": mdns.TypeA, "_http._tcp.db.ns.svc.cluster.local.": mdns.TypeSRV,
		"none.ns.svc.cluster.local.": mdns.TypeA, "7.0.97.10.in-addr.arpa.": mdns.TypePTR} {
		b.Run(name, func(b *testing.B) {
			req := new(mdns.Msg)
			req.SetQuestion(name, qtype)
			b.ReportAllocs()
			for b.Loop() {
				s.Answer(b.Context(), req)
			}
		})
	}
}
