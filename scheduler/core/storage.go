package core

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelpers "k8s.io/component-helpers/storage/volume"

	"github.com/skiff-sh/skiff/api"
)

// storage is the objects behind pods' volumes, and what is attached where.
type storage struct {
	claims      map[types.NamespacedName]*corev1.PersistentVolumeClaim
	volumes     map[string]*corev1.PersistentVolume
	byClass     map[string]map[string]*corev1.PersistentVolume // volumes by their class and name
	classes     map[string]*storagev1.StorageClass
	csiNodes    map[string]*storagev1.CSINode
	csiDrivers  map[string]*storagev1.CSIDriver
	capacities  map[types.NamespacedName]*storagev1.CSIStorageCapacity
	attachments map[string]attachment // by name

	users   map[types.NamespacedName]map[types.UID]*Pod // bound pods by the claims that they use
	used    map[types.UID][]volumeRef                   // what a bound pod's volumes counted as when it was put on its node
	drivers map[string]*driver
	// assumed are volumes that pods were promised and that the API does not show as theirs yet, by the volume's name.
	assumed map[string]types.NamespacedName
	// sent are claims that were told to be provisioned for a node.
	sent map[types.NamespacedName]string
}

// volumeRef is one volume of one driver, as attach limits count it.
type volumeRef struct{ driver, handle string }

type attachment struct {
	node string
	ref  volumeRef
}

// driver counts, for every node, how many volumes of a CSI driver are on it.
type driver struct {
	limit []int32 // by node index; -1: none
	count []int32
	on    map[string]map[int]int // pods and attachments by handle and node index
}

func newStorage() storage {
	return storage{claims: map[types.NamespacedName]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{},
		byClass: map[string]map[string]*corev1.PersistentVolume{}, classes: map[string]*storagev1.StorageClass{},
		csiNodes: map[string]*storagev1.CSINode{}, csiDrivers: map[string]*storagev1.CSIDriver{},
		capacities: map[types.NamespacedName]*storagev1.CSIStorageCapacity{}, attachments: map[string]attachment{},
		users: map[types.NamespacedName]map[types.UID]*Pod{}, used: map[types.UID][]volumeRef{}, drivers: map[string]*driver{},
		assumed: map[string]types.NamespacedName{}, sent: map[types.NamespacedName]string{}}
}

func (c *Cluster) setStorage(name types.NamespacedName, o api.Object) bool {
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		c.setClaim(name, o)
	case *corev1.PersistentVolume:
		c.dropVolume(o.Name)
		c.volumes[o.Name] = o
		class := volumehelpers.GetPersistentVolumeClass(o)
		if c.byClass[class] == nil {
			c.byClass[class] = map[string]*corev1.PersistentVolume{}
		}
		c.byClass[class][o.Name] = o
		if ref := o.Spec.ClaimRef; ref != nil && ref.UID != "" {
			delete(c.assumed, o.Name)
		}
	case *storagev1.StorageClass:
		c.classes[o.Name] = o
	case *storagev1.CSINode:
		c.csiNodes[o.Name] = o
		c.setLimits(o.Name, o)
	case *storagev1.CSIDriver:
		c.csiDrivers[o.Name] = o
	case *storagev1.CSIStorageCapacity:
		c.capacities[name] = o
	case *storagev1.VolumeAttachment:
		c.setAttachment(o)
	default:
		return false
	}
	return true
}

func (c *Cluster) dropStorage(name types.NamespacedName, o api.Object) {
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		delete(c.claims, name)
		delete(c.sent, name)
	case *corev1.PersistentVolume:
		c.dropVolume(o.Name)
		delete(c.assumed, o.Name)
	case *storagev1.StorageClass:
		delete(c.classes, o.Name)
	case *storagev1.CSINode:
		delete(c.csiNodes, o.Name)
		c.setLimits(o.Name, nil)
	case *storagev1.CSIDriver:
		delete(c.csiDrivers, o.Name)
	case *storagev1.CSIStorageCapacity:
		delete(c.capacities, name)
	case *storagev1.VolumeAttachment:
		c.dropAttachment(o.Name)
	}
}

func (c *Cluster) dropVolume(name string) {
	if old := c.volumes[name]; old != nil {
		class := volumehelpers.GetPersistentVolumeClass(old)
		delete(c.byClass[class], name)
		if len(c.byClass[class]) == 0 {
			delete(c.byClass, class)
		}
		delete(c.volumes, name)
	}
}

// setClaim takes a claim. When it gets its volume, pods that use it count for another one.
func (c *Cluster) setClaim(name types.NamespacedName, o *corev1.PersistentVolumeClaim) {
	old := c.claims[name]
	if o.Spec.VolumeName != "" || o.Annotations[selectedNode] != c.sent[name] && o.Annotations[selectedNode] != "" {
		delete(c.sent, name)
	}
	if old != nil && old.Spec.VolumeName == o.Spec.VolumeName {
		c.claims[name] = o
		return
	}
	var users []*Pod
	for _, p := range c.users[name] {
		users = append(users, p)
	}
	for _, p := range users {
		c.attach(p, -1)
	}
	c.claims[name] = o
	for _, p := range users {
		c.attach(p, 1)
	}
}

