package streams

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/skiff-sh/skiff/api"
)

// get finds an object in the cache.
func get[T api.Object](s *Streams, gvk schema.GroupVersionKind, namespace, name string) (T, error) {
	var zero T
	k, ok := s.cfg.Kinds.Kind(gvk)
	if !ok {
		return zero, apierrors.NewInternalError(fmt.Errorf("no row for %s", gvk))
	}
	e, ok := s.cfg.Store.Snapshot(k.Prefix("")).Get(k.Key(namespace, name))
	if !ok {
		return zero, apierrors.NewNotFound(k.GroupResource(), name)
	}
	return e.Object.(T), nil
}

// nodeURL is the address of a node's kubelet API.
func (s *Streams) nodeURL(name string) (*url.URL, error) {
	n, err := get[*corev1.Node](s, corev1.SchemeGroupVersion.WithKind("Node"), "", name)
	if err != nil {
		return nil, err
	}
	port := int(n.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = 10250
	}
	for _, want := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeHostName, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			if a.Type == want && a.Address != "" {
				return &url.URL{Scheme: "https", Host: net.JoinHostPort(a.Address, strconv.Itoa(port))}, nil
			}
		}
	}
	return nil, apierrors.NewInternalError(fmt.Errorf("no preferred addresses found; known addresses: %v", n.Status.Addresses))
}

// podURL is the address that a proxy request's name means: [scheme:]pod[:port].
func (s *Streams) podURL(namespace, id string) (*url.URL, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
	}
	p, err := get[*corev1.Pod](s, corev1.SchemeGroupVersion.WithKind("Pod"), namespace, name)
	if err != nil {
		return nil, err
	}
	if scheme == "" {
		scheme = "http"
	}
	if port == "" {
		for _, c := range p.Spec.Containers {
			if len(c.Ports) > 0 {
				port = strconv.Itoa(int(c.Ports[0].ContainerPort))
				break
			}
		}
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		found := ""
		for _, c := range p.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == port {
					found = strconv.Itoa(int(cp.ContainerPort))
				}
			}
		}
		if found != "" {
			port = found
		}
	}
	if !routable(p.Status.PodIP) {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	host := p.Status.PodIP
	if port != "" {
		host = net.JoinHostPort(host, port)
	}
	return &url.URL{Scheme: scheme, Host: host}, nil
}

// routable keeps proxies from the server's own loopback and link-local addresses.
func routable(ip string) bool {
	a := net.ParseIP(ip)
	return a != nil && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsUnspecified()
}

// serviceURL is the address of one ready endpoint of [scheme:]service[:port].
func (s *Streams) serviceURL(namespace, id string, pick func(n int) int) (*url.URL, error) {
	scheme, name, port, ok := utilnet.SplitSchemeNamePort(id)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
	}
	svc, err := get[*corev1.Service](s, corev1.SchemeGroupVersion.WithKind("Service"), namespace, name)
	if err != nil {
		return nil, err
	}
	portName, err := servicePort(svc, id, port)
	if err != nil {
		return nil, err
	}
	if scheme == "" {
		scheme = "http"
	}
	k, ok := s.cfg.Kinds.Kind(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"))
	if !ok {
		return nil, apierrors.NewInternalError(errors.New("no row for EndpointSlice"))
	}
	var hosts []string
	for e := range s.cfg.Store.Snapshot(k.Prefix("")).Scan(k.Prefix(namespace), "") {
		sl := e.Object.(*discoveryv1.EndpointSlice)
		if sl.Labels[discoveryv1.LabelServiceName] == name {
			hosts = append(hosts, sliceHosts(sl, portName)...)
		}
	}
	if len(hosts) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", id))
	}
	slices.Sort(hosts)
	return &url.URL{Scheme: scheme, Host: hosts[pick(len(hosts))]}, nil
}

// servicePort is the name of the port that is meant: by name, by number, or the only one.
func servicePort(svc *corev1.Service, id, port string) (string, error) {
	if port == "" {
		if len(svc.Spec.Ports) > 0 {
			if len(svc.Spec.Ports) > 1 {
				for _, p := range svc.Spec.Ports {
					if p.Name == "" {
						return "", nil
					}
				}
			}
			return svc.Spec.Ports[0].Name, nil
		}
		return "", nil
	}
	for _, p := range svc.Spec.Ports {
		if p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %q found for service %q", port, strings.Split(id, ":")[0]))
}

func sliceHosts(sl *discoveryv1.EndpointSlice, portName string) []string {
	var hosts []string
	for _, p := range sl.Ports {
		if p.Port == nil || (p.Name == nil && portName != "") || (p.Name != nil && *p.Name != portName) {
			continue
		}
		for _, ep := range sl.Endpoints {
			if (ep.Conditions.Ready == nil || *ep.Conditions.Ready) && len(ep.Addresses) > 0 {
				hosts = append(hosts, net.JoinHostPort(ep.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return hosts
}
