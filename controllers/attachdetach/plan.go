// Package attachdetach asks CSI drivers to attach volumes to the nodes of the pods that use them, and to detach them
// afterwards, by VolumeAttachment objects.
//
// Invariant: a volume that only one node may have is never attached to a second one while it is attached to, or being
// detached from, the first; and it is not detached while the node's kubelet says that it is in use, unless the node has
// been unhealthy for so long, or is marked as out of service, that nobody uses it any more. Only controllers/ may
// import attachdetach.
package attachdetach

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// unmountTimeout is how long a volume may be "in use" on an unhealthy node after its last pod has gone.
const unmountTimeout = 6 * time.Minute

// Volume is a persistent volume of a CSI driver that needs attaching, and the pods on the node that use it.
type Volume struct {
	PV   *corev1.PersistentVolume
	Pods []*corev1.Pod
}

// Input is what a plan for one node depends on.
type Input struct {
	Name        string
	Node        *corev1.Node // nil: it is not there
	Wanted      []Volume
	Attachments []*storagev1.VolumeAttachment // those of the node
	// Elsewhere lists the attachments of a volume to other nodes, and Users the pods on other nodes that use it.
	Elsewhere func(pv string) []*storagev1.VolumeAttachment
	Users     func(pv *corev1.PersistentVolume) []*corev1.Pod
	// Volume finds a persistent volume by name.
	Volume func(name string) (*corev1.PersistentVolume, bool)
	// Unwanted is since when an attachment has not been needed.
	Unwanted func(attachment string) time.Time
	Now      time.Time
}

// AttachmentName is the name of the VolumeAttachment of a volume on a node.
func AttachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// uniqueName is how nodes name a volume in their status.
func uniqueName(pv *corev1.PersistentVolume) corev1.UniqueVolumeName {
	return corev1.UniqueVolumeName("kubernetes.io/csi/" + pv.Spec.CSI.Driver + "^" + pv.Spec.CSI.VolumeHandle)
}

// Plan brings the node's attachments nearer to what its pods need, and says when to look again if nothing happens.
func Plan(in Input) (actions []plan.Action, again time.Duration) {
	wanted := map[string]bool{}
	for _, v := range in.Wanted {
		name := AttachmentName(v.PV.Spec.CSI.VolumeHandle, v.PV.Spec.CSI.Driver, in.Name)
		wanted[name] = true
		if !slices.ContainsFunc(in.Attachments, func(a *storagev1.VolumeAttachment) bool { return a.Name == name }) {
			actions = append(actions, attach(in, v, name)...)
		}
	}
	var attached []corev1.AttachedVolume
	var leaving []plan.Action
	for _, a := range in.Attachments {
		pv, known := volumeOf(in, a)
		if !known {
			continue // somebody else's
		}
		goes := a.DeletionTimestamp != nil
		if !goes && !wanted[a.Name] {
			left := mayDetach(in, a, pv)
			if goes = left <= 0; goes {
				leaving = append(leaving, plan.Delete{Obj: a})
			} else if again == 0 || left < again {
				again = left
			}
		}
		if a.Status.Attached && !goes && pv != nil {
			attached = append(attached, corev1.AttachedVolume{Name: uniqueName(pv)})
		}
	}
	// The node must stop mounting a volume before it is detached: its status is written first.
	return slices.Concat(actions, report(in.Node, attached), leaving), again
}

// volumeOf is the volume of an attachment, nil if it is gone; false if the attachment is not of a persistent volume.
func volumeOf(in Input, a *storagev1.VolumeAttachment) (*corev1.PersistentVolume, bool) {
	name := a.Spec.Source.PersistentVolumeName
	if name == nil || !strings.HasPrefix(a.Name, "csi-") {
		return nil, false
	}
	pv, ok := in.Volume(*name)
	if !ok || pv.Spec.CSI == nil {
		return nil, true
	}
	return pv, true
}