// claimsOf names the claims that a pod uses. made says that it is the pod's own, made from a template in it.
func claimsOf(p *corev1.Pod, use func(name string, made bool)) {
	for i := range p.Spec.Volumes {
		switch v := &p.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			use(v.PersistentVolumeClaim.ClaimName, false)
		case v.Ephemeral != nil:
			use(p.Name+"-"+v.Name, true)
		}
	}
}

// attach counts a pod's volumes on its node, or takes them off again.
func (c *Cluster) attach(p *Pod, sign int) {
	if len(p.obj.Spec.Volumes) == 0 {
		return
	}
	claimsOf(p.obj, func(name string, _ bool) {
		key := types.NamespacedName{Namespace: p.obj.Namespace, Name: name}
		switch {
		case sign < 0:
			if delete(c.users[key], p.obj.UID); len(c.users[key]) == 0 {
				delete(c.users, key)
			}
		case c.users[key] == nil:
			c.users[key] = map[types.UID]*Pod{p.obj.UID: p}
		default:
			c.users[key][p.obj.UID] = p
		}
	})
	if sign > 0 {
		if refs := c.volumeRefs(p.obj); len(refs) > 0 {
			c.storage.used[p.obj.UID] = refs
		}
	}
	for _, ref := range c.storage.used[p.obj.UID] {
		c.driver(ref.driver).add(ref.handle, p.node.index, sign)
	}
	if sign < 0 {
		delete(c.storage.used, p.obj.UID)
	}
}

// volumeRefs are the distinct volumes of CSI drivers that a pod uses.
func (c *Cluster) volumeRefs(p *corev1.Pod) []volumeRef {
	var refs []volumeRef
	claimsOf(p, func(name string, _ bool) {
		claim := c.claims[types.NamespacedName{Namespace: p.Namespace, Name: name}]
		if claim == nil {
			return
		}
		if ref, ok := c.volumeRef(claim); ok && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	})
	return refs
}

// volumeRef is what a claim's volume counts as; for one that is still to be provisioned, a name of its own.
func (c *Cluster) volumeRef(claim *corev1.PersistentVolumeClaim) (volumeRef, bool) {
	if v := c.volumes[claim.Spec.VolumeName]; v != nil {
		if v.Spec.CSI == nil {
			return volumeRef{}, false
		}
		return volumeRef{v.Spec.CSI.Driver, v.Spec.CSI.VolumeHandle}, true
	}
	class := c.classes[volumehelpers.GetPersistentVolumeClaimClass(claim)]
	if class == nil || class.Provisioner == volumehelpers.NotSupportedProvisioner {
		return volumeRef{}, false
	}
	return volumeRef{class.Provisioner, "to be made for " + claim.Namespace + "/" + claim.Name}, true
}

func (c *Cluster) driver(name string) *driver {
	d, ok := c.drivers[name]
	if !ok {
		d = &driver{on: map[string]map[int]int{}}
		c.drivers[name] = d
	}
	return d
}

func (d *driver) reach(i int) {
	for len(d.limit) <= i {
		d.limit, d.count = append(d.limit, -1), append(d.count, 0)
	}
}

func (d *driver) add(handle string, i, sign int) {
	d.reach(i)
	on := d.on[handle]
	if on == nil {
		on = map[int]int{}
		d.on[handle] = on
	}
	before := on[i]
	on[i] += sign
	switch {
	case before == 0 && on[i] > 0:
		d.count[i]++
	case on[i] == 0:
		delete(on, i)
		if before > 0 {
			d.count[i]--
		}
		if len(on) == 0 {
			delete(d.on, handle)
		}
	}
}

// setLimits takes how many volumes a node's drivers can attach; nil: it says nothing any more.
func (c *Cluster) setLimits(name string, o *storagev1.CSINode) {
	n := c.byName[name]
	if n == nil {
		return // asked again when the node comes
	}
	for _, d := range c.drivers {
		d.reach(n.index)
		d.limit[n.index] = -1
	}
	if o == nil {
		return
	}
	for _, in := range o.Spec.Drivers {
		d := c.driver(in.Name)
		d.reach(n.index)
		if in.Allocatable != nil && in.Allocatable.Count != nil {
			d.limit[n.index] = *in.Allocatable.Count
		}
	}
}

func (c *Cluster) setAttachment(o *storagev1.VolumeAttachment) {
	c.dropAttachment(o.Name)
	if o.Spec.Source.PersistentVolumeName == nil {
		return
	}
	v := c.volumes[*o.Spec.Source.PersistentVolumeName]
	n := c.byName[o.Spec.NodeName]
	if v == nil || v.Spec.CSI == nil || n == nil {
		return
	}
	a := attachment{o.Spec.NodeName, volumeRef{cmp.Or(v.Spec.CSI.Driver, o.Spec.Attacher), v.Spec.CSI.VolumeHandle}}
	c.attachments[o.Name] = a
	c.driver(a.ref.driver).add(a.ref.handle, n.index, 1)
}

func (c *Cluster) dropAttachment(name string) {
	a, ok := c.attachments[name]
	if !ok {
		return
	}
	delete(c.attachments, name)
	if n := c.byName[a.node]; n != nil {
		c.driver(a.ref.driver).add(a.ref.handle, n.index, -1)
	}
}
