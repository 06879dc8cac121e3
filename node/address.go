package node

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// defaultAddress is the address that the node reaches others from: the one on the default route's interface, or the
// first global one of any interface that is up.
func defaultAddress() (netip.Addr, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err == nil {
		for _, r := range routes {
			if r.Table != 0 && r.Table != unix.RT_TABLE_MAIN || !isDefault(r.Dst) {
				continue
			}
			if a, ok := netip.AddrFromSlice(r.Src.To4()); ok {
				return a, nil
			}
			if ifc, err := net.InterfaceByIndex(r.LinkIndex); err == nil {
				if a, ok := firstGlobal(ifc); ok {
					return a, nil
				}
			}
		}
	}
	ifcs, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, err
	}
	for i := range ifcs {
		if ifcs[i].Flags&net.FlagUp == 0 || ifcs[i].Flags&net.FlagLoopback != 0 {
			continue
		}
		if a, ok := firstGlobal(&ifcs[i]); ok {
			return a, nil
		}
	}
	return netip.Addr{}, errors.New("no interface with a global IPv4 address")
}

func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0 && dst.IP.IsUnspecified()
}

func firstGlobal(ifc *net.Interface) (netip.Addr, bool) {
	addrs, err := ifc.Addrs()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}
