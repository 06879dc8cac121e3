package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/skiff-sh/skiff/api"
)

// inventory is the devices that pods claim (KEP-4381): what there is, and who has it. The search for devices on one node
// is the field's own allocator; here is which of its answers stay true.
type inventory struct {
	deviceClasses  map[string]*resourcev1.DeviceClass
	standIns       map[corev1.ResourceName]*resourcev1.DeviceClass // by the extended resource that they stand for
	written        map[types.UID]*resourcev1.ResourceClaim         // stand-ins by their pods
	slices         map[string]*resourcev1.ResourceSlice
	local          map[string]map[string]*resourcev1.ResourceSlice // by node and name
	shared         map[string]*resourcev1.ResourceSlice            // of no single node
	pools          map[pool]string                                 // the node of a local pool
	resourceClaims map[types.NamespacedName]*resourcev1.ResourceClaim
	// allocated is what all claims have, taking those in counted.
	allocated structured.AllocatedState
	counted   map[types.UID]*resourcev1.AllocationResult
	promised  map[types.UID]bool // claims whose allocation is decided, and not yet written
	compiled  *cel.Cache
}

type pool struct{ driver, name string }

func newInventory() inventory {
	return inventory{deviceClasses: map[string]*resourcev1.DeviceClass{}, slices: map[string]*resourcev1.ResourceSlice{},
		local: map[string]map[string]*resourcev1.ResourceSlice{}, shared: map[string]*resourcev1.ResourceSlice{}, pools: map[pool]string{},
		resourceClaims: map[types.NamespacedName]*resourcev1.ResourceClaim{}, written: map[types.UID]*resourcev1.ResourceClaim{},
		allocated: structured.AllocatedState{AllocatedDevices: sets.New[structured.DeviceID](),
			AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](), AggregatedCapacity: structured.NewConsumedCapacityCollection()},
		counted: map[types.UID]*resourcev1.AllocationResult{}, promised: map[types.UID]bool{},
		compiled: cel.NewCache(64, cel.Features{EnableConsumableCapacity: true})}
}

func (c *Cluster) setInventory(name types.NamespacedName, o api.Object) bool {
	switch o := o.(type) {
	case *resourcev1.DeviceClass:
		c.deviceClasses[o.Name] = o
		c.mapClasses()
		c.changedAll()
	case *resourcev1.ResourceSlice:
		c.dropSlice(o.Name)
		c.slices[o.Name] = o
		if node := o.Spec.NodeName; node != nil && *node != "" && len(o.Spec.SharedCounters) == 0 {
			if c.local[*node] == nil {
				c.local[*node] = map[string]*resourcev1.ResourceSlice{}
			}
			c.local[*node][o.Name] = o
			c.pools[pool{o.Spec.Driver, o.Spec.Pool.Name}] = *node
			c.devicesChanged(*node)
		} else {
			c.shared[o.Name] = o
			c.changedAll()
		}
	case *resourcev1.ResourceClaim:
		if old := c.resourceClaims[name]; old != nil && old.UID != o.UID {
			c.count(old.UID, nil)
		}
		c.resourceClaims[name] = o
		if pod := standInFor(o); pod != "" {
			c.setStandIn(pod, o)
		}
		if o.Status.Allocation != nil {
			delete(c.promised, o.UID)
		}
		if !c.promised[o.UID] {
			c.count(o.UID, o.Status.Allocation)
		}
	default:
		return false
	}
	return true
}

func (c *Cluster) dropInventory(name types.NamespacedName, o api.Object) {
	switch o := o.(type) {
	case *resourcev1.DeviceClass:
		delete(c.deviceClasses, o.Name)
		c.mapClasses()
		c.changedAll()
	case *resourcev1.ResourceSlice:
		c.dropSlice(o.Name)
	case *resourcev1.ResourceClaim:
		delete(c.resourceClaims, name)
		delete(c.written, standInFor(o))
		delete(c.promised, o.UID)
		c.count(o.UID, nil)
	}
}

func (c *Cluster) dropSlice(name string) {
	old := c.slices[name]
	if old == nil {
		return
	}
	delete(c.slices, name)
	if _, ok := c.shared[name]; ok {
		delete(c.shared, name)
		c.changedAll()
		return
	}
	node := *old.Spec.NodeName
	if delete(c.local[node], name); len(c.local[node]) == 0 {
		delete(c.local, node)
	}
	c.devicesChanged(node)
}

func (c *Cluster) devicesChanged(name string) {
	if n := c.byName[name]; n != nil {
		c.changed(n)
	}
}

// count notes what a claim has (nil: nothing), and which nodes' devices that changes.
func (c *Cluster) count(uid types.UID, now *resourcev1.AllocationResult) {
	before := c.counted[uid]
	if before == now || before != nil && now != nil && sameDevices(before, now) {
		return
	}
	c.reckon(before, false)
	c.reckon(now, true)
	if now == nil {
		delete(c.counted, uid)
	} else {
		c.counted[uid] = now
	}
}

func sameDevices(a, b *resourcev1.AllocationResult) bool {
	return slices.EqualFunc(a.Devices.Results, b.Devices.Results, func(x, y resourcev1.DeviceRequestAllocationResult) bool {
		return x.Driver == y.Driver && x.Pool == y.Pool && x.Device == y.Device && (x.ShareID == nil) == (y.ShareID == nil) && (x.ShareID == nil || *x.ShareID == *y.ShareID)
	})
}

func (c *Cluster) reckon(a *resourcev1.AllocationResult, add bool) {
	if a == nil {
		return
	}
	for i := range a.Devices.Results {
		r := &a.Devices.Results[i]
		if r.AdminAccess != nil && *r.AdminAccess {
			continue // looks at a device that others have
		}
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		switch {
		case r.ShareID == nil && add:
			c.allocated.AllocatedDevices.Insert(id)
		case r.ShareID == nil:
			c.allocated.AllocatedDevices.Delete(id)
		default:
			share := structured.MakeSharedDeviceID(id, r.ShareID)
			used := structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity)
			if add {
				c.allocated.AllocatedSharedDeviceIDs.Insert(share)
				if r.ConsumedCapacity != nil {
					c.allocated.AggregatedCapacity.Insert(used)
				}
			} else {
				c.allocated.AllocatedSharedDeviceIDs.Delete(share)
				if r.ConsumedCapacity != nil {
					c.allocated.AggregatedCapacity.Remove(used)
				}
			}
		}
		if node, ok := c.pools[pool{r.Driver, r.Pool}]; ok {
			c.devicesChanged(node)
		} else {
			c.changedAll()
		}
	}
}

func (c *Cluster) promiseDevices(one deviceChoice) {
	if one.allocation != nil {
		c.promised[one.claim.UID] = true
		c.count(one.claim.UID, one.allocation)
	}
}

func (c *Cluster) releaseDevices(one deviceChoice) {
	if one.allocation != nil && c.promised[one.claim.UID] {
		delete(c.promised, one.claim.UID)
		c.count(one.claim.UID, nil)
	}
}
