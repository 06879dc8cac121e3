// Package quota keeps the usage in the status of ResourceQuotas.
//
// Invariant: usage is counted afresh from the caches each time, never carried on from a former count, so that it
// cannot drift; admission adds to it in between. Only controllers/ may import quota.
package quota

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/skiff-sh/skiff/controllers/pods"
)

// World is what usage is counted from, in one namespace.
type World struct {
	Pods     []*corev1.Pod
	Services []*corev1.Service
	Claims   []*corev1.PersistentVolumeClaim
	// Count gives the number of objects of a resource ("configmaps", "deployments.apps"); false if it is not served.
	Count func(resource string) (int, bool)
}

// Usage counts all resources that the quota limits.
func Usage(q *corev1.ResourceQuota, w World) corev1.ResourceList {
	out := corev1.ResourceList{}
	var scoped []*corev1.Pod
	for _, p := range w.Pods {
		if !pods.Finished(p) && inScopes(q, p) {
			scoped = append(scoped, p)
		}
	}
	for name := range q.Spec.Hard {
		if n, ok := used(name, scoped, w); ok {
			out[name] = n
		}
	}
	return out
}

func count(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }

func used(name corev1.ResourceName, scoped []*corev1.Pod, w World) (resource.Quantity, bool) {
	switch name {
	case corev1.ResourcePods:
		return count(len(scoped)), true
	case corev1.ResourceServicesNodePorts:
		n := 0
		for _, s := range w.Services {
			n += nodePorts(s)
		}
		return count(n), true
	case corev1.ResourceServicesLoadBalancers:
		n := 0
		for _, s := range w.Services {
			if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
				n++
			}
		}
		return count(n), true
	case corev1.ResourceRequestsStorage:
		return storage(w.Claims, ""), true
	case corev1.ResourceServices, corev1.ResourceReplicationControllers, corev1.ResourceQuotas, corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims:
		n, ok := w.Count(string(name))
		return count(n), ok
	}
	s := string(name)
	if res, ok := strings.CutPrefix(s, "count/"); ok {
		n, ok := w.Count(res)
		return count(n), ok
	}
	if class, what, ok := strings.Cut(s, ".storageclass.storage.k8s.io/"); ok {
		if what == string(corev1.ResourceRequestsStorage) {
			return storage(w.Claims, class), true
		}
		return count(len(ofClass(w.Claims, class))), true
	}
	return compute(s, scoped), true
}

// compute sums a compute resource over the pods: "limits." asks for limits, "requests." or nothing for requests.
func compute(name string, list []*corev1.Pod) resource.Quantity {
	var sum resource.Quantity
	limit, isLimit := strings.CutPrefix(name, "limits.")
	request := strings.TrimPrefix(name, "requests.")
	for _, p := range list {
		var rl corev1.ResourceList
		key := corev1.ResourceName(request)
		if isLimit {
			rl, key = resourcehelper.PodLimits(p, resourcehelper.PodResourcesOptions{}), corev1.ResourceName(limit)
		} else {
			rl = resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
		}
		if q, ok := rl[key]; ok {
			sum.Add(q)
		}
	}
	if sum.IsZero() {
		return count(0)
	}
	return sum
}

func nodePorts(s *corev1.Service) int {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		n := 0
		for _, p := range s.Spec.Ports {
			if p.NodePort != 0 {
				n++
			}
		}
		return n
	}
	return 0
}

func ofClass(claims []*corev1.PersistentVolumeClaim, class string) []*corev1.PersistentVolumeClaim {
	if class == "" {
		return claims
	}
	return slices.DeleteFunc(slices.Clone(claims), func(c *corev1.PersistentVolumeClaim) bool {
		return c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != class
	})
}

func storage(claims []*corev1.PersistentVolumeClaim, class string) resource.Quantity {
	sum := *resource.NewQuantity(0, resource.BinarySI)
	for _, c := range ofClass(claims, class) {
		if q, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]; ok {
			sum.Add(q)
		}
	}
	return sum
}

// inScopes reports whether the quota is about the pod.
func inScopes(q *corev1.ResourceQuota, p *corev1.Pod) bool {
	for _, s := range q.Spec.Scopes {
		if !inScope(p, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists}) {
			return false
		}
	}
	if q.Spec.ScopeSelector != nil {
		for _, r := range q.Spec.ScopeSelector.MatchExpressions {
			if !inScope(p, r) {
				return false
			}
		}
	}
	return true
}

func inScope(p *corev1.Pod, r corev1.ScopedResourceSelectorRequirement) bool {
	switch r.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
	case corev1.ResourceQuotaScopeNotTerminating:
		return p.Spec.ActiveDeadlineSeconds == nil
	case corev1.ResourceQuotaScopeBestEffort:
		return bestEffort(p)
	case corev1.ResourceQuotaScopeNotBestEffort:
		return !bestEffort(p)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossNamespace(p)
	case corev1.ResourceQuotaScopePriorityClass:
		switch r.Operator {
		case corev1.ScopeSelectorOpIn:
			return slices.Contains(r.Values, p.Spec.PriorityClassName)
		case corev1.ScopeSelectorOpNotIn:
			return !slices.Contains(r.Values, p.Spec.PriorityClassName)
		case corev1.ScopeSelectorOpDoesNotExist:
			return p.Spec.PriorityClassName == ""
		}
		return p.Spec.PriorityClassName != ""
	}
	return false
}

func bestEffort(p *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			for _, rl := range []corev1.ResourceList{list[i].Resources.Requests, list[i].Resources.Limits} {
				for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
					if q, ok := rl[name]; ok && !q.IsZero() {
						return false
					}
				}
			}
		}
	}
	return true
}

func crossNamespace(p *corev1.Pod) bool {
	a := p.Spec.Affinity
	if a == nil {
		return false
	}
	var terms []corev1.PodAffinityTerm
	add := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		terms = append(terms, required...)
		for _, w := range preferred {
			terms = append(terms, w.PodAffinityTerm)
		}
	}
	if x := a.PodAffinity; x != nil {
		add(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if x := a.PodAntiAffinity; x != nil {
		add(x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return slices.ContainsFunc(terms, func(t corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil })
}
