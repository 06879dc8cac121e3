// Package volumebinder pairs PersistentVolumeClaims with PersistentVolumes.
//
// Invariant: a volume is given to a claim by writing the volume's claimRef first, conditional on the volume that was
// seen, so two claims never get the same volume; one that was ever bound is never given to another claim. Only
// controllers/ may import volumebinder.
package volumebinder

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// Annotations of bindings, shared with provisioners and kubectl.
const (
	bindCompleted     = "pv.kubernetes.io/bind-completed"
	boundByController = "pv.kubernetes.io/bound-by-controller"
	provisionedBy     = "pv.kubernetes.io/provisioned-by"
	provisioner       = "volume.kubernetes.io/storage-provisioner"
	betaProvisioner   = "volume.beta.kubernetes.io/storage-provisioner"
	selectedNode      = "volume.kubernetes.io/selected-node"
	betaClass         = "volume.beta.kubernetes.io/storage-class"
	noProvisioner     = "kubernetes.io/no-provisioner"
)

// View is where the planner looks other objects up.
type View struct {
	Claim   func(namespace, name string) (*corev1.PersistentVolumeClaim, bool)
	Volume  func(name string) (*corev1.PersistentVolume, bool)
	Volumes func() []*corev1.PersistentVolume
	Class   func(name string) (*storagev1.StorageClass, bool)
}

func classOf(c *corev1.PersistentVolumeClaim) string {
	if s, ok := c.Annotations[betaClass]; ok {
		return s
	}
	return ptr.Deref(c.Spec.StorageClassName, "")
}

// refersTo reports whether the volume is meant for the claim, and bound whether it says so by UID.
func refersTo(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) (refers, bound bool) {
	r := v.Spec.ClaimRef
	if r == nil || r.Namespace != c.Namespace || r.Name != c.Name || r.UID != "" && r.UID != c.UID {
		return false, false
	}
	return true, r.UID == c.UID
}

