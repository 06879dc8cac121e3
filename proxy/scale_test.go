package proxy

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/skiff-sh/skiff/internal/netlab"
	"github.com/skiff-sh/skiff/internal/nft"
)

// many are the rules of n services with three backends each.
func many(n int) *ruleSet {
	r := newRuleSet()
	for i := range n {
		r.set(fmt.Sprint("ns/s", i), compileNth(i, 0), newChange())
	}
	return r
}

func compileNth(i, generation int) rules {
	svc := service(fmt.Sprint("s", i), fmt.Sprintf("10.96.%d.%d", i/250, 1+i%250), func(s *corev1.Service) {
		s.Spec.Ports[0].NodePort = int32(30000 + i)
		if i%4 == 0 {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		}
	})
	at := func(k int) string { return fmt.Sprintf("10.1.%d.%d n1", (3*i+k)/250, 1+(3*i+k)%250) }
	return compile(svc, []*discoveryv1.EndpointSlice{slice(svc, int32(8080+generation), at(0), at(1), at(2))}, nodeFacts{name: "n1"})
}

// A whole table must fit the kernel's limits for one transaction and one message.
func TestManyServicesInOneTransaction(t *testing.T) {
	netlab.Need(t)
	tab := table{"skiff-test-many", netip.MustParsePrefix("10.1.0.0/16")}
	defer nft.DropTable(tab.name)
	r := many(1000)
	if err := tab.renew(r.state); err != nil {
		t.Fatal(err)
	}
	c := newChange()
	for i := range 1000 {
		r.set(fmt.Sprint("ns/s", i), compileNth(i, 1), c)
	}
	if err := tab.apply(c); err != nil {
		t.Fatal(err)
	}
	c = newChange()
	for i := range 1000 {
		r.set(fmt.Sprint("ns/s", i), rules{}, c)
	}
	if err := tab.apply(c); err != nil {
		t.Fatal(err)
	}
	left := kernel(t, tab.name)
	if err := tab.renew(newState()); err != nil {
		t.Fatal(err)
	}
	if empty := kernel(t, tab.name); left != empty {
		t.Errorf("after all services went, there is\n%s\nnot\n%s", left, empty)
	}
}

// One service of many changes its backends: what it costs to say so to the kernel.
func BenchmarkChangeOneOfMany(b *testing.B) {
	netlab.Need(b)
	tab := table{"skiff-test-many", netip.MustParsePrefix("10.1.0.0/16")}
	defer nft.DropTable(tab.name)
	r := many(1000)
	if err := tab.renew(r.state); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		c := newChange()
		r.set("ns/s7", compileNth(7, i%2+1), c)
		if err := tab.apply(c); err != nil {
			b.Fatal(err)
		}
	}
}
