// Package quota says what an object counts for under a ResourceQuota. Admission adds it up as objects come, the
// resource quota controller counts what is there; both must agree, so both ask here.
//
// Invariant: pure; it reads its arguments only. server/admission and controllers may import quota.
package quota

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

const (
	storageClassSuffix = ".storageclass.storage.k8s.io/"
	deviceClassSuffix  = ".deviceclass.resource.k8s.io/devices"
	requestsPrefix     = corev1.DefaultResourceRequestsPrefix
)

var (
	pods     = schema.GroupResource{Resource: "pods"}
	services = schema.GroupResource{Resource: "services"}
	claims   = schema.GroupResource{Resource: "persistentvolumeclaims"}
	devices  = schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"}

	// plain is the kinds that a quota may also count by an older name than count/....
	plain = map[schema.GroupResource]corev1.ResourceName{
		{Resource: "configmaps"}:             corev1.ResourceConfigMaps,
		{Resource: "resourcequotas"}:         corev1.ResourceQuotas,
		{Resource: "replicationcontrollers"}: corev1.ResourceReplicationControllers,
		{Resource: "secrets"}:                corev1.ResourceSecrets,
	}

	podNames = []corev1.ResourceName{CountName(pods), corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage, corev1.ResourcePods}
	serviceNames = []corev1.ResourceName{CountName(services), corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers}
	claimNames   = []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}
)

// CountName is the name under which objects of a kind are counted: "count/deployments.apps".
func CountName(gr schema.GroupResource) corev1.ResourceName {
	return corev1.ResourceName("count/" + gr.String())
}

// Names is those of the names that objects of the kind count for.
func Names(gr schema.GroupResource, names []corev1.ResourceName) []corev1.ResourceName {
	var out []corev1.ResourceName
	for _, n := range names {
		if counts(gr, n) {
			out = append(out, n)
		}
	}
	return out
}

func counts(gr schema.GroupResource, n corev1.ResourceName) bool {
	if n == CountName(gr) {
		return true
	}
	switch gr {
	case pods:
		return slices.Contains(podNames, n) || strings.HasPrefix(string(n), corev1.ResourceHugePagesPrefix) ||
			strings.HasPrefix(string(n), corev1.ResourceRequestsHugePagesPrefix) || extendedForQuota(n)
	case services:
		return slices.Contains(serviceNames, n)
	case claims:
		return slices.ContainsFunc(claimNames, func(c corev1.ResourceName) bool {
			return n == c || strings.HasSuffix(string(n), storageClassSuffix+string(c))
		})
	case devices:
		return strings.HasSuffix(string(n), deviceClassSuffix)
	}
	return plain[gr] != "" && n == plain[gr]
}

// Usage is what one object counts for, by all the names that a quota may use. The time decides about pods that should
// be gone by now.
func Usage(gr schema.GroupResource, obj runtime.Object, now time.Time) corev1.ResourceList {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	out := corev1.ResourceList{CountName(gr): one}
	switch o := obj.(type) {
	case *corev1.Pod:
		podUsage(out, o, now)
	case *corev1.Service:
		serviceUsage(out, o)
	case *corev1.PersistentVolumeClaim:
		claimUsage(out, o)
	case *resourcev1.ResourceClaim:
		deviceUsage(out, o)
	default:
		if n := plain[gr]; n != "" {
			out[n] = one
		}
	}
	return out
}

func podUsage(out corev1.ResourceList, p *corev1.Pod, now time.Time) {
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return
	}
	if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil &&
		now.After(p.DeletionTimestamp.Add(time.Duration(*p.DeletionGracePeriodSeconds)*time.Second)) {
		return
	}
	o := resourcehelper.PodResourcesOptions{UseStatusResources: true}
	requests, limits := resourcehelper.PodRequests(p, o), resourcehelper.PodLimits(p, o)
	out[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := requests[n]; ok {
			out[n], out[requestsPrefix+n] = q, q
		}
		if q, ok := limits[n]; ok {
			out["limits."+n] = q
		}
	}
	for n, q := range requests {
		switch {
		case strings.HasPrefix(string(n), corev1.ResourceHugePagesPrefix):
			out[n], out[requestsPrefix+n] = q, q
		case extended(n):
			out[requestsPrefix+n] = q
		}
	}
}

func serviceUsage(out corev1.ResourceList, s *corev1.Service) {
	count := func(n int) resource.Quantity { return *resource.NewQuantity(int64(n), resource.DecimalSI) }
	out[corev1.ResourceServices] = count(1)
	ports, balancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers = 1
		for _, p := range s.Spec.Ports {
			if a := s.Spec.AllocateLoadBalancerNodePorts; a == nil || *a || p.NodePort != 0 {
				ports++
			}
		}
	}
	out[corev1.ResourceServicesNodePorts], out[corev1.ResourceServicesLoadBalancers] = count(ports), count(balancers)
}

func claimUsage(out corev1.ResourceList, c *corev1.PersistentVolumeClaim) {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	class := storagehelpers.GetPersistentVolumeClaimClass(c)
	out[corev1.ResourcePersistentVolumeClaims] = one
	if class != "" {
		out[corev1.ResourceName(class+storageClassSuffix)+corev1.ResourcePersistentVolumeClaims] = one
	}
	size, ok := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return
	}
	if allocated, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && allocated.Cmp(size) > 0 {
		size = allocated
	}
	size = size.DeepCopy()
	size.RoundUp(0)
	out[corev1.ResourceRequestsStorage] = size
	if class != "" {
		out[corev1.ResourceName(class+storageClassSuffix)+corev1.ResourceRequestsStorage] = size
	}
}

