package expand

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/controllers/plan"
)

// size is an amount of storage.
type size struct{ resource.Quantity }

func request(c *corev1.PersistentVolumeClaim) size {
	return size{c.Spec.Resources.Requests[corev1.ResourceStorage]}
}

func (s size) grown(from size) bool { return s.Cmp(from.Quantity) > 0 }

// migrated names the in-tree plug-in of a volume and the CSI driver that serves it now; empty for all others.
func migrated(v *corev1.PersistentVolume) (plugin, driver string) {
	switch s := v.Spec.PersistentVolumeSource; {
	case s.AWSElasticBlockStore != nil:
		return "kubernetes.io/aws-ebs", "ebs.csi.aws.com"
	case s.GCEPersistentDisk != nil:
		return "kubernetes.io/gce-pd", "pd.csi.storage.gke.io"
	case s.AzureDisk != nil:
		return "kubernetes.io/azure-disk", "disk.csi.azure.com"
	case s.AzureFile != nil:
		return "kubernetes.io/azure-file", "file.csi.azure.com"
	case s.Cinder != nil:
		return "kubernetes.io/cinder", "cinder.csi.openstack.org"
	case s.VsphereVolume != nil:
		return "kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"
	case s.PortworxVolume != nil:
		return "kubernetes.io/portworx-volume", "pxd.portworx.com"
	}
	return "", ""
}

// Plan tells what becomes of a bound claim that asks for more than it has. V is nil where its volume is not there.
func Plan(c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) []plan.Action {
	have := size{c.Status.Capacity[corev1.ResourceStorage]}
	if v == nil || c.Status.Phase != corev1.ClaimBound || c.DeletionTimestamp != nil || !request(c).grown(have) ||
		v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != c.UID {
		return nil
	}
	if plugin, driver := migrated(v); driver != "" && c.Annotations[resizerAnnotation] != driver {
		data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": c.UID, "annotations": map[string]string{resizerAnnotation: driver}}})
		if err != nil {
			panic(err) // strings go into JSON
		}
		return []plan.Action{plan.Normal(c, "ExternalExpanding", "CSI migration enabled for %s; waiting for external resizer to expand the pvc", plugin),
			plan.Patch{Obj: c, Subresource: "status", Type: types.MergePatchType, Data: data}}
	}
	const message = "waiting for an external controller to expand this PVC"
	if v.Spec.CSI != nil || c.Annotations[resizerAnnotation] != "" {
		return []plan.Action{plan.Normal(c, "ExternalExpanding", message)}
	}
	return []plan.Action{plan.Warning(c, "ExternalExpanding", message)}
}
