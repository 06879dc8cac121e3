package proxy

import (
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// endpoint is one address that a service port may lead to.
type endpoint struct {
	backend backend
	node    string
	ready   bool // and not going away
	serving bool // may still answer while it goes away
	hints   *discoveryv1.EndpointHints
}

// endpointsOf lists the IPv4 endpoints of a service's port.
func endpointsOf(list []*discoveryv1.EndpointSlice, portName string) []endpoint {
	var out []endpoint
	for _, s := range list {
		if s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, p := range s.Ports {
			name := ""
			if p.Name != nil {
				name = *p.Name
			}
			if p.Port == nil || name != portName {
				continue
			}
			for i := range s.Endpoints {
				if e, ok := endpointOf(&s.Endpoints[i], *p.Port); ok {
					out = append(out, e)
				}
			}
		}
	}
	return out
}

func endpointOf(ep *discoveryv1.Endpoint, port int32) (e endpoint, ok bool) {
	if len(ep.Addresses) == 0 {
		return e, false
	}
	addr, err := netip.ParseAddr(ep.Addresses[0]) // the others mean the same endpoint
	if err != nil || !addr.Is4() {
		return e, false
	}
	e = endpoint{backend: netip.AddrPortFrom(addr, uint16(port)), ready: isTrue(ep.Conditions.Ready, true), hints: ep.Hints}
	e.serving = isTrue(ep.Conditions.Serving, e.ready)
	if ep.NodeName != nil {
		e.node = *ep.NodeName
	}
	return e, true
}

func isTrue(b *bool, otherwise bool) bool {
	if b == nil {
		return otherwise
	}
	return *b
}

// usable are the backends of the ready endpoints that accept lets through (nil: all); if none of them is ready, of those
// that still serve while they go away (KEP-1669). They come sorted, each once.
func usable(eps []endpoint, accept func(endpoint) bool) []backend {
	var ready, serving []backend
	for _, e := range eps {
		switch {
		case accept != nil && !accept(e):
		case e.ready:
			ready = append(ready, e.backend)
		case e.serving:
			serving = append(serving, e.backend)
		}
	}
	if len(ready) == 0 {
		ready = serving
	}
	slices.SortFunc(ready, backend.Compare)
	return slices.Compact(ready)
}

// near keeps to the endpoints that are meant for this node, or else for its zone (KEP-2433, KEP-3015): if every ready
// endpoint has a hint of that sort, and at least one is meant for here.
func near(eps []endpoint, node nodeFacts) func(endpoint) bool {
	forNode := func(e endpoint) (hinted, here bool) {
		if e.hints == nil || len(e.hints.ForNodes) == 0 {
			return false, false
		}
		return true, slices.ContainsFunc(e.hints.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node.name })
	}
	forZone := func(e endpoint) (hinted, here bool) {
		if e.hints == nil || len(e.hints.ForZones) == 0 || node.zone == "" {
			return false, false
		}
		return true, slices.ContainsFunc(e.hints.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == node.zone })
	}
	for _, meant := range []func(endpoint) (bool, bool){forNode, forZone} {
		all, any := true, false
		for _, e := range eps {
			if e.ready {
				hinted, here := meant(e)
				all, any = all && hinted, any || here
			}
		}
		if all && any {
			return func(e endpoint) bool { _, here := meant(e); return here }
		}
	}
	return nil
}
