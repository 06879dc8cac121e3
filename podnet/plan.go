package podnet

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// state is all that podnet wants of the machine.
type state struct {
	Range     netip.Prefix // this node's pods
	Cluster   netip.Prefix // all pods
	Routes    []route      // sorted
	HostPorts []hostPort   // sorted
}

// route leads to another node's pods.
type route struct {
	To  netip.Prefix
	Via netip.Addr // the node's own address
}

// hostPort leads from a port of this machine to a pod.
type hostPort struct {
	HostIP netip.Addr // unspecified: every address of this machine
	Proto  uint8
	Port   uint16
	Pod    netip.AddrPort
}

// plan derives the state; ok is false until this node has a range.
func plan(me string, cluster netip.Prefix, nodes []*corev1.Node, pods []*corev1.Pod) (s state, ok bool) {
	s.Cluster = cluster.Masked()
	var own netip.Addr
	for _, n := range nodes {
		r, err := netip.ParsePrefix(n.Spec.PodCIDR)
		if err != nil || !r.Addr().Is4() {
			continue
		}
		if n.Name == me {
			s.Range, ok = r.Masked(), true
			own, _ = internalIP(n)
		} else if via, found := internalIP(n); found {
			s.Routes = append(s.Routes, route{r.Masked(), via})
		}
	}
	// A node beside this one on the same machine (a test) has its range on a bridge here.
	s.Routes = slices.DeleteFunc(s.Routes, func(r route) bool { return r.Via == own })
	for _, p := range pods {
		s.HostPorts = append(s.HostPorts, hostPorts(p)...)
	}
	slices.SortFunc(s.Routes, func(a, b route) int { return a.To.Addr().Compare(b.To.Addr()) })
	slices.SortFunc(s.HostPorts, func(a, b hostPort) int {
		return cmp.Or(a.HostIP.Compare(b.HostIP), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port),
			a.Pod.Compare(b.Pod))
	})
	// Two pods may claim one port while the first is ending; the kernel takes one entry for each.
	s.HostPorts = slices.CompactFunc(s.HostPorts, func(a, b hostPort) bool {
		return a.HostIP == b.HostIP && a.Proto == b.Proto && a.Port == b.Port
	})
	return s, ok
}

func internalIP(n *corev1.Node) (netip.Addr, bool) {
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && ip.Is4() {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// hostPorts lists the host ports of a pod that has an address and has not ended.
func hostPorts(p *corev1.Pod) (out []hostPort) {
	ip, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil || !ip.Is4() || p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, port := range c.Ports {
			if port.HostPort == 0 {
				continue
			}
			at := netip.IPv4Unspecified()
			if port.HostIP != "" {
				if at, err = netip.ParseAddr(port.HostIP); err != nil || !at.Is4() {
					continue
				}
			}
			out = append(out, hostPort{at, protocol(port.Protocol), uint16(port.HostPort), netip.AddrPortFrom(ip, uint16(port.ContainerPort))})
		}
	}
	return out
}

// protocol is the IANA number of a transport protocol; TCP is the default.
func protocol(p corev1.Protocol) uint8 {
	switch strings.ToUpper(string(p)) {
	case "UDP":
		return 17
	case "SCTP":
		return 132
	}
	return 6
}