// deviceUsage charges the most that a claim may get: of "all" devices that is what one claim can hold at all.
func deviceUsage(out corev1.ResourceList, c *resourcev1.ResourceClaim) {
	charge := func(mode resourcev1.DeviceAllocationMode, count int64) int64 {
		if mode == resourcev1.DeviceAllocationModeAll {
			return resourcev1.AllocationResultsMaxSize
		}
		return count
	}
	add := func(class string, n int64) {
		name := corev1.ResourceName(class + deviceClassSuffix)
		q := out[name]
		q.Add(*resource.NewQuantity(n, resource.DecimalSI))
		out[name] = q
	}
	for _, r := range c.Spec.Devices.Requests {
		if r.Exactly != nil {
			add(r.Exactly.DeviceClassName, charge(r.Exactly.AllocationMode, r.Exactly.Count))
		}
		most := map[string]int64{}
		for _, s := range r.FirstAvailable {
			most[s.DeviceClassName] = max(most[s.DeviceClassName], charge(s.AllocationMode, s.Count))
		}
		for class, n := range most {
			add(class, n)
		}
	}
}

// Matches reports whether the quota is about this object: about its kind, and all its scopes hold.
func Matches(q *corev1.ResourceQuota, gr schema.GroupResource, obj runtime.Object) bool {
	return len(Names(gr, quotav1.ResourceNames(q.Status.Hard))) > 0 && InScope(q, obj)
}

// InScope reports whether all scopes of the quota hold for the object.
func InScope(q *corev1.ResourceQuota, obj runtime.Object) bool {
	for _, s := range q.Spec.Scopes {
		if !scope(corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists}, obj) {
			return false
		}
	}
	if q.Spec.ScopeSelector != nil {
		for _, r := range q.Spec.ScopeSelector.MatchExpressions {
			if !scope(r, obj) {
				return false
			}
		}
	}
	return true
}

func scope(r corev1.ScopedResourceSelectorRequirement, obj runtime.Object) bool {
	switch o := obj.(type) {
	case *corev1.Pod:
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeTerminating:
			return Terminating(o)
		case corev1.ResourceQuotaScopeNotTerminating:
			return !Terminating(o)
		case corev1.ResourceQuotaScopeBestEffort:
			return bestEffort(o)
		case corev1.ResourceQuotaScopeNotBestEffort:
			return !bestEffort(o)
		case corev1.ResourceQuotaScopePriorityClass:
			return selects(r, o.Spec.PriorityClassName)
		case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			return crossNamespace(o)
		}
	case *corev1.PersistentVolumeClaim:
		if r.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass {
			name := ""
			if o.Spec.VolumeAttributesClassName != nil {
				name = *o.Spec.VolumeAttributesClassName
			}
			return selects(r, name)
		}
	}
	return false
}

// selects applies a scope's operator to the one value that the object has; "" is no value.
func selects(r corev1.ScopedResourceSelectorRequirement, value string) bool {
	op, ok := map[corev1.ScopeSelectorOperator]selection.Operator{corev1.ScopeSelectorOpIn: selection.In, corev1.ScopeSelectorOpNotIn: selection.NotIn,
		corev1.ScopeSelectorOpExists: selection.Exists, corev1.ScopeSelectorOpDoesNotExist: selection.DoesNotExist}[r.Operator]
	if !ok {
		return false
	}
	req, err := labels.NewRequirement(string(r.ScopeName), op, r.Values)
	if err != nil {
		return false
	}
	set := labels.Set{}
	if value != "" {
		set[string(r.ScopeName)] = value
	}
	return req.Matches(set)
}

// Terminating reports whether the pod will end by itself.
func Terminating(p *corev1.Pod) bool {
	return p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
}

func bestEffort(p *corev1.Pod) bool {
	if p.Status.QOSClass != "" {
		return p.Status.QOSClass == corev1.PodQOSBestEffort
	}
	some := func(r corev1.ResourceList) bool {
		return !r.Cpu().IsZero() || !r.Memory().IsZero()
	}
	if p.Spec.Resources != nil && (some(p.Spec.Resources.Requests) || some(p.Spec.Resources.Limits)) {
		return false
	}
	for _, cs := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range cs {
			if some(cs[i].Resources.Requests) || some(cs[i].Resources.Limits) {
				return false
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
	other := func(t *corev1.PodAffinityTerm) bool { return len(t.Namespaces) > 0 || t.NamespaceSelector != nil }
	any := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) bool {
		return slices.ContainsFunc(required, func(t corev1.PodAffinityTerm) bool { return other(&t) }) ||
			slices.ContainsFunc(preferred, func(t corev1.WeightedPodAffinityTerm) bool { return other(&t.PodAffinityTerm) })
	}
	return (a.PodAffinity != nil && any(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)) ||
		(a.PodAntiAffinity != nil && any(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution))
}

// extended reports whether a name is that of a device or another resource outside kubernetes.io.
func extended(n corev1.ResourceName) bool {
	s := string(n)
	return strings.Contains(s, "/") && !strings.Contains(s, "kubernetes.io/") && !strings.HasPrefix(s, requestsPrefix)
}

func extendedForQuota(n corev1.ResourceName) bool {
	rest, ok := strings.CutPrefix(string(n), requestsPrefix)
	return ok && extended(corev1.ResourceName(rest))
}

// Charged reports whether a write to the kind's subresource can change what its objects count for. create tells a
// creation from an update.
func Charged(gr schema.GroupResource, subresource string, create bool) bool {
	switch gr {
	case pods:
		return subresource == "" || (subresource == "resize" && !create)
	case claims:
		return subresource == "" || (subresource == "status" && !create)
	case services, devices:
		return subresource == ""
	}
	return subresource == "" && create
}
