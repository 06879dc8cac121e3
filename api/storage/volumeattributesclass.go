package storage

import (
	"github.com/skiff-sh/skiff/api/core"
	storagev1 "k8s.io/api/storage/v1"
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
	errs = append(errs, core.Required(field.NewPath("driverName"), x.DriverName, "")...)
	return errs
}

func validateVolumeAttributesClassUpdate(x, old *storagev1.VolumeAttributesClass) field.ErrorList {
	errs := validateVolumeAttributesClass(x)
	errs = append(errs, core.Immutable(field.NewPath("driverName"), x.DriverName, old.DriverName)...)
	errs = append(errs, core.Immutable(field.NewPath("parameters"), x.Parameters, old.Parameters)...)
	return errs
}
