package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// This file is about extended resources that a device class stands for (KEP-5004, DRAExtendedResource). Where a node has
// none of such a resource from a device plug-in, what a pod asks of it becomes a claim for devices of the class. The claim
// stands in for the requests: it exists only here until the pod is bound.

// standInUID is what a stand-in goes by while it is not written.
func standInUID(pod types.UID) types.UID { return "extended-resources-of-" + pod }

// standInFor is the pod that a claim that was written as a stand-in belongs to; "" for other claims.
func standInFor(claim *resourcev1.ResourceClaim) types.UID {
	if claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
		return ""
	}
	if owner := metav1.GetControllerOf(claim); owner != nil && owner.Kind == "Pod" {
		return owner.UID
	}
	return ""
}

// mapClasses works out which class stands for which resource: the newest that says so, of equally new ones the first by
// name. Each class also stands for a resource that has its own name.
func (c *Cluster) mapClasses() {
	c.standIns = make(map[corev1.ResourceName]*resourcev1.DeviceClass, len(c.deviceClasses))
	for _, class := range c.deviceClasses {
		c.standIns[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+class.Name)] = class
		if class.Spec.ExtendedResourceName == nil {
			continue
		}
		name := corev1.ResourceName(*class.Spec.ExtendedResourceName)
		other := c.standIns[name]
		if other == nil || cmp.Or(class.CreationTimestamp.Compare(other.CreationTimestamp.Time), strings.Compare(other.Name, class.Name)) > 0 {
			c.standIns[name] = class
		}
	}
}

// delegated are the extended resources that a pod gets from devices on a node, in order.
func (c *Cluster) delegated(asked *amount, n *node) (names []corev1.ResourceName) {
	if len(c.standIns) == 0 {
		return nil
	}
	for name, v := range asked.extended {
		if v > 0 && n.has.extended[name] <= 0 && c.standIns[name] != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mayHaveStandIn reports whether a class stands for one of a pod's extended resources.
func (c *Cluster) mayHaveStandIn(p *Pod) bool {
	for name, v := range p.asked.extended {
		if v > 0 && c.standIns[name] != nil {
			return true
		}
	}
	return false
}

// without is what is left to ask of a node's own resources.
func (a *amount) without(names []corev1.ResourceName) amount {
	b := *a
	b.extended = maps.Clone(a.extended)
	for _, name := range names {
		delete(b.extended, name)
	}
	return b
}

// standIn is the claim for the devices that serve the named resources to a pod, and which of its requests each container
// uses. Containers that run at the same time have requests of their own. An init container that ends uses those of the
// containers that start after it; what is still lacking is one more request for all such init containers.
func (c *Cluster) standIn(p *corev1.Pod, names []corev1.ResourceName) (*resourcev1.ResourceClaim, []corev1.ContainerExtendedResourceRequest) {
	containers := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	ends := func(i int) bool {
		policy := containers[i].RestartPolicy
		return i < len(p.Spec.InitContainers) && (policy == nil || *policy != corev1.ContainerRestartPolicyAlways)
	}
	var requests []resourcev1.DeviceRequest
	var uses []corev1.ContainerExtendedResourceRequest
	for _, name := range names {
		use := func(i int, request string) {
			uses = append(uses, corev1.ContainerExtendedResourceRequest{ContainerName: containers[i].Name, ResourceName: string(name), RequestName: request})
		}
		lasting := make([]*resourcev1.DeviceRequest, len(containers))
		for i := range containers {
			if count := requestOf(&containers[i], name); count > 0 && !ends(i) {
				lasting[i] = c.standInRequest(containers, i, name, count)
				use(i, lasting[i].Name)
			}
		}
		var more *resourcev1.DeviceRequest
		var lacking []int
		for i := range p.Spec.InitContainers {
			count := requestOf(&containers[i], name)
			if count <= 0 || !ends(i) {
				continue
			}
			for _, later := range lasting[i:] {
				if later != nil && count > 0 {
					use(i, later.Name)
					count -= later.Exactly.Count
				}
			}
			if count > 0 {
				lacking = append(lacking, i)
				if more == nil || count > more.Exactly.Count {
					more = c.standInRequest(containers, i, name, count)
				}
			}
		}
		for _, i := range lacking {
			use(i, more.Name)
		}
		for _, r := range append(lasting, more) {
			if r != nil {
				requests = append(requests, *r)
			}
		}
	}
	slices.SortFunc(requests, func(a, b resourcev1.DeviceRequest) int { return cmp.Compare(a.Name, b.Name) })
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.Namespace, Name: "<extended-resources>", UID: standInUID(p.UID), GenerateName: p.Name + "-extended-resources-",
		Annotations:     map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: ptr.To(true)}},
	}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}, uses
}

// requestOf is how much a container requests.
func requestOf(container *corev1.Container, name corev1.ResourceName) int64 {
	q := container.Resources.Requests[name]
	count, _ := q.AsInt64()
	return count
}

// standInRequest is one container's request, named by its place and by that of the resource among all that it requests.
func (c *Cluster) standInRequest(containers []corev1.Container, i int, name corev1.ResourceName, count int64) *resourcev1.DeviceRequest {
	place := slices.Index(slices.Sorted(maps.Keys(containers[i].Resources.Requests)), name)
	return &resourcev1.DeviceRequest{Name: fmt.Sprintf("container-%d-request-%d", i, place), Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: c.standIns[name].Name, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}}
}

// claimsOn are the claims that a pod needs devices for on a node: those in todo, and its stand-in if it needs one there.
func (c *Cluster) claimsOn(p *Pod, n *node, todo []*resourcev1.ResourceClaim) ([]*resourcev1.ResourceClaim, []corev1.ContainerExtendedResourceRequest) {
	names := c.delegated(p.asked, n)
	if len(names) == 0 {
		return todo, nil
	}
	claim, uses := c.standIn(p.obj, names)
	return append(slices.Clip(todo), claim), uses
}

// Leftover is a stand-in that was written for a pod that was not bound after all; nil if there is none. It has to go before
// the pod can be tried anew.
func (c *Cluster) Leftover(p *Pod) *resourcev1.ResourceClaim { return c.written[p.obj.UID] }

// setStandIn notes that a stand-in is written; once it has its devices, they are no longer only promised.
func (c *Cluster) setStandIn(pod types.UID, claim *resourcev1.ResourceClaim) {
	c.written[pod] = claim
	if claim.Status.Allocation != nil {
		c.forgetStandIn(pod)
	}
}

// forgetStandIn takes back what was promised to a stand-in.
func (c *Cluster) forgetStandIn(pod types.UID) {
	if uid := standInUID(pod); c.promised[uid] {
		delete(c.promised, uid)
		c.count(uid, nil)
	}
}
