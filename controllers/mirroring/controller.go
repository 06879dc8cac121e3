// Package mirroring copies Endpoints that users write, for Services without a selector, into EndpointSlices.
//
// Invariant: only Endpoints of a Service without a selector are copied, and only slices with this manager's label are
// written. Only controllers/ may import mirroring.
package mirroring

import (
	"context"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/endpointslice"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	managedBy        = "endpointslicemirroring-controller.k8s.io"
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

// New is the mirroring controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	services, all, existing := client.CacheOf[*corev1.Service](cs), client.CacheOf[*corev1.Endpoints](cs), endpointslice.ByService(cs)
	return reconcile.Controller{
		Name:   "endpointslice-mirroring-controller",
		Inputs: []reconcile.Input{reconcile.Own[*corev1.Service](cs), reconcile.Own[*corev1.Endpoints](cs), endpointslice.Changed(cs, managedBy)},
		Writes: []string{"discovery.k8s.io/endpointslices"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			have := endpointslice.Of(existing, key.Namespace, key.Name)
			e, _ := all.Get(key.Namespace, key.Name)
			svc, _ := services.Get(key.Namespace, key.Name)
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(svc, e, have)...)
		},
	}
}

// Plan copies the Endpoints, or removes the copies where there is nothing to copy. Svc and e may be nil.
func Plan(svc *corev1.Service, e *corev1.Endpoints, have []*discoveryv1.EndpointSlice) []plan.Action {
	if svc == nil || e == nil || !mirrored(svc, e) {
		var actions []plan.Action
		for _, s := range have {
			if s.Labels[discoveryv1.LabelManagedBy] == managedBy && s.DeletionTimestamp == nil {
				actions = append(actions, plan.Delete{Obj: s})
			}
		}
		return actions
	}
	labels := maps.Clone(e.Labels)
	delete(labels, "endpoints.kubernetes.io/managed-by")
	packer := endpointslice.Packer{Owner: e, OwnerKind: corev1.SchemeGroupVersion.WithKind("Endpoints"), Name: e.Name, ManagedBy: managedBy,
		Labels: endpointslice.Labels(labels, e.Name, managedBy, false)}
	want := map[discoveryv1.AddressType][]endpointslice.Group{}
	for _, sub := range e.Subsets {
		ports := []discoveryv1.EndpointPort{}
		for _, p := range sub.Ports {
			ports = append(ports, discoveryv1.EndpointPort{Name: ptr.To(p.Name), Port: ptr.To(p.Port), Protocol: ptr.To(p.Protocol), AppProtocol: p.AppProtocol})
		}
		groups := map[discoveryv1.AddressType]*endpointslice.Group{}
		add(groups, ports, sub.Addresses, true)
		add(groups, ports, sub.NotReadyAddresses, false)
		for family, g := range groups {
			want[family] = append(want[family], *g)
		}
	}
	return packer.Plan(want, have)
}

func mirrored(svc *corev1.Service, e *corev1.Endpoints) bool {
	_, leader := e.Annotations[leaderAnnotation]
	return svc.Spec.Selector == nil && svc.DeletionTimestamp == nil && e.DeletionTimestamp == nil && !leader &&
		e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

func add(groups map[discoveryv1.AddressType]*endpointslice.Group, ports []discoveryv1.EndpointPort, from []corev1.EndpointAddress, ready bool) {
	for _, a := range from {
		ip, err := netip.ParseAddr(a.IP)
		if err != nil {
			continue
		}
		family := discoveryv1.AddressTypeIPv4
		if ip.Is6() {
			family = discoveryv1.AddressTypeIPv6
		}
		g := groups[family]
		if g == nil {
			g = &endpointslice.Group{Ports: ports}
			groups[family] = g
		}
		e := discoveryv1.Endpoint{Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready)}, TargetRef: a.TargetRef, NodeName: a.NodeName}
		if a.Hostname != "" {
			e.Hostname = ptr.To(a.Hostname)
		}
		g.Endpoints = append(g.Endpoints, e)
	}
}
