package storage

import (
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var volumeAttributesClass = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "VolumeAttributesClass",
	Plural: "volumeattributesclasses", Singular: "volumeattributesclass", ShortNames: []string{"vac"},
	StoragePath: "volumeattributesclasses",
	New:         api.New[storagev1.VolumeAttributesClass], NewList: api.NewList[storagev1.VolumeAttributesClassList],
	Validate:       api.Check(validateVolumeAttributesClass),
	ValidateUpdate: api.CheckUpdate(validateVolumeAttributesClassUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("DriverName", "string", func(x *storagev1.VolumeAttributesClass) any { return x.DriverName }),
		api.AgeColumn(),
	},
	UnconditionalUpdate: true,
}

func validateVolumeAttributesClass(x *storagev1.VolumeAttributesClass) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, qualifiedDriver(field.NewPath("driverName"), x.DriverName)...)
	if len(x.Parameters) == 0 {
		errs = append(errs, field.Required(field.NewPath("parameters"), "must contain at least one key/value pair"))
	}
	return errs
}

func validateVolumeAttributesClassUpdate(x, old *storagev1.VolumeAttributesClass) field.ErrorList {
	var errs field.ErrorList
	if x.DriverName != old.DriverName {
		errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
	}
	if !equality.Semantic.DeepEqual(x.Parameters, old.Parameters) {
		errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
	}
	return append(errs, validateVolumeAttributesClass(x)...)
}
