package core

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	volumehelpers "k8s.io/component-helpers/storage/volume"
)

// This file finds volumes for claims that are bound only once a pod that uses them has a node.

// volumeChoice is how a claim that waited is to be satisfied: by a volume that exists, or (nil) by provisioning.
type volumeChoice struct {
	claim  *corev1.PersistentVolumeClaim
	volume *corev1.PersistentVolume
}

// finder finds a volume for one waiting claim.
type finder struct {
	claim   *corev1.PersistentVolumeClaim
	node    string // the claim is told to be provisioned there already
	volumes []*corev1.PersistentVolume
	allowed []*nodeSelector // by volume; nil: everywhere
}

type finders []finder

// findersOf narrows the volumes of each claim's class to those that it could use on some node.
func (c *Cluster) findersOf(claims []*corev1.PersistentVolumeClaim) finders {
	var out finders
	for _, claim := range claims {
		f := finder{claim: claim, node: cmp.Or(claim.Annotations[selectedNode], c.sent[types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name}])}
		if f.node == "" {
			want := claim.Spec.Resources.Requests[corev1.ResourceStorage]
			for _, v := range c.byClass[volumehelpers.GetPersistentVolumeClaimClass(claim)] {
				have := v.Spec.Capacity[corev1.ResourceStorage]
				owner, promised := c.assumed[v.Name]
				if have.Cmp(want) < 0 || promised && (owner.Name != claim.Name || owner.Namespace != claim.Namespace) ||
					v.Spec.ClaimRef != nil && !volumehelpers.IsVolumeBoundToClaim(v, claim) || v.DeletionTimestamp != nil {
					continue
				}
				f.volumes = append(f.volumes, v)
			}
			slices.SortFunc(f.volumes, func(a, b *corev1.PersistentVolume) int { return cmp.Compare(a.Name, b.Name) })
			for _, v := range f.volumes {
				var s *nodeSelector
				if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
					s = c.selectorOf(a.Required)
				}
				f.allowed = append(f.allowed, s)
			}
		}
		out = append(out, f)
	}
	return out
}

// find looks for volumes on a node, and tells choose how each claim is satisfied, if all are.
func (fs finders) find(c *Cluster, n *node, choose func(volumeChoice)) (found, space bool) {
	if len(fs) == 0 {
		return true, true
	}
	taken := map[string]*corev1.PersistentVolume{}
	var choices []volumeChoice
	for k := range fs {
		f := &fs[k]
		if f.node != "" && f.node != n.name {
			return false, true
		}
		var here []*corev1.PersistentVolume
		for j, v := range f.volumes {
			if f.allowed[j].match(n.index) {
				here = append(here, v)
			}
		}
		if len(here) > 0 {
			v, err := volumehelpers.FindMatchingVolume(f.claim, here, n.obj, taken, true, true)
			if err != nil {
				return false, true
			}
			if v != nil {
				taken[v.Name] = v
				choices = append(choices, volumeChoice{f.claim, v})
				continue
			}
		}
		if ok, space := c.provides(f.claim, n); !ok || !space {
			return ok, space
		}
		choices = append(choices, volumeChoice{claim: f.claim})
	}
	if choose != nil {
		for _, one := range choices {
			choose(one)
		}
	}
	return true, true
}

// provides reports whether a claim's class makes volumes that a node can use, and whether there is space for it.
func (c *Cluster) provides(claim *corev1.PersistentVolumeClaim, n *node) (ok, space bool) {
	class := c.classes[volumehelpers.GetPersistentVolumeClaimClass(claim)]
	if class == nil || class.Provisioner == "" || class.Provisioner == volumehelpers.NotSupportedProvisioner || !topologyAllows(class.AllowedTopologies, n.obj.Labels) {
		return false, true
	}
	want, asks := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	csi := c.csiDrivers[class.Provisioner]
	if !asks || csi == nil || csi.Spec.StorageCapacity == nil || !*csi.Spec.StorageCapacity {
		return true, true
	}
	for _, have := range c.capacities {
		limit := cmp.Or(have.MaximumVolumeSize, have.Capacity)
		if have.StorageClassName == class.Name && limit != nil && limit.Value() >= want.Value() && have.NodeTopology != nil &&
			labelSelector(have.NodeTopology).Matches(labels.Set(n.obj.Labels)) {
			return true, true
		}
	}
	return true, false
}

// topologyAllows reports whether one of the terms matches a node; no terms match all.
func topologyAllows(terms []corev1.TopologySelectorTerm, labels map[string]string) bool {
	return len(terms) == 0 || slices.ContainsFunc(terms, func(t corev1.TopologySelectorTerm) bool {
		return len(t.MatchLabelExpressions) > 0 && !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			value, ok := labels[e.Key]
			return !ok || !slices.Contains(e.Values, value)
		})
	})
}

// volumeChoices settles how the claims that waited are satisfied on the chosen node.
func (c *Cluster) volumeChoices(p *Pod, n *node) (choices []volumeChoice) {
	if !p.profile.Filters[VolumeBinding] {
		return nil
	}
	v, no := c.volumesOf(p)
	if no.Reason == "" {
		c.findersOf(v.waiting).find(c, n, func(one volumeChoice) { choices = append(choices, one) })
	}
	return choices
}

// Binding is a claim that a decision promised a volume to, or (Volume nil) provisioning on the node.
type Binding struct {
	Claim  *corev1.PersistentVolumeClaim
	Volume *corev1.PersistentVolume
}

// Volumes are the claims that have to be bound before the pod can be.
func (d *Decision) Volumes() []Binding {
	var out []Binding
	for _, v := range d.volumes {
		out = append(out, Binding{v.claim, v.volume})
	}
	return out
}

// Promise keeps what a decision chose from being chosen again; Release takes that back.
func (c *Cluster) Promise(d *Decision) {
	for _, v := range d.volumes {
		key := types.NamespacedName{Namespace: v.claim.Namespace, Name: v.claim.Name}
		if v.volume != nil {
			c.assumed[v.volume.Name] = key
		} else {
			c.sent[key] = d.Node
		}
	}
	for _, one := range d.devices {
		c.promiseDevices(one)
	}
}

// Release takes Promise back, when what was decided could not be done.
func (c *Cluster) Release(d *Decision) {
	for _, v := range d.volumes {
		if v.volume != nil {
			delete(c.assumed, v.volume.Name)
		}
		delete(c.sent, types.NamespacedName{Namespace: v.claim.Namespace, Name: v.claim.Name})
	}
	for _, one := range d.devices {
		c.releaseDevices(one)
	}
}
