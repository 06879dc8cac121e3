package aggregation

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/server/internal/read"
)

// place is what the store says about where an extension server is to be found.
type place struct {
	service *corev1.Service // nil: there is none
	slices  []*discoveryv1.EndpointSlice
}

func (s *Server) place(ref *apiregistrationv1.ServiceReference) place {
	var p place
	svc, ok := read.Get[*corev1.Service](s.Store, ref.Namespace, ref.Name)
	if !ok {
		return p
	}
	p.service = svc
	for sl := range read.All[*discoveryv1.EndpointSlice](s.Store, ref.Namespace) {
		if sl.Labels[discoveryv1.LabelServiceName] == ref.Name {
			p.slices = append(p.slices, sl)
		}
	}
	return p
}

// fault says what is missing for the server to be found; reason is "" if nothing is.
func (p place) fault(ref *apiregistrationv1.ServiceReference) (reason, message string) {
	switch {
	case p.service == nil:
		return "ServiceNotFound", fmt.Sprintf("service/%s in %q is not present", ref.Name, ref.Namespace)
	case p.service.Spec.Type != corev1.ServiceTypeClusterIP:
		return "", "" // who is behind it is not known here
	}
	sp := servicePort(p.service, port(ref))
	switch {
	case sp == nil:
		return "ServicePortError", fmt.Sprintf("service/%s in %q is not listening on port %d", ref.Name, ref.Namespace, port(ref))
	case len(p.slices) == 0:
		return "EndpointsNotFound", fmt.Sprintf("cannot find endpointslices for service/%s in %q", ref.Name, ref.Namespace)
	case len(p.hosts(sp.Name)) == 0:
		return "MissingEndpoints", fmt.Sprintf("endpointslices for service/%s in %q have no addresses with port name %q", ref.Name, ref.Namespace, sp.Name)
	}
	return "", ""
}

// host is an address ("10.0.0.1:443") of the server; pick chooses one of n.
func (p place) host(ref *apiregistrationv1.ServiceReference, pick func(n int) int) (string, error) {
	if p.service == nil {
		return "", fmt.Errorf("service %q not found", ref.Name)
	}
	if p.service.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(p.service.Spec.ExternalName, strconv.Itoa(int(port(ref)))), nil
	}
	sp := servicePort(p.service, port(ref))
	if sp == nil {
		return "", fmt.Errorf("no service port %d found for service %q", port(ref), ref.Name)
	}
	hosts := p.hosts(sp.Name)
	if len(hosts) == 0 {
		return "", fmt.Errorf("no endpoints available for service %q", ref.Name)
	}
	return hosts[pick(len(hosts))], nil
}

// hosts are the ready addresses of the service's first address family that has any.
func (p place) hosts(portName string) []string {
	families := []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}
	if f := p.service.Spec.IPFamilies; len(f) > 0 && f[0] == corev1.IPv6Protocol {
		slices.Reverse(families)
	}
	for _, family := range families {
		var out []string
		for _, sl := range p.slices {
			if sl.AddressType == family {
				out = append(out, readyHosts(sl, portName)...)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

func readyHosts(sl *discoveryv1.EndpointSlice, portName string) []string {
	var out []string
	for _, p := range sl.Ports {
		if p.Name == nil || *p.Name != portName || p.Port == nil {
			continue
		}
		for _, ep := range sl.Endpoints {
			if (ep.Conditions.Ready == nil || *ep.Conditions.Ready) && len(ep.Addresses) > 0 {
				out = append(out, net.JoinHostPort(ep.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}

func servicePort(svc *corev1.Service, port int32) *corev1.ServicePort {
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Port == port {
			return &svc.Spec.Ports[i]
		}
	}
	return nil
}

// port is the service's port that the server listens on.
func port(ref *apiregistrationv1.ServiceReference) int32 {
	if ref.Port == nil {
		return 443
	}
	return *ref.Port
}
