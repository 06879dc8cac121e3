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
	ValidateStatus: api.CheckUpdate(validatePersistentVolumeClaimStatus),
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
	return validateClaimSpec(field.NewPath("spec"), &x.Spec)
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
		before.Resources.Requests = now.Resources.Requests
	}
	if !equality.Semantic.DeepEqual(now, before) {
		errs = append(errs, field.Forbidden(path, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+diff.Diff(*before, *now)))
	}
	size, was, have := x.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage], old.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(was) < 0 && size.Cmp(have) <= 0 {
		errs = append(errs, field.Forbidden(path.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	errs = append(errs, Immutable(field.NewPath("volumeMode"), x.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if n := x.Spec.VolumeAttributesClassName; old.Status.CurrentVolumeAttributesClassName != nil {
		at := path.Child("volumeAttributesClassName")
		if n == nil {
			errs = append(errs, field.Forbidden(at, "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil"))
		} else if *n == "" {
			errs = append(errs, field.Forbidden(at, "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil"))
		}
	}
	return errs
}

func validatePersistentVolumeClaimStatus(x, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	for _, f := range []struct {
		name string
		list corev1.ResourceList
	}{{"capacity", x.Status.Capacity}, {"allocatedResources", x.Status.AllocatedResources}} {
		for name, q := range f.list {
			if q.Sign() < 0 {
				errs = append(errs, field.Invalid(path.Child(f.name).Key(string(name)), q.Value(), "must be a valid resource quantity"))
			}
		}
	}
	for _, status := range x.Status.AllocatedResourceStatuses {
		errs = append(errs, Known(path.Child("allocatedResourceStatuses"), status, corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
			corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible, corev1.PersistentVolumeClaimNodeResizePending)...)
	}
	return errs
}

// validateDataSource checks what a claim is to be filled from.
func validateDataSource(path *field.Path, group *string, kind, name string) field.ErrorList {
	errs := required(path, "name", name, "kind", kind)
	api := ""
	if group != nil {
		api = *group
	}
	if api == "" && kind != "PersistentVolumeClaim" {
		errs = append(errs, field.Invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	if api != "" {
		errs = append(errs, Subdomain(path.Child("apiGroup"), api)...)
	}
	return errs
}