func attach(in Input, v Volume, name string) []plan.Action {
	if in.Node == nil {
		return nil
	}
	if !shared(v.PV) && len(in.Elsewhere(v.PV.Name)) > 0 {
		return refuse(in, v)
	}
	return []plan.Action{plan.Create{IfMissing: true, Obj: &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: storagev1.VolumeAttachmentSpec{Attacher: v.PV.Spec.CSI.Driver, NodeName: in.Name,
			Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &v.PV.Name}}}}}
}

// shared reports whether several nodes may have the volume at once.
func shared(pv *corev1.PersistentVolume) bool {
	return len(pv.Spec.AccessModes) == 0 || slices.Contains(pv.Spec.AccessModes, corev1.ReadWriteMany) || slices.Contains(pv.Spec.AccessModes, corev1.ReadOnlyMany)
}

// refuse tells the pods why their volume does not come.
func refuse(in Input, v Volume) (actions []plan.Action) {
	why := "Volume is already exclusively attached to one node and can't be attached to another"
	for _, p := range v.Pods {
		var local []string
		others := 0
		for _, u := range in.Users(v.PV) {
			if u.Namespace == p.Namespace {
				local = append(local, u.Name)
			} else {
				others++
			}
		}
		text := why
		if len(local) > 0 {
			slices.Sort(local)
			text = "Volume is already used by pod(s) " + strings.Join(local, ", ")
			if others > 0 {
				text += fmt.Sprintf(" and %d pod(s) in different namespaces", others)
			}
		} else if others > 0 {
			text = fmt.Sprintf("Volume is already used by %d pod(s) in different namespaces", others)
		}
		actions = append(actions, plan.Warning(p, "FailedAttachVolume", "Multi-Attach error for volume %q %s", v.PV.Name, text))
	}
	return actions
}

// mayDetach is how long the attachment must still stay: 0 if the node does not use it, or is past saying so.
func mayDetach(in Input, a *storagev1.VolumeAttachment, pv *corev1.PersistentVolume) time.Duration {
	if in.Node == nil || pv == nil || !slices.Contains(in.Node.Status.VolumesInUse, uniqueName(pv)) {
		return 0
	}
	if slices.ContainsFunc(in.Node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService }) {
		return 0
	}
	left := in.Unwanted(a.Name).Add(unmountTimeout).Sub(in.Now)
	if left <= 0 && healthy(in.Node) {
		return unmountTimeout // the kubelet is alive and will say when it has unmounted
	}
	return left
}

func healthy(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// report writes into the node's status which volumes it may mount.
func report(n *corev1.Node, attached []corev1.AttachedVolume) []plan.Action {
	if n == nil {
		return nil
	}
	slices.SortFunc(attached, func(a, b corev1.AttachedVolume) int { return strings.Compare(string(a.Name), string(b.Name)) })
	next := n.DeepCopy()
	next.Status.VolumesAttached = nil
	for _, a := range n.Status.VolumesAttached { // those of others stay
		if !strings.HasPrefix(string(a.Name), "kubernetes.io/csi/") {
			next.Status.VolumesAttached = append(next.Status.VolumesAttached, a)
		}
	}
	next.Status.VolumesAttached = append(next.Status.VolumesAttached, attached...)
	if equality.Semantic.DeepEqual(n.Status.VolumesAttached, next.Status.VolumesAttached) {
		return nil
	}
	return []plan.Action{plan.Status(next)}
}

// Told is what to tell the pods about a change of their volume's attachment.
func Told(old, new *storagev1.VolumeAttachment, pods []*corev1.Pod) (actions []plan.Action) {
	if new == nil || new.Spec.Source.PersistentVolumeName == nil {
		return nil
	}
	pv := *new.Spec.Source.PersistentVolumeName
	was, failed := old != nil && old.Status.Attached, ""
	if old != nil && old.Status.AttachError != nil {
		failed = old.Status.AttachError.Message
	}
	for _, p := range pods {
		switch e := new.Status.AttachError; {
		case new.Status.Attached && !was:
			actions = append(actions, plan.Normal(p, "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume %q ", pv))
		case e != nil && e.Message != failed:
			actions = append(actions, plan.Warning(p, "FailedAttachVolume", "AttachVolume.Attach failed for volume %q : %s", pv, e.Message))
		}
	}
	return actions
}
