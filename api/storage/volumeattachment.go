package storage

import (
	"math"

	"github.com/skiff-sh/skiff/api/core"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var volumeAttachment = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "VolumeAttachment",
	Plural: "volumeattachments", Singular: "volumeattachment",
	StoragePath: "volumeattachments",
	New:         api.New[storagev1.VolumeAttachment], NewList: api.NewList[storagev1.VolumeAttachmentList],
	Validate:       api.Check(validateVolumeAttachment),
	ValidateUpdate: api.CheckUpdate(validateVolumeAttachmentUpdate),
	ValidateStatus: api.CheckUpdate(func(x, _ *storagev1.VolumeAttachment) field.ErrorList {
		var errs field.ErrorList
		for name, e := range map[string]*storagev1.VolumeError{"attachError": x.Status.AttachError, "detachError": x.Status.DetachError} {
			if e != nil && e.ErrorCode != nil && *e.ErrorCode < 0 {
				errs = append(errs, field.Invalid(field.NewPath("status", name, "errorCode"), *e.ErrorCode, validation.InclusiveRangeError(0, math.MaxInt32)))
			}
		}
		return errs
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Attacher", "string", func(x *storagev1.VolumeAttachment) any { return x.Spec.Attacher }).Formatted("name"),
		api.Col("PV", "string", func(x *storagev1.VolumeAttachment) any { return volumeName(x) }),
		api.Col("Node", "string", func(x *storagev1.VolumeAttachment) any { return x.Spec.NodeName }),
		api.Col("Attached", "boolean", func(x *storagev1.VolumeAttachment) any { return x.Status.Attached }),
		api.AgeColumn(),
	},
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func volumeName(x *storagev1.VolumeAttachment) string {
	if x.Spec.Source.PersistentVolumeName == nil {
		return ""
	}
	return *x.Spec.Source.PersistentVolumeName
}

func validateVolumeAttachment(x *storagev1.VolumeAttachment) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	errs = append(errs, core.CSIDriverName(path.Child("attacher"), x.Spec.Attacher)...)
	at := path.Child("source")
	switch s := x.Spec.Source; {
	case s.InlineVolumeSpec == nil && s.PersistentVolumeName == nil:
		errs = append(errs, field.Required(at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.InlineVolumeSpec != nil && s.PersistentVolumeName != nil:
		errs = append(errs, field.Forbidden(at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case s.PersistentVolumeName != nil:
		if *s.PersistentVolumeName == "" {
			errs = append(errs, field.Required(at.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
		}
		errs = append(errs, core.Subdomain(at.Child("persistentVolumeName"), *s.PersistentVolumeName)...)
	default:
		errs = append(errs, core.ValidatePersistentVolumeSpec(at.Child("inlineVolumeSpec"), s.InlineVolumeSpec, true)...)
	}
	return append(errs, core.Subdomain(path.Child("nodeName"), x.Spec.NodeName)...)
}

func validateVolumeAttachmentUpdate(x, old *storagev1.VolumeAttachment) field.ErrorList {
	errs := validateVolumeAttachment(x)
	if !equality.Semantic.DeepEqual(x.Spec, old.Spec) {
		errs = append(errs, field.Invalid(field.NewPath("spec"), x.Spec, "field is immutable"))
	}
	return errs
}
