package cni

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestPoolGivesEveryAddressOnceAndReusesLate(t *testing.T) {
	p := &pool{dir: t.TempDir(), prefix: netip.MustParsePrefix("10.1.2.0/28")}
	seen := map[netip.Addr]bool{}
	for i := range 13 { // 16, without the network's, the gateway's and the broadcast address
		a, err := p.take(fmt.Sprint("c", i), "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if seen[a] || a == netip.MustParseAddr("10.1.2.0") || a == netip.MustParseAddr("10.1.2.1") || a == netip.MustParseAddr("10.1.2.15") {
			t.Fatalf("%s must not be given", a)
		}
		seen[a] = true
	}
	if a, err := p.take("one too many", "eth0"); err == nil {
		t.Fatalf("a full range gave %s", a)
	}
	again, err := p.take("c3", "eth0")
	if err != nil || again.String() != "10.1.2.5" {
		t.Errorf("a repeated ADD got %s, %v", again, err)
	}
	for _, c := range []string{"c3", "c3", "c7"} { // twice is no error
		if err := p.release(c, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if a, _ := p.take("new", "eth0"); a.String() != "10.1.2.5" {
		t.Errorf("after the last address comes the first free one, not %s", a)
	}
	if err := p.keepOnly(map[string]bool{owner("new", "eth0"): true}); err != nil {
		t.Fatal(err)
	}
	if a, _ := p.take("later", "eth0"); a.String() != "10.1.2.6" {
		t.Errorf("an address was reused at once, or the order lost: %s", a)
	}
}
