package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

func validatePersistentVolume(x *corev1.PersistentVolume) field.ErrorList {
	return ValidatePersistentVolumeSpec(field.NewPath("spec"), &x.Spec, false)
}

// ValidatePersistentVolumeSpec checks a persistent volume, or with inline the part of one that a volume attachment may hold.
func ValidatePersistentVolumeSpec(path *field.Path, s *corev1.PersistentVolumeSpec, inline bool) field.ErrorList {
	if inline {
		return validateInlineVolume(path, s)
	}
	errs := volumeAccess(path.Child("accessModes"), s.AccessModes)
	at := path.Child("capacity")
	if len(s.Capacity) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	if _, ok := s.Capacity[corev1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
		errs = append(errs, field.NotSupported(at, s.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for name, q := range s.Capacity {
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), q.Value(), "must be a valid resource quantity"))
		}
		if q.Sign() <= 0 {
			errs = append(errs, field.Invalid(at.Key(string(name)), q.String(), "must be greater than zero"))
		}
	}
	if p := s.PersistentVolumeReclaimPolicy; p != "" {
		errs = append(errs, Known(path.Child("persistentVolumeReclaimPolicy"), p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	}
	if a := s.NodeAffinity; a != nil {
		errs = append(errs, validateVolumeAffinity(path.Child("nodeAffinity"), a)...)
	}
	sources := oneSource(path, s.PersistentVolumeSource)
	errs = append(errs, sources...)
	if len(sources) == 0 {
		errs = append(errs, persistentSource(path, s)...)
	}
	if h := s.HostPath; h != nil && h.Path == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(path.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	if n := s.StorageClassName; n != "" {
		errs = append(errs, Subdomain(path.Child("storageClassName"), n)...)
	}
	if m := s.VolumeMode; m != nil {
		errs = append(errs, Known(path.Child("volumeMode"), *m, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if n := s.VolumeAttributesClassName; n != nil {
		at := path.Child("volumeAttributesClassName")
		if *n == "" {
			errs = append(errs, field.Required(at, "an empty string is disallowed"))
		} else {
			errs = append(errs, Subdomain(at, *n)...)
		}
		if s.CSI == nil {
			errs = append(errs, field.Required(path.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return errs
}

// volumeAccess is validateAccessModes in the words for volumes.
func volumeAccess(path *field.Path, modes []corev1.PersistentVolumeAccessMode) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	return validateAccessModes(path, modes)
}

func validateVolumeAffinity(path *field.Path, a *corev1.VolumeNodeAffinity) field.ErrorList {
	if a.Required == nil {
		return field.ErrorList{field.Required(path.Child("required"), "must specify required node constraints")}
	}
	return ValidateNodeSelector(path.Child("required"), a.Required)
}

func persistentSource(path *field.Path, s *corev1.PersistentVolumeSpec) field.ErrorList {
	v := &s.PersistentVolumeSource
	shared := corev1.VolumeSource{GCEPersistentDisk: v.GCEPersistentDisk, AWSElasticBlockStore: v.AWSElasticBlockStore, HostPath: v.HostPath, NFS: v.NFS, FC: v.FC,
		Flocker: v.Flocker, VsphereVolume: v.VsphereVolume, PhotonPersistentDisk: v.PhotonPersistentDisk, PortworxVolume: v.PortworxVolume, Quobyte: v.Quobyte, AzureDisk: v.AzureDisk}
	if errs, ok := sharedSource(path, &shared); ok {
		return errs
	}
	switch {
	case v.Glusterfs != nil:
		errs := required(path.Child("glusterfs"), "endpoints", v.Glusterfs.EndpointsName, "path", v.Glusterfs.Path)
		if n := v.Glusterfs.EndpointsNamespace; n != nil && *n == "" {
			errs = append(errs, field.Invalid(path.Child("glusterfs", "endpointsNamespace"), *n, "if the endpointnamespace is set, it must be a valid namespace name"))
		}
		return errs
	case v.RBD != nil:
		return append(notEmpty(path.Child("rbd", "monitors"), v.RBD.CephMonitors), required(path.Child("rbd"), "image", v.RBD.RBDImage)...)
	case v.CephFS != nil:
		return notEmpty(path.Child("cephfs", "monitors"), v.CephFS.Monitors)
	case v.Cinder != nil:
		at := path.Child("cinder")
		errs := required(at, "volumeID", v.Cinder.VolumeID)
		if r := v.Cinder.SecretRef; r != nil {
			errs = append(errs, required(at.Child("secretRef"), "name", r.Name, "namespace", r.Namespace)...)
		}
		return errs
	case v.AzureFile != nil:
		at := path.Child("azureFile")
		errs := required(at, "secretName", v.AzureFile.SecretName, "shareName", v.AzureFile.ShareName)
		if n := v.AzureFile.SecretNamespace; n != nil && *n == "" {
			errs = append(errs, field.Invalid(at.Child("secretNamespace"), *n, "must be non-empty string"))
		}
		return errs
	case v.ISCSI != nil:
		return validatePersistentISCSI(path.Child("iscsi"), v.ISCSI)
	case v.FlexVolume != nil:
		return validateFlex(path.Child("flexVolume"), v.FlexVolume.Driver, v.FlexVolume.Options)
	case v.Local != nil:
		errs := validateLocal(path.Child("local"), v.Local)
		if s.NodeAffinity == nil {
			errs = append(errs, field.Required(path.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
		return errs
	case v.StorageOS != nil:
		return required(path.Child("storageos"), "volumeName", v.StorageOS.VolumeName)
	case v.ScaleIO != nil:
		return required(path.Child("scaleIO"), "gateway", v.ScaleIO.Gateway, "system", v.ScaleIO.System, "volumeName", v.ScaleIO.VolumeName)
	case v.CSI != nil:
		return validatePersistentCSI(path.Child("csi"), v.CSI)
	}
	return nil
}

func validateLocal(path *field.Path, l *corev1.LocalVolumeSource) field.ErrorList {
	if l.Path == "" {
		return field.ErrorList{field.Required(path.Child("path"), "")}
	}
	return noBackSteps(path.Child("path"), l.Path)
}

func validatePersistentISCSI(path *field.Path, v *corev1.ISCSIPersistentVolumeSource) field.ErrorList {
	errs := iscsi{v.TargetPortal, v.IQN, v.Lun, v.InitiatorName, v.DiscoveryCHAPAuth || v.SessionCHAPAuth, v.SecretRef != nil}.validate(path, "")
	for _, e := range errs { // the two types differ in a word
		if e.Type == field.ErrorTypeInvalid && strings.Contains(e.Detail, "starting with iqn") {
			e.Detail = "must be valid format"
		}
	}
	if v.SecretRef != nil {
		errs = append(errs, required(path.Child("secretRef"), "name", v.SecretRef.Name)...)
	}
	return errs
}

func validatePersistentCSI(path *field.Path, v *corev1.CSIPersistentVolumeSource) field.ErrorList {
	errs := validateCSIDriverName(path.Child("driver"), v.Driver)
	errs = append(errs, required(path, "volumeHandle", v.VolumeHandle)...)
	for _, f := range []struct {
		name string
		ref  *corev1.SecretReference
	}{{"controllerPublishSecretRef", v.ControllerPublishSecretRef}, {"controllerExpandSecretRef", v.ControllerExpandSecretRef},
		{"nodePublishSecretRef", v.NodePublishSecretRef}, {"nodeExpandSecretRef", v.NodeExpandSecretRef}} {
		if f.ref == nil {
			continue
		}
		at := path.Child(f.name)
		if f.ref.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, Subdomain(at.Child("name"), f.ref.Name)...)
		}
		if f.ref.Namespace == "" {
			errs = append(errs, field.Required(at.Child("namespace"), ""))
		} else {
			errs = append(errs, Label(at.Child("namespace"), f.ref.Namespace)...)
		}
	}
	return errs
}

// validateInlineVolume lists what a volume attachment's own volume must not say.
func validateInlineVolume(path *field.Path, s *corev1.PersistentVolumeSpec) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{{"persistentVolumeReclaimPolicy", s.PersistentVolumeReclaimPolicy != ""}, {"capacity", s.Capacity != nil}, {"claimRef", s.ClaimRef != nil}, {"volumeAttributesClassName", s.VolumeAttributesClassName != nil}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "may not be specified in the context of inline volumes"))
		}
	}
	if s.CSI == nil {
		errs = append(errs, field.Required(path.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	errs = append(errs, volumeAccess(path.Child("accessModes"), s.AccessModes)...)
	errs = append(errs, oneSource(path, s.PersistentVolumeSource)...)
	if s.NodeAffinity != nil {
		errs = append(errs, validateVolumeAffinity(path.Child("nodeAffinity"), s.NodeAffinity)...)
	}
	if s.CSI != nil {
		errs = append(errs, validatePersistentCSI(path.Child("csi"), s.CSI)...)
	}
	if n := s.StorageClassName; n != "" {
		errs = append(errs, Subdomain(path.Child("storageClassName"), n)...)
	}
	if m := s.VolumeMode; m != nil {
		errs = append(errs, Known(path.Child("volumeMode"), *m, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	return errs
}

func validatePersistentVolumeUpdate(x, old *corev1.PersistentVolume) field.ErrorList {
	errs := validatePersistentVolume(x)
	now, was := x.Spec.PersistentVolumeSource, old.Spec.PersistentVolumeSource
	if now.CSI != nil && was.CSI != nil { // the secrets of an expansion may be added
		a, b := now.CSI.DeepCopy(), was.CSI.DeepCopy()
		if b.ControllerExpandSecretRef == nil {
			b.ControllerExpandSecretRef = a.ControllerExpandSecretRef
		}
		if b.NodeExpandSecretRef == nil {
			b.NodeExpandSecretRef = a.NodeExpandSecretRef
		}
		now.CSI, was.CSI = a, b
	}
	if !equality.Semantic.DeepEqual(now, was) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), "spec.persistentvolumesource is immutable after creation\n"+diff.Diff(was, now)))
	}
	errs = append(errs, Immutable(field.NewPath("volumeMode"), x.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if a := old.Spec.NodeAffinity; a != nil && !equality.Semantic.DeepEqual(x.Spec.NodeAffinity, a) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), x.Spec.NodeAffinity, "field is immutable, except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && x.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

func persistentVolumeWarnings(obj, _ api.Object) []string {
	s := &obj.(*corev1.PersistentVolume).Spec
	v := &corev1.VolumeSource{PhotonPersistentDisk: s.PhotonPersistentDisk, Flocker: s.Flocker, Quobyte: s.Quobyte}
	name, text := oldVolume(v)
	switch {
	case s.ScaleIO != nil:
		name, text = oldVolume(&corev1.VolumeSource{ScaleIO: &corev1.ScaleIOVolumeSource{}})
	case s.StorageOS != nil:
		name, text = oldVolume(&corev1.VolumeSource{StorageOS: &corev1.StorageOSVolumeSource{}})
	case s.Glusterfs != nil:
		name, text = oldVolume(&corev1.VolumeSource{Glusterfs: &corev1.GlusterfsVolumeSource{}})
	case s.CephFS != nil:
		name, text = oldVolume(&corev1.VolumeSource{CephFS: &corev1.CephFSVolumeSource{}})
	case s.RBD != nil:
		name, text = oldVolume(&corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{}})
	}
	var out []string
	if s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if text != "" {
		out = append(out, "spec."+name+": "+text)
	}
	return out
}
