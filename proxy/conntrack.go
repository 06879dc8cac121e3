package proxy

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// staleFlows tells the UDP flows that a change leaves pointing to where they no longer should: to a backend that is gone,
// or to nowhere from a time before there were any. A client that goes on sending would never be led elsewhere. It
// implements netlink's filter.
type staleFlows struct {
	backends map[front][]backend // of the changed fronts, as they are now
	nodeIPs  []netip.Addr
}

// stale is what a change, already part of the state, makes of flows; ok is false if it touches no UDP front.
func stale(c *change, s *state, nodeIPs []netip.Addr) (f staleFlows, ok bool) {
	f = staleFlows{map[front][]backend{}, nodeIPs}
	for at := range c.fronts {
		if at.protocol == udp {
			f.backends[at] = s.reach(s.fronts[at])
		}
	}
	changed := map[string]bool{}
	for name := range c.chains {
		changed[name] = true
	}
	if len(changed) > 0 {
		for at, name := range s.fronts {
			if at.protocol == udp && (changed[name] || changed[s.chains[name].insiders]) {
				f.backends[at] = s.reach(name)
			}
		}
	}
	return f, len(f.backends) > 0
}

// reach lists all backends that a chain may lead to.
func (s *state) reach(name string) []backend {
	c := s.chains[name]
	return slices.Concat(c.backends, s.chains[c.insiders].backends)
}

// MatchConntrackFlow reports whether the flow is to be forgotten.
func (f staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok1 := netip.AddrFromSlice(flow.Forward.DstIP.To4())
	from, ok2 := netip.AddrFromSlice(flow.Reverse.SrcIP.To4())
	if !ok1 || !ok2 {
		return false
	}
	backends, ok := f.backends[front{to, udp, flow.Forward.DstPort}]
	if !ok && slices.Contains(f.nodeIPs, to) {
		backends, ok = f.backends[front{protocol: udp, port: flow.Forward.DstPort}]
	}
	return ok && !slices.Contains(backends, netip.AddrPortFrom(from, flow.Reverse.SrcPort))
}

// forget removes the flows, in one pass over the kernel's table.
func (f staleFlows) forget() error {
	_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f)
	return err
}
