package endpointslice

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// byService is the index of slices by "namespace/service".
const byService = "service"

// ByService is the cache of slices with the index that Of asks.
func ByService(cs *client.Caches) *client.Cache[*discoveryv1.EndpointSlice] {
	c := client.CacheOf[*discoveryv1.EndpointSlice](cs)
	c.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			return []string{s.Namespace + "/" + name}
		}
		return nil
	})
	return c
}

// Of returns the slices of one Service, whoever manages them.
func Of(c client.Reader[*discoveryv1.EndpointSlice], namespace, service string) []*discoveryv1.EndpointSlice {
	return c.By(byService, namespace+"/"+service)
}

// Changed makes the Services due whose slices of one manager changed.
func Changed(cs *client.Caches, managedBy string) reconcile.Input {
	return reconcile.Map(cs, func(old, new *discoveryv1.EndpointSlice) []reconcile.Key {
		var keys []reconcile.Key
		for _, s := range []*discoveryv1.EndpointSlice{old, new} {
			if s != nil && s.Labels[discoveryv1.LabelManagedBy] == managedBy && s.Labels[discoveryv1.LabelServiceName] != "" {
				keys = append(keys, reconcile.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]})
			}
		}
		return keys
	})
}

// Selected returns the pods of the Service's namespace that its selector matches.
func Selected(all client.Reader[*corev1.Pod], svc *corev1.Service) (out []*corev1.Pod) {
	for _, p := range all.List(svc.Namespace) {
		if pods.Selects(svc, p) {
			out = append(out, p)
		}
	}
	return out
}

// New is the EndpointSlice controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	services, all, nodes := client.CacheOf[*corev1.Service](cs), client.CacheOf[*corev1.Pod](cs), client.CacheOf[*corev1.Node](cs)
	existing := ByService(cs)
	zone := func(name string) string {
		n, ok := nodes.Get("", name)
		if !ok {
			return ""
		}
		return n.Labels[corev1.LabelTopologyZone]
	}
	return reconcile.Controller{
		Name:   "endpointslice-controller",
		Inputs: []reconcile.Input{reconcile.Own[*corev1.Service](cs), pods.Services(cs, services), Changed(cs, ManagedBy), zoneChanges(cs, services)},
		Writes: []string{"discovery.k8s.io/endpointslices"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			svc, ok := services.Get(key.Namespace, key.Name)
			if !ok || svc.Spec.Selector == nil {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(svc, Selected(all, svc), zone, Of(existing, key.Namespace, key.Name))...)
		},
	}
}

// zoneChanges makes all Services due when a node appears late or moves to another zone: rare enough not to be precise.
func zoneChanges(cs *client.Caches, services client.Reader[*corev1.Service]) reconcile.Input {
	return reconcile.Map(cs, func(old, new *corev1.Node) []reconcile.Key {
		before, after := "", ""
		if old != nil {
			before = old.Labels[corev1.LabelTopologyZone]
		}
		if new != nil {
			after = new.Labels[corev1.LabelTopologyZone]
		}
		if before == after || new == nil {
			return nil
		}
		var keys []reconcile.Key
		for _, svc := range services.List("") {
			keys = append(keys, plan.KeyOf(svc))
		}
		return keys
	})
}
