package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// nodeFacts is what the rules of this node depend on.
type nodeFacts struct {
	name string
	zone string
}

// labelProxyName leaves a service to another proxy of that name.
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// compile works out the rules of a service from the endpoint slices that belong to it.
func compile(svc *corev1.Service, list []*discoveryv1.EndpointSlice, node nodeFacts) rules {
	r := rules{fronts: map[front]string{}, chains: map[string]chain{}, addrs: map[addrIn]bool{}, health: map[uint16]health{}}
	_, elsewhere := svc.Labels[labelProxyName]
	_, headless := svc.Labels[corev1.IsHeadlessService]
	if elsewhere || headless || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		return r
	}
	local := map[netip.Addr]bool{}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		eps := endpointsOf(list, p.Name)
		r.addPort(svc, p, eps, node)
		for _, e := range eps {
			if e.node == node.name || e.node == "" {
				r.addrs[addrIn{hairpins, e.backend.Addr()}] = true
			}
			if e.node == node.name && e.ready {
				local[e.backend.Addr()] = true
			}
		}
	}
	if svc.Spec.HealthCheckNodePort != 0 && externalLocal(svc) {
		r.health[uint16(svc.Spec.HealthCheckNodePort)] = health{svc.Namespace, svc.Name, len(local)}
	}
	return r
}

func externalLocal(svc *corev1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// addPort adds the chains of one port, and the fronts that lead there.
func (r *rules) addPort(svc *corev1.Service, p *corev1.ServicePort, eps []endpoint, node nodeFacts) {
	proto := number(p.Protocol)
	here := func(e endpoint) bool { return e.node == node.name }
	all, local := usable(eps, near(eps, node)), usable(eps, here)
	lead := func(f front, to string) {
		if len(all) == 0 && len(local) == 0 {
			to = reject
		}
		r.fronts[f] = to
	}
	chainOf := func(kind string, c chain) string {
		name := chainName(kind, svc, p)
		if len(all) > 0 || len(local) > 0 {
			c.affinity = affinity(svc)
			r.chains[name] = c
		}
		return name
	}
	cluster := chainOf("svc", chain{source: outside, backends: all})
	inside := cluster
	if t := svc.Spec.InternalTrafficPolicy; t != nil && *t == corev1.ServiceInternalTrafficPolicyLocal {
		inside = chainOf("int", chain{source: outside, backends: local})
	}
	for _, a := range addrs(append(slices.Clone(svc.Spec.ClusterIPs), svc.Spec.ClusterIP)) {
		lead(front{a, proto, uint16(p.Port)}, inside)
		r.addrs[addrIn{virtual, a}] = true
	}
	external, balanced := addrs(svc.Spec.ExternalIPs), ingress(svc)
	if p.NodePort == 0 && len(external) == 0 && len(balanced) == 0 {
		if inside != cluster {
			delete(r.chains, cluster)
		}
		return
	}
	from := chain{source: always, backends: all}
	if externalLocal(svc) {
		from = chain{insiders: cluster, backends: local}
	}
	outer := chainOf("ext", from)
	for _, a := range external {
		lead(front{a, proto, uint16(p.Port)}, outer)
	}
	if p.NodePort != 0 {
		lead(front{protocol: proto, port: uint16(p.NodePort)}, outer)
	}
	if ranges := prefixes(svc.Spec.LoadBalancerSourceRanges); len(ranges) > 0 && len(balanced) > 0 {
		from.allow = ranges
		outer = chainOf("lb", from)
	}
	for _, a := range balanced {
		lead(front{a, proto, uint16(p.Port)}, outer)
	}
}

func affinity(svc *corev1.Service) time.Duration {
	if svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return 3 * time.Hour
}

// addrs are the IPv4 addresses among texts, each once.
func addrs(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil && a.Is4() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// ingress are a load balancer's addresses that arrive here untranslated (KEP-1860).
func ingress(svc *corev1.Service) []netip.Addr {
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	var texts []string
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			texts = append(texts, in.IP)
		}
	}
	return addrs(texts)
}

func prefixes(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil && p.Addr().Is4() {
			out = append(out, p.Masked())
		}
	}
	return out
}

// chainName is unique, tells a reader what it is for, and fits nftables' 127 characters whatever the names are, with a
// backend's name after it.
func chainName(kind string, svc *corev1.Service, p *corev1.ServicePort) string {
	port := strconv.Itoa(int(p.Port)) + "/" + string(p.Protocol)
	full := svc.Namespace + "/" + svc.Name + ":" + port
	sum := sha256.Sum256([]byte(full))
	return kind + "-" + hex.EncodeToString(sum[:5]) + "-" + full[:min(len(full), 80)]
}

func number(p corev1.Protocol) protocol {
	switch p {
	case corev1.ProtocolUDP:
		return udp
	case corev1.ProtocolSCTP:
		return sctp
	}
	return tcp
}
