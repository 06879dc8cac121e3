package storage

import (
	"github.com/skiff-sh/skiff/api/core"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
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
	ValidateName:   driverName,
	ValidateUpdate: api.CheckUpdate(validateCSIDriverUpdate),
	Warnings:       csiDriverWarnings,
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
	PrepareUpdate: api.OnUpdate(updateCSIDriver),
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

func driverName(name string, prefix bool) []string {
	if len(name) > 63 && !prefix && len(apivalidation.NameIsDNSSubdomain(name, prefix)) == 0 {
		return []string{"must be no more than 63 bytes"}
	}
	return apivalidation.NameIsDNSSubdomain(name, prefix)
}

func csiDriverWarnings(obj, old api.Object) []string {
	s := &obj.(*storagev1.CSIDriver).Spec
	changed := old == nil || !equality.Semantic.DeepEqual(s.TokenRequests, old.(*storagev1.CSIDriver).Spec.TokenRequests)
	if len(s.TokenRequests) == 0 || s.ServiceAccountTokenInSecrets != nil || !changed {
		return nil
	}
	return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
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
	path, s := field.NewPath("spec"), &x.Spec
	if s.AttachRequired == nil {
		errs = append(errs, field.Required(path.Child("attachedRequired"), ""))
	}
	for _, m := range s.VolumeLifecycleModes { // upstream names no index
		errs = append(errs, core.Known(path.Child("volumeLifecycleModes"), m, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if p := s.FSGroupPolicy; p != nil {
		errs = append(errs, core.Known(path.Child("fsGroupPolicy"), *p, storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	audiences := map[string]bool{}
	for i, t := range s.TokenRequests {
		at := path.Child("tokenRequests").Index(i)
		if audiences[t.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), t.Audience))
		}
		audiences[t.Audience] = true
		if e := t.ExpirationSeconds; e != nil {
			if *e < 600 {
				errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration less than 10 minutes"))
			}
			if *e > 1<<32 {
				errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *e, "may not specify a duration larger than 2^32 seconds"))
			}
		}
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < 10 {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds"))
	}
	return errs
}

func validateCSIDriverUpdate(x, old *storagev1.CSIDriver) field.ErrorList {
	errs := validateCSIDriver(x)
	path := field.NewPath("spec")
	errs = append(errs, core.Immutable(path.Child("attachedRequired"), x.Spec.AttachRequired, old.Spec.AttachRequired)...)
	return append(errs, core.Immutable(path.Child("volumeLifecycleModes"), x.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)...)
}

// updateCSIDriver counts changes from none, not from one as other kinds do.
func updateCSIDriver(x, old *storagev1.CSIDriver) {
	if !equality.Semantic.DeepEqual(x.Spec, old.Spec) {
		x.Generation = old.Generation + 1
	}
}
