package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
)

// deviceChoice is what a claim gets on the chosen node.
type deviceChoice struct {
	claim      *resourcev1.ResourceClaim
	allocation *resourcev1.AllocationResult
	uses       []corev1.ContainerExtendedResourceRequest // of a stand-in
}

// patience bounds the search for devices on one node, which can be long when many constraints meet. It is upstream's.
const patience = 10 * time.Second

var allocatorFeatures = structured.Features{AdminAccess: true, PrioritizedList: true, PartitionableDevices: true, DeviceTaints: true,
	DeviceBindingAndStatus: true, ConsumableCapacity: true}

// claimsFor finds a pod's resource claims.
func (c *Cluster) claimsFor(p *Pod) ([]*resourcev1.ResourceClaim, error) {
	var out []*resourcev1.ResourceClaim
	for i := range p.obj.Spec.ResourceClaims {
		name, own, err := resourceclaim.Name(p.obj, &p.obj.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue // it was decided that the pod needs none
		}
		claim := c.resourceClaims[types.NamespacedName{Namespace: p.obj.Namespace, Name: *name}]
		if claim == nil {
			return nil, apierrors.NewNotFound(resourcev1.Resource("resourceclaim"), *name)
		}
		if claim.DeletionTimestamp != nil {
			return nil, fmt.Errorf("resourceclaim %q is being deleted", claim.Name)
		}
		if own {
			if err := resourceclaim.IsForPod(p.obj, claim, false); err != nil {
				return nil, err
			}
		}
		out = append(out, claim)
	}
	return out, nil
}

func (c *Cluster) claimsToAllocate(p *Pod) []*resourcev1.ResourceClaim {
	all, err := c.claimsFor(p)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(claim *resourcev1.ResourceClaim) bool { return claim.Status.Allocation != nil })
}

// devicesKey tells shapes apart by what their claims still need.
func (c *Cluster) devicesKey(p *Pod) string {
	if len(p.obj.Spec.ResourceClaims) == 0 {
		return ""
	}
	key := "|"
	for _, claim := range c.claimsToAllocate(p) {
		b, err := claim.Spec.Marshal()
		if err != nil {
			return "|" + string(p.obj.UID)
		}
		key += string(b) + "|"
	}
	return key
}

// claimRules checks what holds for a pod's claims whatever the node; the filter keeps it where what is allocated is.
func (c *Cluster) claimRules(p *Pod) (func(i int) code, Refusal) {
	if !p.profile.Filters[DynamicResources] {
		return nil, Refusal{}
	}
	no := func(format string, args ...any) Refusal {
		return Refusal{DynamicResources, fmt.Sprintf(format, args...), true}
	}
	if early := c.tooEarly(p); early.Reason != "" {
		return nil, early
	}
	if c.written[p.obj.UID] != nil {
		leftover := c.of(no("cannot schedule extended resource claim"))
		return func(int) code { return leftover }, Refusal{}
	}
	claims, _ := c.claimsFor(p)
	var placed []*nodeSelector
	broken := false
	for _, claim := range claims {
		if a := claim.Status.Allocation; a != nil {
			if a.NodeSelector != nil {
				placed = append(placed, c.selectorOf(a.NodeSelector))
			}
			broken = broken || failed(claim)
			continue
		}
		if c.promised[claim.UID] {
			return nil, no("resource claim %s/%s is in the process of being allocated", claim.Namespace, claim.Name)
		}
		for i := range claim.Spec.Devices.Requests {
			r := &claim.Spec.Devices.Requests[i]
			if r.Exactly != nil && c.deviceClasses[r.Exactly.DeviceClassName] == nil {
				return nil, no("request %s: device class %s does not exist", r.Name, r.Exactly.DeviceClassName)
			}
			for _, sub := range r.FirstAvailable {
				if c.deviceClasses[sub.DeviceClassName] == nil {
					return nil, no("request %s/%s: device class %s does not exist", r.Name, sub.Name, sub.DeviceClassName)
				}
			}
		}
	}
	if len(placed) == 0 && !broken {
		return nil, Refusal{}
	}
	elsewhere := c.of(no("resourceclaim not available on the node"))
	return func(i int) code {
		if broken || slices.ContainsFunc(placed, func(s *nodeSelector) bool { return !s.match(i) }) {
			return elsewhere
		}
		return 0
	}, Refusal{}
}

