// Package endpoints keeps the Endpoints object of every Service with a selector, for clients that do not know slices.
//
// Invariant: the object lists the pods that the Service selects, by the same rules as the slices but without those
// that are terminating. Only controllers/ may import endpoints.
package endpoints

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
	// capacity bounds the addresses of one object; what is beyond is left out.
	capacity = 1000
)

// Plan creates or updates the Endpoints of a Service. Have is nil where there is none.
func Plan(svc *corev1.Service, selected []*corev1.Pod, have *corev1.Endpoints) []plan.Action {
	if svc.Spec.Selector == nil || svc.DeletionTimestamp != nil {
		return nil
	}
	next := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}}
	if have != nil {
		next = have.DeepCopy()
	}
	truncated := false
	next.Subsets, truncated = subsets(svc, selected)
	next.Labels = maps.Clone(svc.Labels)
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	next.Labels[managedByLabel] = managedBy
	delete(next.Labels, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		next.Labels[corev1.IsHeadlessService] = ""
	}
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	delete(next.Annotations, corev1.EndpointsOverCapacity)
	if truncated {
		next.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	}
	if have == nil {
		stamp(next, svc, selected)
		return []plan.Action{plan.Create{Obj: next}}
	}
	if equality.Semantic.DeepEqual(have.Subsets, next.Subsets) && maps.Equal(have.Labels, next.Labels) && maps.Equal(have.Annotations, next.Annotations) {
		return nil
	}
	stamp(next, svc, selected)
	return []plan.Action{plan.Update{Obj: next}}
}

func stamp(e *corev1.Endpoints, svc *corev1.Service, selected []*corev1.Pod) {
	t := svc.CreationTimestamp.Time
	for _, p := range selected {
		if c := pods.Condition(p, corev1.PodReady); c != nil && c.LastTransitionTime.After(t) {
			t = c.LastTransitionTime.Time
		}
	}
	if !t.IsZero() {
		e.Annotations[corev1.EndpointsLastChangeTriggerTime] = t.UTC().Format(time.RFC3339Nano)
	}
}

// subsets groups the pods' addresses by their ports, in a fixed order.
func subsets(svc *corev1.Service, selected []*corev1.Pod) (out []corev1.EndpointSubset, truncated bool) {
	byPorts := map[string]*corev1.EndpointSubset{}
	selected = slices.Clone(selected)
	slices.SortFunc(selected, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	total := 0
	for _, p := range selected {
		ip := address(svc, p)
		if ip == "" || pods.Finished(p) || p.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		ports, key := portsOf(svc, p)
		if len(ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue // no such port in this pod
		}
		if total++; total > capacity {
			truncated = true
			continue
		}
		s := byPorts[key]
		if s == nil {
			s = &corev1.EndpointSubset{Ports: ports}
			byPorts[key] = s
		}
		a := corev1.EndpointAddress{IP: ip, NodeName: ptr.To(p.Spec.NodeName),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
			a.Hostname = p.Spec.Hostname
		}
		if svc.Spec.PublishNotReadyAddresses || pods.Ready(p) {
			s.Addresses = append(s.Addresses, a)
		} else {
			s.NotReadyAddresses = append(s.NotReadyAddresses, a)
		}
	}
	byIP := func(a, b corev1.EndpointAddress) int { return cmp.Compare(a.IP, b.IP) }
	for _, k := range slices.Sorted(maps.Keys(byPorts)) {
		s := byPorts[k]
		slices.SortStableFunc(s.Addresses, byIP)
		slices.SortStableFunc(s.NotReadyAddresses, byIP)
		out = append(out, *s)
	}
	return out, truncated
}

// address is the pod's address of the Service's first family.
func address(svc *corev1.Service, p *corev1.Pod) string {
	v6 := len(svc.Spec.IPFamilies) > 0 && svc.Spec.IPFamilies[0] == corev1.IPv6Protocol
	for _, ip := range p.Status.PodIPs {
		if strings.Contains(ip.IP, ":") == v6 {
			return ip.IP
		}
	}
	if len(p.Status.PodIPs) == 0 && strings.Contains(p.Status.PodIP, ":") == v6 {
		return p.Status.PodIP
	}
	return ""
}

func portsOf(svc *corev1.Service, p *corev1.Pod) (out []corev1.EndpointPort, key string) {
	var parts []string
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		if n, ok := pods.TargetPort(p, sp); ok {
			out = append(out, corev1.EndpointPort{Name: sp.Name, Port: n, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
			parts = append(parts, fmt.Sprintf("%s|%d|%s", sp.Name, n, sp.Protocol))
		}
	}
	return out, strings.Join(parts, ",")
}
