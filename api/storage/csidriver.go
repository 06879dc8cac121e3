package storage

import (
	"github.com/skiff-sh/skiff/api/core"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var csiDriver = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "CSIDriver",
	Plural: "csidrivers", Singular: "csidriver",
	StoragePath: "csidrivers",
	New:         api.New[storagev1.CSIDriver], NewList: api.NewList[storagev1.CSIDriverList],
	Validate:       api.Check(validateCSIDriver),
	ValidateUpdate: api.CheckUpdate(validateCSIDriverUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("AttachRequired", "boolean", func(x *storagev1.CSIDriver) any { return isTrue(x.Spec.AttachRequired, true) }),
		api.Col("PodInfoOnMount", "boolean", func(x *storagev1.CSIDriver) any { return isTrue(x.Spec.PodInfoOnMount, false) }),
		api.Col("StorageCapacity", "boolean", func(x *storagev1.CSIDriver) any { return isTrue(x.Spec.StorageCapacity, false) }),
		api.Col("TokenRequests", "string", func(x *storagev1.CSIDriver) any { return audiences(x) }),
		api.Col("RequiresRepublish", "boolean", func(x *storagev1.CSIDriver) any { return isTrue(x.Spec.RequiresRepublish, false) }),
		api.Col("Modes", "string", func(x *storagev1.CSIDriver) any { return modes(x) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultCSIDriver),
	HasGeneration: true,
}

func defaultCSIDriver(x *storagev1.CSIDriver) {
	s := &x.Spec
	api.FillPtr(&s.AttachRequired, true)
	api.FillPtr(&s.PodInfoOnMount, false)
	api.FillPtr(&s.StorageCapacity, false)
	api.FillPtr(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	api.FillPtr(&s.RequiresRepublish, false)
	api.FillPtr(&s.SELinuxMount, false)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func isTrue(b *bool, unset bool) bool {
	if b == nil {
		return unset
	}
	return *b
}

func audiences(x *storagev1.CSIDriver) string {
	var out []string
	for _, t := range x.Spec.TokenRequests {
		out = append(out, t.Audience)
	}
	if len(out) == 0 {
		return "<unset>"
	}
	return strings.Join(out, ",")
}

func modes(x *storagev1.CSIDriver) string {
	var out []string
	for _, m := range x.Spec.VolumeLifecycleModes {
		out = append(out, string(m))
	}
	if len(out) == 0 {
		return "<none>"
	}
	return strings.Join(out, ",")
}

func validateCSIDriver(x *storagev1.CSIDriver) field.ErrorList {
	var errs field.ErrorList
	if x.Spec.AttachRequired == nil {
		errs = append(errs, field.Required(field.NewPath("spec", "attachRequired"), ""))
	}
	for i, m := range x.Spec.VolumeLifecycleModes {
		errs = append(errs, core.OneOf(field.NewPath("spec", "volumeLifecycleModes").Index(i), m, storagev1.VolumeLifecycleEphemeral, storagev1.VolumeLifecyclePersistent)...)
	}
	return errs
}

func validateCSIDriverUpdate(x, old *storagev1.CSIDriver) field.ErrorList {
	errs := validateCSIDriver(x)
	errs = append(errs, core.Immutable(field.NewPath("spec", "attachRequired"), x.Spec.AttachRequired, old.Spec.AttachRequired)...)
	return errs
}
