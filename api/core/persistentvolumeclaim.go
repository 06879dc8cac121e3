package core

import (
	"slices"

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
	PrepareUpdate:       api.OnUpdate(updatePersistentVolumeClaim),
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
	dropSource(&x.Spec)
	pairSources(&x.Spec)
}

func updatePersistentVolumeClaim(x, old *corev1.PersistentVolumeClaim) {
	if old.Spec.DataSource == nil {
		dropSource(&x.Spec)
	}
	pairSources(&x.Spec)
}

// dropSource takes out what the older of the two fields of a claim's source was never meant to name (KEP-1495).
func dropSource(s *corev1.PersistentVolumeClaimSpec) {
	d := s.DataSource
	if d == nil || s.DataSourceRef != nil {
		return
	}
	group := ""
	if d.APIGroup != nil {
		group = *d.APIGroup
	}
	if !(group == "" && d.Kind == "PersistentVolumeClaim" || group == "snapshot.storage.k8s.io" && d.Kind == "VolumeSnapshot") {
		s.DataSource = nil
	}
}

// pairSources makes both fields of a claim's source say the same, unless the newer one names another namespace.
func pairSources(s *corev1.PersistentVolumeClaimSpec) {
	d, ref := s.DataSource, s.DataSourceRef
	switch {
	case ref != nil && ref.Namespace != nil && *ref.Namespace != "":
	case d != nil && ref == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: d.APIGroup, Kind: d.Kind, Name: d.Name}
	case d == nil && ref != nil:
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: ref.APIGroup, Kind: ref.Kind, Name: ref.Name}
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
	return validateClaimSpec(field.NewPath("spec"), &x.Spec, false)
}

func validatePersistentVolumeClaimUpdate(x, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := validateClaimSpec(field.NewPath("spec"), &x.Spec, old.Spec.DataSource != nil || old.Spec.DataSourceRef != nil)
	path := field.NewPath("spec")
	now, before := x.Spec.DeepCopy(), old.Spec.DeepCopy()
	if before.VolumeName == "" {
		before.VolumeName = now.VolumeName // binding
	}
	if before.StorageClassName == nil {
		before.StorageClassName = now.StorageClassName // set once a default class is there
	}
	if old.Status.Phase == corev1.ClaimBound {
		before.VolumeAttributesClassName = now.VolumeAttributesClassName
		if now.Resources.Requests != nil {
			before.Resources.Requests = now.Resources.Requests
		}
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
	known := []corev1.ClaimResourceStatus{corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
		corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible, corev1.PersistentVolumeClaimNodeResizePending}
	for name, status := range x.Status.AllocatedResourceStatuses {
		if !slices.Contains(known, status) { // upstream shows the resource
			errs = append(errs, field.NotSupported(path.Child("allocatedResourceStatuses"), corev1.ClaimResourceStatus(name), known))
		}
	}
	return errs
}

// validateDataSource checks what a claim is to be filled from.
func validateDataSource(path *field.Path, group *string, kind, name string, anyGroup bool) field.ErrorList {
	errs := required(path, "name", name, "kind", kind)
	api := ""
	if group != nil {
		api = *group
	}
	if api == "" && kind != "PersistentVolumeClaim" {
		errs = append(errs, field.Invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	if api != "" && !anyGroup {
		errs = append(errs, Subdomain(path.Child("apiGroup"), api)...)
	}
	return errs
}
