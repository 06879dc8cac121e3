package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var persistentVolumeClaim = &api.Kind{
	Version: "v1", Kind: "PersistentVolumeClaim",
	Plural: "persistentvolumeclaims", Singular: "persistentvolumeclaim", ShortNames: []string{"pvc"}, Namespaced: true,
	StoragePath: "persistentvolumeclaims",
	New:         api.New[corev1.PersistentVolumeClaim], NewList: api.NewList[corev1.PersistentVolumeClaimList],
	Validate:       api.Check(validatePersistentVolumeClaim),
	ValidateUpdate: api.CheckUpdate(validatePersistentVolumeClaimUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Status", "string", func(x *corev1.PersistentVolumeClaim) any { return terminating(x, string(x.Status.Phase)) }),
		api.Col("Volume", "string", func(x *corev1.PersistentVolumeClaim) any { return x.Spec.VolumeName }),
		api.Col("Capacity", "string", func(x *corev1.PersistentVolumeClaim) any { return boundText(x, storageText(x.Status.Capacity)) }),
		api.Col("Access Modes", "string", func(x *corev1.PersistentVolumeClaim) any { return boundText(x, modesText(x.Status.AccessModes)) }),
		api.Col("StorageClass", "string", func(x *corev1.PersistentVolumeClaim) any { return classOf(x) }),
		api.Col("VolumeAttributesClass", "string", func(x *corev1.PersistentVolumeClaim) any { return orUnset(x.Spec.VolumeAttributesClassName) }),
		api.AgeColumn(),
		api.Col("VolumeMode", "string", func(x *corev1.PersistentVolumeClaim) any { return modeText(x.Spec.VolumeMode) }).Wide(),
	},
	PrepareCreate:       api.OnCreate(createPersistentVolumeClaim),
	Default:             api.Defaults(defaultPersistentVolumeClaim),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultPersistentVolumeClaim(x *corev1.PersistentVolumeClaim) {
	api.Fill(&x.Status.Phase, corev1.ClaimPending)
	defaultClaimSpec(&x.Spec)
}

// DefaultClaim fills in what the user left out of a claim.
func DefaultClaim(x *corev1.PersistentVolumeClaim) { defaultPersistentVolumeClaim(x) }

func defaultClaimSpec(s *corev1.PersistentVolumeClaimSpec) {
	api.FillPtr(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
}

func createPersistentVolumeClaim(x *corev1.PersistentVolumeClaim) {
	x.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	if d := x.Spec.DataSource; d != nil && x.Spec.DataSourceRef == nil {
		x.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: d.APIGroup, Kind: d.Kind, Name: d.Name}
	}
}

// boundText is what a claim shows of its volume, once it has one.
func boundText(x *corev1.PersistentVolumeClaim, text string) string {
	if x.Spec.VolumeName == "" {
		return ""
	}
	return text
}

func classOf(x *corev1.PersistentVolumeClaim) string {
	if c, ok := x.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return c
	}
	if x.Spec.StorageClassName != nil {
		return *x.Spec.StorageClassName
	}
	return ""
}

func validatePersistentVolumeClaim(x *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validateClaimSpec(field.NewPath("spec"), &x.Spec)...)
	return errs
}

func validatePersistentVolumeClaimUpdate(x, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := validatePersistentVolumeClaim(x)
	path := field.NewPath("spec")
	now, before := x.Spec.DeepCopy(), old.Spec.DeepCopy()
	if before.VolumeName == "" {
		before.VolumeName = now.VolumeName // binding
	}
	if before.StorageClassName == nil {
		before.StorageClassName = now.StorageClassName // set once a default class is there
	}
	before.VolumeAttributesClassName = now.VolumeAttributesClassName
	if old.Status.Phase == corev1.ClaimBound {
		size, was := now.Resources.Requests[corev1.ResourceStorage], before.Resources.Requests[corev1.ResourceStorage]
		if have := old.Status.Capacity[corev1.ResourceStorage]; size.Cmp(was) < 0 && size.Cmp(have) <= 0 {
			errs = append(errs, field.Forbidden(path.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
		}
		before.Resources.Requests = now.Resources.Requests
	}
	if !equality.Semantic.DeepEqual(now, before) {
		errs = append(errs, field.Forbidden(path, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+diff.Diff(*before, *now)))
	}
	return errs
}
