// Package endpointslice keeps the EndpointSlices of Services with a selector.
//
// Invariant: every ready or terminating pod that a Service selects is in exactly one slice for each address family,
// and a slice that is still right is not written. Only controllers/ may import endpointslice.
package endpointslice

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// ManagedBy is the value of the label that marks this controller's slices.
const ManagedBy = "endpointslice-controller.k8s.io"

// Plan brings the slices of one Service up to date. Zone gives the zone of a node, or "".
func Plan(svc *corev1.Service, selected []*corev1.Pod, zone func(node string) string, slices []*discoveryv1.EndpointSlice) []plan.Action {
	if svc.DeletionTimestamp != nil || svc.Spec.Selector == nil || svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	packer := Packer{Owner: svc, OwnerKind: corev1.SchemeGroupVersion.WithKind("Service"), Name: svc.Name, ManagedBy: ManagedBy,
		Labels: Labels(svc.Labels, svc.Name, ManagedBy, svc.Spec.ClusterIP == corev1.ClusterIPNone), Trigger: trigger(svc, selected), KeepEmpty: true}
	want := map[discoveryv1.AddressType][]Group{}
	for _, family := range families(svc) {
		want[family] = group(svc, family, selected, zone)
	}
	return packer.Plan(want, slices)
}

// families are the address types that the Service asks for.
func families(svc *corev1.Service) (out []discoveryv1.AddressType) {
	for _, f := range svc.Spec.IPFamilies {
		if f == corev1.IPv6Protocol {
			out = append(out, discoveryv1.AddressTypeIPv6)
		} else {
			out = append(out, discoveryv1.AddressTypeIPv4)
		}
	}
	if len(out) > 0 {
		return out
	}
	if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && a.Is6() {
		return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv6}
	}
	return []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4}
}

// group sorts the pods by the ports that the Service's names mean in them.
func group(svc *corev1.Service, family discoveryv1.AddressType, selected []*corev1.Pod, zone func(string) string) []Group {
	byPorts := map[string]*Group{}
	var order []string
	for _, p := range selected {
		addr := address(p, family)
		if addr == "" || pods.Finished(p) {
			continue
		}
		ports := portsOf(svc, p)
		key := portsKey(ports)
		g := byPorts[key]
		if g == nil {
			g = &Group{Ports: ports}
			byPorts[key] = g
			order = append(order, key)
		}
		g.Endpoints = append(g.Endpoints, endpoint(svc, p, addr, zone))
	}
	slices.Sort(order)
	out := make([]Group, 0, len(order))
	for _, k := range order {
		out = append(out, *byPorts[k])
	}
	return out
}

func address(p *corev1.Pod, family discoveryv1.AddressType) string {
	ips := p.Status.PodIPs
	if len(ips) == 0 && p.Status.PodIP != "" {
		ips = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	for _, ip := range ips {
		if strings.Contains(ip.IP, ":") == (family == discoveryv1.AddressTypeIPv6) {
			return ip.IP
		}
	}
	return ""
}

func portsOf(svc *corev1.Service, p *corev1.Pod) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		n, ok := pods.TargetPort(p, sp)
		if !ok {
			continue
		}
		out = append(out, discoveryv1.EndpointPort{Name: ptr.To(sp.Name), Port: &n, Protocol: ptr.To(sp.Protocol), AppProtocol: sp.AppProtocol})
	}
	return out
}

func portsKey(ports []discoveryv1.EndpointPort) string {
	parts := make([]string, len(ports))
	for i, p := range ports {
		parts[i] = fmt.Sprintf("%s|%d|%s|%s", ptr.Deref(p.Name, ""), ptr.Deref(p.Port, 0), ptr.Deref(p.Protocol, ""), ptr.Deref(p.AppProtocol, ""))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func endpoint(svc *corev1.Service, p *corev1.Pod, addr string, zone func(string) string) discoveryv1.Endpoint {
	serving, terminating := pods.Ready(p), p.DeletionTimestamp != nil
	e := discoveryv1.Endpoint{
		Addresses: []string{addr},
		Conditions: discoveryv1.EndpointConditions{
			Ready:       ptr.To(svc.Spec.PublishNotReadyAddresses || serving && !terminating),
			Serving:     &serving,
			Terminating: &terminating,
		},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if p.Spec.NodeName != "" {
		e.NodeName = ptr.To(p.Spec.NodeName)
		if z := zone(p.Spec.NodeName); z != "" {
			e.Zone = &z
		}
	}
	if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
		e.Hostname = ptr.To(p.Spec.Hostname)
	}
	return e
}

// Labels are a slice's labels: the owner's, and those that consumers select by.
func Labels(from map[string]string, service, managedBy string, headless bool) map[string]string {
	out := map[string]string{}
	maps.Copy(out, from)
	delete(out, corev1.IsHeadlessService)
	out[discoveryv1.LabelServiceName] = service
	out[discoveryv1.LabelManagedBy] = managedBy
	if headless {
		out[corev1.IsHeadlessService] = ""
	}
	return out
}

// trigger is the time of the last change that the slices answer to: the Service's creation, or a pod's change of
// readiness.
func trigger(svc *corev1.Service, selected []*corev1.Pod) time.Time {
	t := svc.CreationTimestamp.Time
	for _, p := range selected {
		if c := pods.Condition(p, corev1.PodReady); c != nil && c.LastTransitionTime.After(t) {
			t = c.LastTransitionTime.Time
		}
	}
	return t
}

// ours reports whether a slice is this manager's for the named service.
func ours(s *discoveryv1.EndpointSlice, managedBy string) bool {
	return s.Labels[discoveryv1.LabelManagedBy] == managedBy && s.DeletionTimestamp == nil
}
