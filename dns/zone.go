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

// zone is what is known of services and their endpoints, ready to be asked by name. Reads and changes take turns by a
// read-write lock that is held for one map access.
type zone struct {
	domain string // "cluster.local.", lower case

	mu       sync.RWMutex
	services map[string]*entry      // by "name.namespace"
	reverse  map[netip.Addr]string  // full name by address
	slices   map[string]*sliceFacts // by "namespace/slice"
}

// entry is one service.
type entry struct {
	name, namespace string
	addrs           []netip.Addr // cluster addresses; none for a headless service
	external        string       // the name that an ExternalName service stands for
	ports           []corev1.ServicePort
	headless        bool
	known           bool                   // the service itself, not only slices of it
	slices          map[string]*sliceFacts // of its endpoints
}

// sliceFacts is what the zone needs of one endpoint slice.
type sliceFacts struct {
	service   string
	ports     []discoveryv1.EndpointPort
	endpoints []endpoint
}

type endpoint struct {
	addr     netip.Addr
	hostname string // or the address with dashes
}

func newZone(domain string) *zone {
	return &zone{domain: mdns.Fqdn(strings.ToLower(domain)), services: map[string]*entry{}, reverse: map[netip.Addr]string{},
		slices: map[string]*sliceFacts{}}
}

func (z *zone) entryFor(key string) *entry {
	e, ok := z.services[key]
	if !ok {
		name, namespace, _ := strings.Cut(key, ".")
		e = &entry{name: name, namespace: namespace, slices: map[string]*sliceFacts{}}
		z.services[key] = e
	}
	return e
}

func (z *zone) drop(key string) {
	if e := z.services[key]; e != nil && !e.known && len(e.slices) == 0 {
		delete(z.services, key)
	}
}

// setService takes a new, changed or (s is nil) deleted service.
func (z *zone) setService(old, s *corev1.Service) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if old != nil {
		key := old.Name + "." + old.Namespace
		e := z.entryFor(key)
		for _, a := range e.addrs {
			delete(z.reverse, a)
		}
		e.known, e.addrs, e.external, e.ports, e.headless = false, nil, "", nil, false
		z.drop(key)
	}
	if s == nil {
		return
	}
	e := z.entryFor(s.Name + "." + s.Namespace)
	e.known, e.ports = true, s.Spec.Ports
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		e.external = mdns.Fqdn(s.Spec.ExternalName)
		return
	}
	e.headless = s.Spec.ClusterIP == corev1.ClusterIPNone
	ips := s.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{s.Spec.ClusterIP}
	}
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil {
			e.addrs = append(e.addrs, a)
			z.reverse[a] = s.Name + "." + s.Namespace + ".svc." + z.domain
		}
	}
}

// setSlice takes a new, changed or (s is nil) deleted endpoint slice.
func (z *zone) setSlice(old, s *discoveryv1.EndpointSlice) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if old != nil {
		key := old.Namespace + "/" + old.Name
		if facts := z.slices[key]; facts != nil {
			service := facts.service
			for _, ep := range facts.endpoints {
				if strings.HasSuffix(z.reverse[ep.addr], "."+service+".svc."+z.domain) {
					delete(z.reverse, ep.addr)
				}
			}
			delete(z.slices, key)
			delete(z.entryFor(service).slices, key)
			z.drop(service)
		}
	}
	if s == nil || s.Labels[discoveryv1.LabelServiceName] == "" || s.AddressType == discoveryv1.AddressTypeFQDN {
		return
	}
	facts := factsOf(s)
	key := s.Namespace + "/" + s.Name
	z.slices[key] = facts
	z.entryFor(facts.service).slices[key] = facts
	for _, ep := range facts.endpoints {
		if _, taken := z.reverse[ep.addr]; !taken && z.services[facts.service].headless {
			z.reverse[ep.addr] = ep.hostname + "." + facts.service + ".svc." + z.domain
		}
	}
}

func factsOf(s *discoveryv1.EndpointSlice) *sliceFacts {
	facts := &sliceFacts{service: s.Labels[discoveryv1.LabelServiceName] + "." + s.Namespace, ports: s.Ports}
	for _, ep := range s.Endpoints {
		// A slice says "ready" for services that publish addresses that are not.
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
			facts.endpoints = append(facts.endpoints, endpoint{a, host})
		}
	}
	return facts
}

// service finds a service by its name and namespace. The copy may be read without the lock: its slices are never changed.
func (z *zone) service(name, namespace string) (e entry, ok bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	found := z.services[name+"."+namespace]
	if found == nil || !found.known {
		return entry{}, false
	}
	e = *found
	e.slices = make(map[string]*sliceFacts, len(found.slices))
	for k, v := range found.slices {
		e.slices[k] = v
	}
	return e, true
}

// namespaceExists reports whether any service of the namespace is known, which tells an empty answer from none.
func (z *zone) namespaceExists(namespace string) bool {
	z.mu.RLock()
	defer z.mu.RUnlock()
	for _, e := range z.services {
		if e.namespace == namespace && e.known {
			return true
		}
	}
	return false
}

func (z *zone) nameOf(a netip.Addr) (string, bool) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	name, ok := z.reverse[a]
	return name, ok
}

// endpoints are the distinct endpoints of a service, in the order of their addresses.
func (e *entry) endpoints() []endpoint {
	var out []endpoint
	for _, s := range e.slices {
		out = append(out, s.endpoints...)
	}
	slices.SortFunc(out, func(a, b endpoint) int { return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.hostname, b.hostname)) })
	return slices.Compact(out)
}