// tooEarly refuses a pod whose resource claims cannot be used, or are not there, yet.
func (c *Cluster) tooEarly(p *Pod) Refusal {
	if _, err := c.claimsFor(p); err != nil {
		return Refusal{DynamicResources, err.Error(), true}
	}
	return Refusal{}
}

// failed reports whether a device that a claim has said that it cannot be made ready.
func failed(claim *resourcev1.ResourceClaim) bool {
	_, err := DevicesReady(claim)
	return err != nil
}

// DevicesReady reports whether all conditions that a claim's devices must meet before a pod may be bound are met; an
// error says that one never will be.
func DevicesReady(claim *resourcev1.ResourceClaim) (bool, error) {
	if claim.Status.Allocation == nil {
		return false, nil
	}
	ready := true
	for i := range claim.Status.Allocation.Devices.Results {
		r := &claim.Status.Allocation.Devices.Results[i]
		if len(r.BindingConditions) == 0 {
			continue
		}
		at := slices.IndexFunc(claim.Status.Devices, func(d resourcev1.AllocatedDeviceStatus) bool {
			return d.Driver == r.Driver && d.Pool == r.Pool && d.Device == r.Device
		})
		if at < 0 {
			ready = false
			continue
		}
		conditions := claim.Status.Devices[at].Conditions
		for _, name := range r.BindingFailureConditions {
			if bad := apimeta.FindStatusCondition(conditions, name); bad != nil && bad.Status == "True" {
				return false, fmt.Errorf("claim=%s, reason=%s, message=%q", claim.Name, bad.Reason, bad.Message)
			}
		}
		for _, name := range r.BindingConditions {
			ready = ready && apimeta.IsStatusConditionTrue(conditions, name)
		}
	}
	return ready, nil
}

// devicesRule asks for every node whether it has the devices that the claims of a shape need. Pods of one shape have equal
// claims, so what one of them could get, another could.
func (c *Cluster) devicesRule(p *Pod) filter {
	todo := c.claimsToAllocate(p)
	if len(todo)+len(p.asked.extended) == 0 {
		return nil
	}
	no := c.of(Refusal{DynamicResources, "cannot allocate all claims", true})
	return func(n *node) code {
		claims, _ := c.claimsOn(p, n, todo)
		if len(claims) == 0 {
			return 0
		}
		_, err := c.allocate(n, claims)
		switch {
		case err == nil:
			return 0
		case errors.Is(err, errNoDevices):
			return no
		}
		return c.of(Refusal{DynamicResources, err.Error(), true})
	}
}

var errNoDevices = errors.New("cannot allocate all claims")

// allocate finds devices for claims on a node, without taking them.
func (c *Cluster) allocate(n *node, claims []*resourcev1.ResourceClaim) ([]resourcev1.AllocationResult, error) {
	list := make([]*resourcev1.ResourceSlice, 0, len(c.local[n.name])+len(c.shared))
	for _, s := range c.local[n.name] {
		list = append(list, s)
	}
	for _, s := range c.shared {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *resourcev1.ResourceSlice) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	allocator, err := structured.NewAllocator(ctx, allocatorFeatures, c.allocated, classLister(c.deviceClasses), list, c.compiled)
	if err != nil {
		return nil, err
	}
	found, err := allocator.Allocate(ctx, n.obj, claims)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("node %s: timed out trying to allocate devices", n.name)
	case err != nil:
		return nil, err
	case len(found) != len(claims):
		return nil, errNoDevices
	}
	return found, nil
}

