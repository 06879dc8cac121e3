package pods

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// TargetPort resolves a Service's port to the pod's own: a number, or the name of a container's port.
func TargetPort(p *corev1.Pod, sp *corev1.ServicePort) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return sp.Port, true
		}
		return sp.TargetPort.IntVal, true
	}
	named := func(c *corev1.Container) (int32, bool) {
		for _, port := range c.Ports {
			if port.Name == sp.TargetPort.StrVal && protocol(port.Protocol) == protocol(sp.Protocol) {
				return port.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range p.Spec.Containers {
		if n, ok := named(&p.Spec.Containers[i]); ok {
			return n, true
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if n, ok := named(c); ok {
				return n, true
			}
		}
	}
	return 0, false
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// Selects reports whether the Service's selector, which must not be empty, matches the pod.
func Selects(svc *corev1.Service, p *corev1.Pod) bool {
	for k, v := range svc.Spec.Selector {
		if have, ok := p.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Services makes the Services due that select a pod whose network identity or readiness changed.
func Services(cs *client.Caches, services client.Reader[*corev1.Service]) reconcile.Input {
	return reconcile.Map(cs, func(old, new *corev1.Pod) []reconcile.Key {
		if old != nil && new != nil && sameEndpoint(old, new) {
			return nil
		}
		var keys []reconcile.Key
		namespace := ""
		if old != nil {
			namespace = old.Namespace
		} else {
			namespace = new.Namespace
		}
		for _, svc := range services.List(namespace) {
			if len(svc.Spec.Selector) == 0 {
				continue
			}
			if old != nil && Selects(svc, old) || new != nil && Selects(svc, new) {
				keys = append(keys, reconcile.Key{Namespace: svc.Namespace, Name: svc.Name})
			}
		}
		return keys
	})
}

func sameEndpoint(a, b *corev1.Pod) bool {
	return Ready(a) == Ready(b) && a.Status.Phase == b.Status.Phase && a.Spec.NodeName == b.Spec.NodeName &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && slices.Equal(a.Status.PodIPs, b.Status.PodIPs) &&
		a.Status.PodIP == b.Status.PodIP && maps.Equal(a.Labels, b.Labels)
}
