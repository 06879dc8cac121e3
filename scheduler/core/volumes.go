package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	volumehelpers "k8s.io/component-helpers/storage/volume"
)

const (
	selectedNode  = "volume.kubernetes.io/selected-node"
	bindCompleted = "pv.kubernetes.io/bind-completed"
)

// podVolumes is what the volume rules find out about a pod's claims, whatever the node.
type podVolumes struct {
	bound   []*corev1.PersistentVolume
	lost    string // a volume that a claim is bound to and that does not exist
	waiting []*corev1.PersistentVolumeClaim
	once    []types.NamespacedName // claims that one pod at a time may use
}

// volumeRules collects the rules about a pod's volumes. A reason refuses it everywhere.
func (c *Cluster) volumeRules(p *Pod) (filters []func(i int) code, no Refusal) {
	on := p.profile.Filters
	var v podVolumes
	if on[VolumeBinding] || on[VolumeZone] || on[NodeVolumeLimits] || on[VolumeRestrictions] {
		if v, no = c.volumesOf(p); no.Reason != "" {
			return nil, no
		}
	}
	if v.lost != "" && on[VolumeZone] {
		return nil, Refusal{VolumeZone, fmt.Sprintf("persistentvolume %q not found", v.lost), true}
	}
	add := func(name string, f func(i int) code) {
		if f != nil && on[name] {
			filters = append(filters, f)
		}
	}
	add(VolumeRestrictions, c.restrictionRule(p, &v))
	add(NodeVolumeLimits, c.limitRule(p))
	add(VolumeBinding, c.bindingRule(&v))
	add(VolumeZone, c.zoneRule(&v))
	return filters, Refusal{}
}

// volumesOf sorts a pod's claims. The order of the checks is that of upstream's plug-ins.
func (c *Cluster) volumesOf(p *Pod) (v podVolumes, no Refusal) {
	missing, wrong := "", ""
	claimsOf(p.obj, func(name string, made bool) {
		key := types.NamespacedName{Namespace: p.obj.Namespace, Name: name}
		claim := c.claims[key]
		problem := ""
		switch {
		case claim == nil && made:
			problem = fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
		case claim == nil:
			missing = cmp.Or(missing, fmt.Sprintf("persistentvolumeclaim %q not found", name))
			return
		case claim.Status.Phase == corev1.ClaimLost:
			problem = fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
		case claim.DeletionTimestamp != nil:
			problem = fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
		case made && !metav1.IsControlledBy(claim, p.obj):
			problem = fmt.Sprintf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, name, p.obj.Namespace, p.obj.Name)
		}
		if wrong = cmp.Or(wrong, problem); problem != "" {
			return
		}
		if slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			v.once = append(v.once, key)
		}
		_, complete := claim.Annotations[bindCompleted]
		switch {
		case claim.Spec.VolumeName != "" && complete:
			if volume := c.volumes[claim.Spec.VolumeName]; volume != nil {
				v.bound = append(v.bound, volume)
			} else {
				v.lost = claim.Spec.VolumeName
			}
		case claim.Spec.VolumeName == "" && c.waits(claim):
			v.waiting = append(v.waiting, claim)
		default:
			wrong = cmp.Or(wrong, "pod has unbound immediate PersistentVolumeClaims")
		}
	})
	switch {
	case missing != "":
		return v, Refusal{VolumeBinding, missing, true}
	case wrong != "":
		return v, Refusal{VolumeBinding, wrong, true}
	}
	size := func(claim *corev1.PersistentVolumeClaim) *quantity {
		q := claim.Spec.Resources.Requests[corev1.ResourceStorage]
		return &q
	}
	slices.SortStableFunc(v.waiting, func(a, b *corev1.PersistentVolumeClaim) int { return size(a).Cmp(*size(b)) })
	return v, Refusal{}
}

