package dns

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// zone is what is known of services and their endpoints, ready to be asked by name. Readers find immutable entries in
// maps that need no lock; writers take turns and replace one service's entry at a time.
type zone struct {
	domain string // "cluster.local.", lower case

	services   sync.Map // "name.namespace" to *entry
	namespaces sync.Map // those with a service, to struct{}
	reverse    sync.Map // netip.Addr to the full name

	mu      sync.Mutex // for what only writers use
	sources map[string]*source
	inside  map[string]int                 // services by namespace
	names   map[netip.Addr]map[string]bool // all full names of an address
}

// source is what a service's entry is made from.
type source struct {
	service *corev1.Service // nil: only slices are known
	slices  map[string]*discoveryv1.EndpointSlice
}

// entry is one service. It is never changed.
type entry struct {
	name      string       // full
	addrs     []netip.Addr // of the service; for a headless one, of its endpoints
	external  string       // the name that an ExternalName service stands for
	headless  bool
	endpoints []endpoint // of a headless service: distinct, by address
	ports     []port     // what SRV records tell
}

// endpoint is one address of a headless service.
type endpoint struct {
	addr     netip.Addr
	hostname string // or the address with dashes
}

// port is one SRV record.
type port struct {
	name, protocol string // lower case
	number         uint16
	target         string // full name
	addr           netip.Addr
}

func newZone(domain string) *zone {
	return &zone{domain: mdns.Fqdn(strings.ToLower(domain)), sources: map[string]*source{}, inside: map[string]int{},
		names: map[netip.Addr]map[string]bool{}}
}

// setService takes a new, changed or (s is nil) deleted service.
func (z *zone) setService(old, s *corev1.Service) {
	z.mu.Lock()
	defer z.mu.Unlock()
	at := cmp.Or(s, old)
	key := at.Name + "." + at.Namespace
	z.source(key).service = s
	z.replace(key, at.Namespace)
}

// setSlice takes a new, changed or (s is nil) deleted endpoint slice.
func (z *zone) setSlice(old, s *discoveryv1.EndpointSlice) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if old != nil {
		key := serviceOf(old)
		delete(z.source(key).slices, old.Name)
		if s == nil || serviceOf(s) != key {
			z.replace(key, old.Namespace)
		}
	}
	if s != nil {
		z.source(serviceOf(s)).slices[s.Name] = s
		z.replace(serviceOf(s), s.Namespace)
	}
}

func serviceOf(s *discoveryv1.EndpointSlice) string {
	return s.Labels[discoveryv1.LabelServiceName] + "." + s.Namespace
}

func (z *zone) source(key string) *source {
	src := z.sources[key]
	if src == nil {
		src = &source{slices: map[string]*discoveryv1.EndpointSlice{}}
		z.sources[key] = src
	}
	return src
}

// replace makes a service's entry anew from its source.
func (z *zone) replace(key, namespace string) {
	src := z.source(key)
	var old, new *entry
	if e, ok := z.services.Load(key); ok {
		old = e.(*entry)
	}
	if src.service != nil {
		new = z.entryOf(src)
		z.services.Store(key, new)
	} else {
		z.services.Delete(key)
		if len(src.slices) == 0 {
			delete(z.sources, key)
		}
	}
	before, after := old.reverseNames(), new.reverseNames()
	for a, name := range before {
		if after[a] != name {
			z.rename(a, name, false)
		}
	}
	for a, name := range after {
		if before[a] != name {
			z.rename(a, name, true)
		}
	}
	switch {
	case old == nil && new != nil:
		z.inside[namespace]++
		z.namespaces.Store(namespace, struct{}{})
	case old != nil && new == nil:
		if z.inside[namespace]--; z.inside[namespace] == 0 {
			delete(z.inside, namespace)
			z.namespaces.Delete(namespace)
		}
	}
}

