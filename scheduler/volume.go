package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// volumeLookup reads what the volume and spread rules ask about other objects. The loop fills it from its caches; its
// functions must answer the same during one decision.
type volumeLookup struct {
	claim  func(namespace, name string) (*corev1.PersistentVolumeClaim, bool)
	volume func(name string) (*corev1.PersistentVolume, bool)
	class  func(name string) (*storagev1.StorageClass, bool)
	// candidates are the unbound volumes of a storage class.
	candidates func(class string) []*corev1.PersistentVolume
	// siblings selects the pods of the services and controllers that a pod belongs to; nil if there are none.
	siblings func(*corev1.Pod) labels.Selector
}

// claimsOf names the claims that a pod uses.
func claimsOf(p *corev1.Pod) []string {
	var out []string
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Name+"-"+v.Name)
		}
	}
	return out
}

// volumeRule keeps a pod where its volumes can be: a bound volume's node affinity must match, and a claim that waits
// for its first consumer must find a volume that the node can use, or a provisioner.
func volumeRule(p *podState, s *state) filter {
	names := claimsOf(p.pod)
	if len(names) == 0 {
		return nil
	}
	refuse := func(reason string) filter {
		return func(*nodeState) refusal { return refusal{reason, true} }
	}
	var bound []*corev1.PersistentVolume
	var waiting []*corev1.PersistentVolumeClaim
	for _, name := range names {
		claim, ok := s.volumes.claim(p.pod.Namespace, name)
		switch {
		case !ok:
			return refuse(`persistentvolumeclaim "` + name + `" not found`)
		case claim.DeletionTimestamp != nil:
			return refuse(`persistentvolumeclaim "` + name + `" is being deleted`)
		case claim.Status.Phase == corev1.ClaimLost:
			return refuse(`persistentvolumeclaim "` + name + `" bound to non-existent persistentvolume "` + claim.Spec.VolumeName + `"`)
		case claim.Spec.VolumeName != "":
			v, ok := s.volumes.volume(claim.Spec.VolumeName)
			if !ok {
				return refuse(`node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)`)
			}
			bound = append(bound, v)
		case !s.waits(claim):
			return refuse("pod has unbound immediate PersistentVolumeClaims")
		default:
			waiting = append(waiting, claim)
		}
	}
	return func(n *nodeState) refusal {
		for _, v := range bound {
			if !usable(v, n) {
				return refusal{"node(s) didn't match PersistentVolume's node affinity", true}
			}
		}
		for _, claim := range waiting {
			if !s.provides(claim, n) {
				return refusal{"node(s) didn't find available persistent volumes to bind", true}
			}
		}
		return refusal{}
	}
}

// waits reports whether a claim is bound only once a pod that uses it has a node.
func (s *state) waits(claim *corev1.PersistentVolumeClaim) bool {
	if claim.Spec.StorageClassName == nil {
		return false
	}
	class, ok := s.volumes.class(*claim.Spec.StorageClassName)
	return ok && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

func usable(v *corev1.PersistentVolume, n *nodeState) bool {
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return true
	}
	sel, err := nodeaffinity.NewNodeSelector(v.Spec.NodeAffinity.Required)
	return err == nil && sel.Match(n.node)
}

// noProvisioner is the class whose volumes are made by hand.
const noProvisioner = "kubernetes.io/no-provisioner"

func (s *state) provides(claim *corev1.PersistentVolumeClaim, n *nodeState) bool {
	class, ok := s.volumes.class(*claim.Spec.StorageClassName)
	if ok && class.Provisioner != noProvisioner {
		return true
	}
	for _, v := range s.volumes.candidates(*claim.Spec.StorageClassName) {
		if v.Spec.ClaimRef == nil && usable(v, n) &&
			v.Spec.Capacity.Storage().Cmp(*claim.Spec.Resources.Requests.Storage()) >= 0 {
			return true
		}
	}
	return false
}