// waits reports whether a claim is bound only once a pod that uses it has a node.
func (c *Cluster) waits(claim *corev1.PersistentVolumeClaim) bool {
	class := c.classes[volumehelpers.GetPersistentVolumeClaimClass(claim)]
	return class != nil && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// restrictionRule keeps two pods from sharing what only one may use.
func (c *Cluster) restrictionRule(p *Pod, v *podVolumes) func(i int) code {
	var disks []*corev1.Volume
	for i := range p.obj.Spec.Volumes {
		if d := &p.obj.Spec.Volumes[i]; d.GCEPersistentDisk != nil || d.AWSElasticBlockStore != nil || d.RBD != nil || d.ISCSI != nil {
			disks = append(disks, d)
		}
	}
	taken := slices.ContainsFunc(v.once, func(key types.NamespacedName) bool { return len(c.users[key]) > 0 })
	if len(disks) == 0 && !taken {
		return nil
	}
	noDisk := c.of(Refusal{VolumeRestrictions, "node(s) had no available disk", false})
	noTurn := c.of(Refusal{VolumeRestrictions, "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod", false})
	return func(i int) code {
		for _, disk := range disks {
			for _, other := range c.nodes[i].pods {
				if slices.ContainsFunc(other.obj.Spec.Volumes, func(o corev1.Volume) bool { return sameDisk(disk, &o) }) {
					return noDisk
				}
			}
		}
		if taken {
			return noTurn
		}
		return 0
	}
}

// sameDisk reports whether two volumes are one disk that cannot be mounted twice.
func sameDisk(a, b *corev1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		return a.GCEPersistentDisk.PDName == b.GCEPersistentDisk.PDName && !(a.GCEPersistentDisk.ReadOnly && b.GCEPersistentDisk.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		return a.ISCSI.IQN == b.ISCSI.IQN && !(a.ISCSI.ReadOnly && b.ISCSI.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		return a.RBD.RBDPool == b.RBD.RBDPool && a.RBD.RBDImage == b.RBD.RBDImage && !(a.RBD.ReadOnly && b.RBD.ReadOnly) &&
			slices.ContainsFunc(a.RBD.CephMonitors, func(m string) bool { return slices.Contains(b.RBD.CephMonitors, m) })
	}
	return false
}

// limitRule counts the volumes that a node would have to attach.
func (c *Cluster) limitRule(p *Pod) func(i int) code {
	type need struct {
		driver  *driver
		handles []string
		known   bool // some of the handles are on a node already
	}
	var needs []*need
	for _, ref := range c.volumeRefs(p.obj) {
		d := c.driver(ref.driver)
		at := slices.IndexFunc(needs, func(n *need) bool { return n.driver == d })
		if at < 0 {
			at = len(needs)
			needs = append(needs, &need{driver: d})
		}
		needs[at].handles = append(needs[at].handles, ref.handle)
		needs[at].known = needs[at].known || len(d.on[ref.handle]) > 0
	}
	if len(needs) == 0 {
		return nil
	}
	no := c.of(Refusal{NodeVolumeLimits, "node(s) exceed max volume count", false})
	return func(i int) code {
		for _, n := range needs {
			d := n.driver
			if i >= len(d.limit) || d.limit[i] < 0 {
				continue
			}
			more := len(n.handles)
			if n.known {
				for _, handle := range n.handles {
					if d.on[handle][i] > 0 {
						more--
					}
				}
			}
			if more > 0 && int(d.count[i])+more > int(d.limit[i]) {
				return no
			}
		}
		return 0
	}
}

// bindingRule keeps a pod where its volumes can be: a bound volume's node affinity must match, and a claim that waits for
// its first consumer must find a volume that the node can use, or be provided there.
func (c *Cluster) bindingRule(v *podVolumes) func(i int) code {
	var bound []*nodeSelector
	for _, volume := range v.bound {
		if a := volume.Spec.NodeAffinity; a != nil && a.Required != nil {
			bound = append(bound, c.selectorOf(a.Required))
		}
	}
	if len(bound) == 0 && v.lost == "" && len(v.waiting) == 0 {
		return nil
	}
	finders := c.findersOf(v.waiting)
	var codes [16]code // by which of the four reasons hold: few combinations occur, many times
	return func(i int) code {
		why := 0
		for _, s := range bound {
			if !s.match(i) {
				why = 1
				break
			}
		}
		if len(finders) > 0 {
			found, space := finders.find(c, c.nodes[i], nil)
			if !found {
				why |= 2
			}
			if !space {
				why |= 4
			}
		}
		if v.lost != "" {
			why |= 8
		}
		if why == 0 {
			return 0
		}
		if codes[why] == 0 {
			var reasons []string
			for k, reason := range bindingReasons {
				if why&(1<<k) != 0 {
					reasons = append(reasons, reason)
				}
			}
			codes[why] = c.of(Refusal{VolumeBinding, strings.Join(reasons, "\n"), true})
		}
		return codes[why]
	}
}

var bindingReasons = [4]string{"node(s) didn't match PersistentVolume's node affinity", "node(s) didn't find available persistent volumes to bind",
	"node(s) did not have enough free storage", "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"}

// Zones of volumes are labels on them; the older names are found under the newer on nodes.
var zoneLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone:   corev1.LabelTopologyZone,
	corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	corev1.LabelTopologyZone:            corev1.LabelTopologyZone,
	corev1.LabelTopologyRegion:          corev1.LabelTopologyRegion,
}

// zoneRule keeps a pod in the zones of its volumes. A node that knows of no zones takes any.
func (c *Cluster) zoneRule(v *podVolumes) func(i int) code {
	type zone struct {
		col, newer *column
		values     []string
	}
	var zones []zone
	for _, volume := range v.bound {
		for key, newer := range zoneLabels {
			if value, ok := volume.Labels[key]; ok {
				zones = append(zones, zone{c.column(key), c.column(newer), strings.Split(value, "__")})
			}
		}
	}
	if len(zones) == 0 {
		return nil
	}
	var known []*column
	for key := range zoneLabels {
		known = append(known, c.column(key))
	}
	no := c.of(Refusal{VolumeZone, "node(s) had no available volume zone", true})
	return func(i int) code {
		if !slices.ContainsFunc(known, func(col *column) bool { return col.byNode[i] != none }) {
			return 0
		}
		for _, z := range zones {
			col := z.col
			if col.byNode[i] == none {
				col = z.newer
			}
			if id := col.byNode[i]; id == none || !slices.Contains(z.values, col.values[id]) {
				return no
			}
		}
		return 0
	}
}