// rename adds or removes one of an address's names; the first of them is its PTR record.
func (z *zone) rename(a netip.Addr, name string, there bool) {
	names := z.names[a]
	if there {
		if names == nil {
			names = map[string]bool{}
			z.names[a] = names
		}
		names[name] = true
	} else {
		delete(names, name)
	}
	if len(names) == 0 {
		delete(z.names, a)
		z.reverse.Delete(a)
		return
	}
	first := ""
	for n := range names {
		if first == "" || n < first {
			first = n
		}
	}
	z.reverse.Store(a, first)
}

func (e *entry) reverseNames() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	switch {
	case e == nil:
	case e.headless:
		for _, ep := range slices.Backward(e.endpoints) { // the first of two names wins
			out[ep.addr] = ep.hostname + "." + e.name
		}
	default:
		for _, a := range e.addrs {
			out[a] = e.name
		}
	}
	return out
}

func (z *zone) entryOf(src *source) *entry {
	s := src.service
	e := &entry{name: s.Name + "." + s.Namespace + ".svc." + z.domain}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		e.external = mdns.Fqdn(s.Spec.ExternalName)
		return e
	}
	if e.headless = s.Spec.ClusterIP == corev1.ClusterIPNone; e.headless {
		for _, slice := range src.slices {
			e.addSlice(slice)
		}
		slices.SortFunc(e.endpoints, func(a, b endpoint) int { return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.hostname, b.hostname)) })
		e.endpoints = slices.Compact(e.endpoints)
		for _, ep := range e.endpoints {
			e.addrs = append(e.addrs, ep.addr)
		}
		e.addrs = slices.Compact(e.addrs)
		slices.SortFunc(e.ports, func(a, b port) int {
			return cmp.Or(cmp.Compare(a.target, b.target), cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.name, b.name), a.addr.Compare(b.addr))
		})
		e.ports = slices.Compact(e.ports)
		return e
	}
	for _, text := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(e.addrs, a) {
			e.addrs = append(e.addrs, a)
		}
	}
	for _, p := range s.Spec.Ports {
		for _, a := range e.addrs[:min(1, len(e.addrs))] {
			e.ports = append(e.ports, port{strings.ToLower(p.Name), protocolName(p.Protocol), uint16(p.Port), e.name, a})
		}
	}
	return e
}

func protocolName(p corev1.Protocol) string {
	return strings.ToLower(string(cmp.Or(p, corev1.ProtocolTCP)))
}

// addSlice adds the endpoints of a slice that are ready. A slice says so of endpoints that are not, too, if the service
// publishes them.
func (e *entry) addSlice(s *discoveryv1.EndpointSlice) {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return
	}
	for _, ep := range s.Endpoints {
		if ep.Conditions.Ready != nil && !*ep.Conditions.Ready {
			continue
		}
		for _, text := range ep.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue
			}
			host := strings.NewReplacer(".", "-", ":", "-").Replace(text)
			if ep.Hostname != nil && *ep.Hostname != "" {
				host = strings.ToLower(*ep.Hostname)
			}
			e.endpoints = append(e.endpoints, endpoint{a, host})
			for _, p := range s.Ports {
				if p.Port != nil {
					e.ports = append(e.ports, port{strings.ToLower(deref(p.Name)), protocolName(deref(p.Protocol)), uint16(*p.Port), host + "." + e.name, a})
				}
			}
		}
	}
}

func deref[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// service finds a service by its name and namespace.
func (z *zone) service(name, namespace string) (*entry, bool) {
	e, ok := z.services.Load(name + "." + namespace)
	if !ok {
		return nil, false
	}
	return e.(*entry), true
}

// namespaceExists reports whether the namespace has a service, which tells an empty answer from none.
func (z *zone) namespaceExists(namespace string) bool {
	_, ok := z.namespaces.Load(namespace)
	return ok
}

func (z *zone) nameOf(a netip.Addr) (string, bool) {
	name, ok := z.reverse.Load(a)
	if !ok {
		return "", false
	}
	return name.(string), true
}
