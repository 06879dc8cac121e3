package podnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/internal/netlab"
)

// Two clusters' nodes on one machine, and the administrator, leave each other's routes alone.
func TestRoutesOfOthersStay(t *testing.T) {
	netlab.Need(t)
	netlab.NewBridge(t, "uplink", netip.MustParsePrefix("192.0.2.1/24"))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	to := func(cidr, via string) route { return route{netip.MustParsePrefix(cidr), netip.MustParseAddr(via)} }
	one, two := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.245.0.0/16")
	_, admin, _ := net.ParseCIDR("10.244.200.0/24")
	must(netlink.RouteAdd(&netlink.Route{Dst: admin, Gw: net.IPv4(192, 0, 2, 200)}))

	expect := func(want ...string) {
		t.Helper()
		all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
		must(err)
		var got []string
		for _, r := range all {
			if r.Gw != nil && r.Dst != nil {
				got = append(got, fmt.Sprintf("%s via %s", r.Dst, r.Gw))
			}
		}
		want = append(want, "10.244.200.0/24 via 192.0.2.200")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the routes are %q, not %q", got, want)
		}
	}
	must(ensureRoutes(one, []route{to("10.244.2.0/24", "192.0.2.2"), to("10.244.3.0/24", "192.0.2.3")}))
	must(ensureRoutes(two, []route{to("10.245.2.0/24", "192.0.2.12")}))
	expect("10.244.2.0/24 via 192.0.2.2", "10.244.3.0/24 via 192.0.2.3", "10.245.2.0/24 via 192.0.2.12")
	must(ensureRoutes(one, []route{to("10.244.3.0/24", "192.0.2.33")})) // one node is gone, one has another address
	expect("10.244.3.0/24 via 192.0.2.33", "10.245.2.0/24 via 192.0.2.12")
	if err := ensureRoutes(one, []route{to("10.244.4.0/24", "203.0.113.4"), to("10.244.5.0/24", "192.0.2.5")}); err == nil {
		t.Error("a node that cannot be reached must be told of")
	}
	expect("10.244.5.0/24 via 192.0.2.5", "10.245.2.0/24 via 192.0.2.12") // and the others have their routes
	must(ensureRoutes(two, nil))
	must(ensureRoutes(one, nil))
	expect()
}

func TestANodeOnTheSameMachineNeedsNoRoute(t *testing.T) {
	s, _ := plan("n1", netip.MustParsePrefix("10.244.0.0/16"), []*corev1.Node{node("n2", "10.244.2.0/24", "192.0.2.1"),
		node("n1", "10.244.1.0/24", "192.0.2.1"), node("n3", "10.244.3.0/24", "192.0.2.3")}, nil)
	if len(s.Routes) != 1 || s.Routes[0].To.String() != "10.244.3.0/24" {
		t.Errorf("routes: %v", s.Routes)
	}
}
