package callout

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// Endpoint is the address of a ready pod behind a service's port, chosen at random.
func Endpoint(st store.Store, namespace, name string, port int32) (string, error) {
	svc, ok := read.Get[*corev1.Service](st, namespace, name)
	if !ok {
		return "", fmt.Errorf("service %q not found", name)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port))), nil
	}
	var found *corev1.ServicePort
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Port == port {
			found = &svc.Spec.Ports[i]
		}
	}
	if found == nil {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, name))
	}
	var addrs []string
	for sl := range read.All[*discoveryv1.EndpointSlice](st, namespace) {
		if sl.Labels[discoveryv1.LabelServiceName] == name {
			addrs = append(addrs, ready(sl, found.Name)...)
		}
	}
	if len(addrs) == 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	return addrs[rand.IntN(len(addrs))], nil
}

// ready is the addresses of a slice's ready endpoints at a named port.
func ready(sl *discoveryv1.EndpointSlice, portName string) []string {
	var out []string
	for _, p := range sl.Ports {
		if p.Port == nil || p.Name != nil && *p.Name != portName || p.Name == nil && portName != "" {
			continue
		}
		for _, e := range sl.Endpoints {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
				out = append(out, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}