// classLister is what the allocator reads classes through.
type classLister map[string]*resourcev1.DeviceClass

func (l classLister) List() ([]*resourcev1.DeviceClass, error) {
	out := make([]*resourcev1.DeviceClass, 0, len(l))
	for _, class := range l {
		out = append(out, class)
	}
	return out, nil
}

func (l classLister) Get(name string) (*resourcev1.DeviceClass, error) {
	if class := l[name]; class != nil {
		return class, nil
	}
	return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclass"), name)
}

// devicesScore prefers nodes where a request with alternatives gets an earlier one.
func (c *Cluster) devicesScore(p *Pod) func(*node) int64 {
	claims := c.claimsToAllocate(p)
	choosy := slices.ContainsFunc(claims, func(claim *resourcev1.ResourceClaim) bool {
		return slices.ContainsFunc(claim.Spec.Devices.Requests, func(r resourcev1.DeviceRequest) bool { return len(r.FirstAvailable) > 0 })
	})
	if !choosy {
		return nil
	}
	return func(n *node) int64 {
		found, err := c.allocate(n, claims)
		if err != nil {
			return 0
		}
		sum := int64(0)
		for k, claim := range claims {
			for _, r := range claim.Spec.Devices.Requests {
				for i, sub := range r.FirstAvailable {
					ref := resourceclaim.CreateSubRequestRef(r.Name, sub.Name)
					if slices.ContainsFunc(found[k].Devices.Results, func(d resourcev1.DeviceRequestAllocationResult) bool { return d.Request == ref }) {
						sum += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - i)
					}
				}
			}
		}
		return sum
	}
}

// deviceChoices settles which devices the pod's claims get on the chosen node. Claims that have theirs are in it too, with
// no allocation: the pod must be entered in them.
func (c *Cluster) deviceChoices(p *Pod, n *node) []deviceChoice {
	all, err := c.claimsFor(p)
	if err != nil || !p.profile.Filters[DynamicResources] {
		return nil
	}
	var out []deviceChoice
	todo, uses := c.claimsOn(p, n, c.claimsToAllocate(p))
	var found []resourcev1.AllocationResult
	if len(todo) > 0 {
		if found, err = c.allocate(n, todo); err != nil {
			return nil
		}
	}
	for _, claim := range all {
		one := deviceChoice{claim: claim}
		if k := slices.Index(todo, claim); k >= 0 {
			one.allocation = &found[k]
		}
		out = append(out, one)
	}
	if len(uses) > 0 {
		last := len(todo) - 1
		out = append(out, deviceChoice{todo[last], &found[last], uses})
	}
	return out
}

// Devices are the resource claims that the pod must be entered in before it is bound, with what to allocate to each.
type Devices struct {
	Claim      *resourcev1.ResourceClaim
	Allocation *resourcev1.AllocationResult // nil: it has its devices
	// Uses says that the claim is to be made, for extended resources, and which of its requests the pod's containers use.
	Uses []corev1.ContainerExtendedResourceRequest
}

// Devices are the claims that a decision has to do with.
func (d *Decision) Devices() []Devices {
	var out []Devices
	for _, one := range d.devices {
		out = append(out, Devices{one.claim, one.allocation, one.uses})
	}
	return out
}

// Freeable are allocated claims of a pod that nobody else uses: when no node has what they have, freeing one may help.
func (c *Cluster) Freeable(p *Pod) []*resourcev1.ResourceClaim {
	claims, err := c.claimsFor(p)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(claims, func(claim *resourcev1.ResourceClaim) bool {
		return claim.Status.Allocation == nil || !UsedByNoneBut(claim, p.obj.UID)
	})
}

// UsedByNoneBut reports whether a claim is reserved for nobody else.
func UsedByNoneBut(claim *resourcev1.ResourceClaim, uid types.UID) bool {
	return !slices.ContainsFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID != uid })
}