// PlanClaim is the claim's next step. Each step is one write; the change brings the next.
func PlanClaim(c *corev1.PersistentVolumeClaim, v View) []plan.Action {
	if c.DeletionTimestamp != nil {
		return nil
	}
	if c.Spec.VolumeName == "" {
		return find(c, v)
	}
	vol, ok := v.Volume(c.Spec.VolumeName)
	_, completed := c.Annotations[bindCompleted]
	switch {
	case !ok && completed:
		return lost(c, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case !ok:
		return phase(c, corev1.ClaimPending, nil)
	}
	refers, bound := refersTo(vol, c)
	switch {
	case bound && completed:
		return phase(c, corev1.ClaimBound, vol)
	case bound:
		return complete(c, vol)
	case completed:
		return lost(c, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
	case refers || vol.Spec.ClaimRef == nil:
		return take(c, vol)
	}
	return phase(c, corev1.ClaimPending, nil)
}

func lost(c *corev1.PersistentVolumeClaim, reason, message string) []plan.Action {
	actions := phase(c, corev1.ClaimLost, nil)
	if len(actions) == 0 {
		return nil
	}
	return append(actions, plan.Warning(c, reason, "%s", message))
}

// find looks for a volume, or says why there is none.
func find(c *corev1.PersistentVolumeClaim, v View) []plan.Action {
	class, known := v.Class(classOf(c))
	waits := known && class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
	_, selected := c.Annotations[selectedNode]
	vol := Match(c, v.Volumes(), waits)
	switch {
	case vol != nil:
		if _, bound := refersTo(vol, c); bound {
			return complete(c, vol)
		}
		return take(c, vol)
	case waits && !selected:
		return append(phase(c, corev1.ClaimPending, nil), plan.Normal(c, "WaitForFirstConsumer", "waiting for first consumer to be created before binding"))
	case known && class.Provisioner != noProvisioner:
		return provision(c, class)
	case classOf(c) != "" && !known:
		return append(phase(c, corev1.ClaimPending, nil), plan.Warning(c, "ProvisioningFailed", "storageclass.storage.k8s.io %q not found", classOf(c)))
	}
	return append(phase(c, corev1.ClaimPending, nil), plan.Normal(c, "FailedBinding", "no persistent volumes available for this claim and no storage class is set"))
}

// provision asks an outside provisioner by its annotation.
func provision(c *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) []plan.Action {
	if c.Annotations[provisioner] != class.Provisioner {
		next := c.DeepCopy()
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		next.Annotations[provisioner], next.Annotations[betaProvisioner] = class.Provisioner, class.Provisioner
		return []plan.Action{plan.Update{Obj: next}}
	}
	return append(phase(c, corev1.ClaimPending, nil), plan.Normal(c, "ExternalProvisioning",
		"Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner))
}

// Match finds the volume for a claim: one that names the claim, else the smallest free one that has what the claim
// asks for. A claim that waits for its first consumer gets only the former: the scheduler chooses.
func Match(c *corev1.PersistentVolumeClaim, volumes []*corev1.PersistentVolume, waits bool) *corev1.PersistentVolume {
	sel := labels.Everything()
	if c.Spec.Selector != nil {
		s, err := metav1.LabelSelectorAsSelector(c.Spec.Selector)
		if err != nil {
			return nil
		}
		sel = s
	}
	var best *corev1.PersistentVolume
	for _, v := range volumes {
		if refers, _ := refersTo(v, c); refers {
			if satisfies(v, c) {
				return v
			}
			continue
		}
		if waits || v.Spec.ClaimRef != nil || v.DeletionTimestamp != nil || v.Status.Phase != corev1.VolumeAvailable ||
			!sel.Matches(labels.Set(v.Labels)) || !satisfies(v, c) {
			continue
		}
		if best == nil || smaller(v, best) {
			best = v
		}
	}
	return best
}

func smaller(a, b *corev1.PersistentVolume) bool {
	qa, qb := a.Spec.Capacity[corev1.ResourceStorage], b.Spec.Capacity[corev1.ResourceStorage]
	return cmp.Or(qa.Cmp(qb), cmp.Compare(a.Name, b.Name)) < 0
}

// satisfies compares class, size, volume mode and access modes.
func satisfies(v *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) bool {
	have, want := v.Spec.Capacity[corev1.ResourceStorage], c.Spec.Resources.Requests[corev1.ResourceStorage]
	if v.Spec.StorageClassName != classOf(c) || have.Cmp(want) < 0 ||
		ptr.Deref(v.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) != ptr.Deref(c.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) {
		return false
	}
	return !slices.ContainsFunc(c.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool { return !slices.Contains(v.Spec.AccessModes, m) })
}

// take writes the claim into the volume.
func take(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) []plan.Action {
	next := v.DeepCopy()
	if next.Spec.ClaimRef == nil {
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		next.Annotations[boundByController] = "yes"
	}
	next.Spec.ClaimRef = &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: c.Namespace, Name: c.Name, UID: c.UID, ResourceVersion: c.ResourceVersion}
	return []plan.Action{plan.Update{Obj: next}}
}

// complete writes the volume into the claim.
func complete(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) []plan.Action {
	next := c.DeepCopy()
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	if next.Spec.VolumeName == "" {
		next.Spec.VolumeName = v.Name
		next.Annotations[boundByController] = "yes"
	}
	next.Annotations[bindCompleted] = "yes"
	return []plan.Action{plan.Update{Obj: next}}
}

// phase brings the claim's status up to date.
func phase(c *corev1.PersistentVolumeClaim, p corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) []plan.Action {
	next := c.DeepCopy()
	next.Status.Phase = p
	next.Status.AccessModes, next.Status.Capacity = nil, nil
	if v != nil {
		next.Status.AccessModes = v.Spec.AccessModes
		next.Status.Capacity = v.Spec.Capacity
		if c.Status.Phase == corev1.ClaimBound && c.Status.Capacity != nil {
			next.Status.Capacity = c.Status.Capacity // an expansion may be under way
		}
	}
	if equality.Semantic.DeepEqual(c.Status, next.Status) {
		return nil
	}
	return []plan.Action{plan.Status(next)}
}

// PlanVolume is the volume's next step.
func PlanVolume(v *corev1.PersistentVolume, view View, now time.Time) []plan.Action {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		return volumePhase(v, corev1.VolumeAvailable, "", now)
	}
	if c, ok := view.Claim(ref.Namespace, ref.Name); ok && c.UID == ref.UID {
		if c.Spec.VolumeName != "" && c.Spec.VolumeName != v.Name && v.Annotations[boundByController] != "" {
			// The claim chose another volume before it saw this one: let this one go.
			next := v.DeepCopy()
			next.Spec.ClaimRef = nil
			delete(next.Annotations, boundByController)
			return []plan.Action{plan.Update{Obj: next}}
		}
		if c.Spec.VolumeName == v.Name {
			return volumePhase(v, corev1.VolumeBound, "", now)
		}
		return nil // the claim's step comes first
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete && v.Status.Phase == corev1.VolumeReleased && v.Annotations[provisionedBy] == "" {
		message := "no deletable volume plugin matched"
		return append(volumePhase(v, corev1.VolumeFailed, message, now), plan.Warning(v, "VolumeFailedDelete", "error getting deleter volume plugin for volume %q: %s", v.Name, message))
	}
	if v.Status.Phase == corev1.VolumeFailed {
		return nil
	}
	return volumePhase(v, corev1.VolumeReleased, "", now)
}

func volumePhase(v *corev1.PersistentVolume, p corev1.PersistentVolumePhase, message string, now time.Time) []plan.Action {
	if v.Status.Phase == p && v.Status.Message == message {
		return nil
	}
	next := v.DeepCopy()
	if next.Status.Phase != p {
		next.Status.LastPhaseTransitionTime = ptr.To(metav1.NewTime(now))
	}
	next.Status.Phase, next.Status.Message = p, message
	return []plan.Action{plan.Status(next)}
}
