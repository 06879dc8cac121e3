package core

import (
	corev1 "k8s.io/api/core/v1"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var persistentVolume = &api.Kind{
	Version: "v1", Kind: "PersistentVolume",
	Plural: "persistentvolumes", Singular: "persistentvolume", ShortNames: []string{"pv"},
	StoragePath: "persistentvolumes",
	New:         api.New[corev1.PersistentVolume], NewList: api.NewList[corev1.PersistentVolumeList],
	Validate:       api.Check(validatePersistentVolume),
	ValidateUpdate: api.CheckUpdate(validatePersistentVolumeUpdate),
	Warnings:       persistentVolumeWarnings,
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Capacity", "string", func(x *corev1.PersistentVolume) any { return storageText(x.Spec.Capacity) }),
		api.Col("Access Modes", "string", func(x *corev1.PersistentVolume) any { return modesText(x.Spec.AccessModes) }),
		api.Col("Reclaim Policy", "string", func(x *corev1.PersistentVolume) any { return string(x.Spec.PersistentVolumeReclaimPolicy) }),
		api.Col("Status", "string", func(x *corev1.PersistentVolume) any { return terminating(x, string(x.Status.Phase)) }),
		api.Col("Claim", "string", func(x *corev1.PersistentVolume) any { return claimText(x.Spec.ClaimRef) }),
		api.Col("StorageClass", "string", func(x *corev1.PersistentVolume) any { return x.Spec.StorageClassName }),
		api.Col("VolumeAttributesClass", "string", func(x *corev1.PersistentVolume) any { return orUnset(x.Spec.VolumeAttributesClassName) }),
		api.Col("Reason", "string", func(x *corev1.PersistentVolume) any { return x.Status.Reason }),
		api.AgeColumn(),
		api.Col("VolumeMode", "string", func(x *corev1.PersistentVolume) any { return modeText(x.Spec.VolumeMode) }).Wide(),
	},
	PrepareCreate:       api.OnCreate(createPersistentVolume),
	Default:             api.Defaults(defaultPersistentVolume),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultPersistentVolume(x *corev1.PersistentVolume) {
	api.Fill(&x.Status.Phase, corev1.VolumePending)
	api.Fill(&x.Spec.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	api.FillPtr(&x.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	s := &x.Spec.PersistentVolumeSource
	switch {
	case s.HostPath != nil:
		api.FillPtr(&s.HostPath.Type, corev1.HostPathUnset)
	case s.ISCSI != nil:
		api.Fill(&s.ISCSI.ISCSIInterface, "default")
	case s.AzureDisk != nil:
		defaultAzureDisk(s.AzureDisk)
	case s.RBD != nil:
		api.Fill(&s.RBD.RBDPool, "rbd")
		api.Fill(&s.RBD.RadosUser, "admin")
		api.Fill(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.ScaleIO != nil:
		api.Fill(&s.ScaleIO.StorageMode, "ThinProvisioned")
		api.Fill(&s.ScaleIO.FSType, "xfs")
	}
}

func createPersistentVolume(x *corev1.PersistentVolume) {
	created := x.CreationTimestamp
	x.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &created}
}

func storageText(l corev1.ResourceList) string {
	q := l[corev1.ResourceStorage]
	return q.String()
}

// modesText lists access modes in their short form.
func modesText(modes []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		for _, have := range modes {
			if have == m.mode {
				out = append(out, m.short)
				break
			}
		}
	}
	return strings.Join(out, ",")
}

func claimText(r *corev1.ObjectReference) string {
	if r == nil {
		return ""
	}
	return r.Namespace + "/" + r.Name
}

func terminating(o api.Object, status string) string {
	if o.GetDeletionTimestamp() != nil {
		return "Terminating"
	}
	return status
}

func orUnset(s *string) string {
	if s == nil {
		return "<unset>"
	}
	return *s
}

func modeText(m *corev1.PersistentVolumeMode) string {
	if m == nil {
		return "<unset>"
	}
	return string(*m)
}
