package storage

import (
	"github.com/skiff-sh/skiff/api/core"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var storageClass = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "StorageClass",
	Plural: "storageclasses", Singular: "storageclass", ShortNames: []string{"sc"},
	StoragePath: "storageclasses",
	New:         api.New[storagev1.StorageClass], NewList: api.NewList[storagev1.StorageClassList],
	Validate:       api.Check(validateStorageClass),
	ValidateUpdate: api.CheckUpdate(validateStorageClassUpdate),
	Columns: []api.Column{
		defaultMarkedName(),
		api.Col("Provisioner", "string", func(x *storagev1.StorageClass) any { return x.Provisioner }),
		api.Col("ReclaimPolicy", "string", func(x *storagev1.StorageClass) any { return reclaim(x) }),
		api.Col("VolumeBindingMode", "string", func(x *storagev1.StorageClass) any { return bindingMode(x) }),
		api.Col("AllowVolumeExpansion", "string", func(x *storagev1.StorageClass) any { return x.AllowVolumeExpansion != nil && *x.AllowVolumeExpansion }),
		api.AgeColumn(),
	},
	Default:             api.Defaults(defaultStorageClass),
	UnconditionalUpdate: true,
}

func defaultStorageClass(x *storagev1.StorageClass) {
	api.FillPtr(&x.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	api.FillPtr(&x.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}

func reclaim(x *storagev1.StorageClass) string {
	if x.ReclaimPolicy == nil {
		return string(corev1.PersistentVolumeReclaimDelete)
	}
	return string(*x.ReclaimPolicy)
}

func bindingMode(x *storagev1.StorageClass) string {
	if x.VolumeBindingMode == nil {
		return string(storagev1.VolumeBindingImmediate)
	}
	return string(*x.VolumeBindingMode)
}

// defaultMarkedName is the name column with the mark of the default class.
func defaultMarkedName() api.Column {
	c := api.NameColumn()
	c.Cell = func(o api.Object) any {
		if o.GetAnnotations()["storageclass.kubernetes.io/is-default-class"] == "true" {
			return o.GetName() + " (default)"
		}
		return o.GetName()
	}
	return c
}

func validateStorageClass(x *storagev1.StorageClass) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, core.Required(field.NewPath("provisioner"), x.Provisioner, "")...)
	if p := x.ReclaimPolicy; p != nil {
		errs = append(errs, core.OneOf(field.NewPath("reclaimPolicy"), *p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if m := x.VolumeBindingMode; m == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, core.OneOf(field.NewPath("volumeBindingMode"), *m, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return errs
}

func validateStorageClassUpdate(x, old *storagev1.StorageClass) field.ErrorList {
	errs := validateStorageClass(x)
	if !equality.Semantic.DeepEqual(x.Parameters, old.Parameters) {
		errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
	}
	if x.Provisioner != old.Provisioner {
		errs = append(errs, field.Forbidden(field.NewPath("provisioner"), "updates to provisioner are forbidden."))
	}
	errs = append(errs, core.Immutable(field.NewPath("reclaimPolicy"), x.ReclaimPolicy, old.ReclaimPolicy)...)
	errs = append(errs, core.Immutable(field.NewPath("volumeBindingMode"), x.VolumeBindingMode, old.VolumeBindingMode)...)
	return errs
}
