package endpointslice

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// Whatever comes and goes, every endpoint is in exactly one slice, no slice is over-full, and a second plan is empty.
func TestPackRandomHistory(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s", UID: "u"}}
	k := Packer{Owner: svc, OwnerKind: corev1.SchemeGroupVersion.WithKind("Service"), Name: "s", ManagedBy: ManagedBy, Labels: Labels(nil, "s", ManagedBy, false), KeepEmpty: true}
	have := map[string]*discoveryv1.EndpointSlice{}
	live := map[string]bool{}
	named := 0
	for range 60 {
		for range r.IntN(80) {
			live[fmt.Sprintf("10.0.%d.%d", r.IntN(2), r.IntN(200))] = r.IntN(3) > 0
		}
		g := Group{Ports: []discoveryv1.EndpointPort{}}
		for ip, ok := range live {
			if ok {
				g.Endpoints = append(g.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
			}
		}
		want := map[discoveryv1.AddressType][]Group{discoveryv1.AddressTypeIPv4: {g}}
		if len(g.Endpoints) == 0 {
			want[discoveryv1.AddressTypeIPv4] = nil
		}
		for _, a := range k.Plan(want, values(have)) {
			switch a := a.(type) {
			case plan.Create:
				s := a.Obj.(*discoveryv1.EndpointSlice)
				s.Name = fmt.Sprint("s-", named)
				named++
				have[s.Name] = s
			case plan.Update:
				have[a.Obj.GetName()] = a.Obj.(*discoveryv1.EndpointSlice)
			case plan.Delete:
				delete(have, a.Obj.GetName())
			}
		}
		seen := map[string]bool{}
		for _, s := range have {
			if len(s.Endpoints) > perSlice {
				t.Fatalf("%d endpoints in one slice", len(s.Endpoints))
			}
			for _, e := range s.Endpoints {
				if seen[e.Addresses[0]] {
					t.Fatalf("%s is in two slices", e.Addresses[0])
				}
				seen[e.Addresses[0]] = true
			}
		}
		if len(seen) != len(g.Endpoints) || len(have) == 0 {
			t.Fatalf("%d endpoints in %d slices, want %d", len(seen), len(have), len(g.Endpoints))
		}
		if again := k.Plan(want, values(have)); len(again) != 0 {
			t.Fatalf("a second plan: %v", again)
		}
	}
}

func values(m map[string]*discoveryv1.EndpointSlice) (out []*discoveryv1.EndpointSlice) {
	for _, s := range m {
		out = append(out, s)
	}
	return out
}
