package storage

import (
	"maps"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/api/core"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
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
	errs = append(errs, qualifiedDriver(field.NewPath("provisioner"), x.Provisioner)...)
	if p := x.ReclaimPolicy; p != nil && *p != "" {
		errs = append(errs, core.Known(field.NewPath("reclaimPolicy"), *p, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if m := x.VolumeBindingMode; m == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, core.Known(field.NewPath("volumeBindingMode"), *m, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(field.NewPath("allowedTopologies"), x.AllowedTopologies)...)
}

// qualifiedDriver checks the name of a provisioner or driver, whose case does not matter.
func qualifiedDriver(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	name = strings.ToLower(name)
	return core.Problems(path, name, validation.IsQualifiedName(name))
}

// validateTopologies checks where volumes may be. No two terms, and no two expressions of one term, may say the same.
func validateTopologies(path *field.Path, terms []corev1.TopologySelectorTerm) field.ErrorList {
	var errs field.ErrorList
	var seen []map[string]sets.Set[string]
	for i := range terms {
		at := path.Index(i).Child("matchLabelExpressions")
		term := map[string]sets.Set[string]{}
		for j, e := range terms[i].MatchLabelExpressions {
			at := at.Index(j)
			values := sets.Set[string]{}
			if len(e.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), ""))
			}
			for k, v := range e.Values {
				if values.Has(v) {
					errs = append(errs, field.Duplicate(at.Child("values").Index(k), v))
				}
				values.Insert(v)
			}
			errs = append(errs, metavalidation.ValidateLabelName(e.Key, at.Child("key"))...)
			if _, ok := term[e.Key]; ok {
				errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
			}
			term[e.Key] = values
		}
		if len(term) == 0 || slices.ContainsFunc(seen, func(other map[string]sets.Set[string]) bool {
			return maps.EqualFunc(term, other, sets.Set[string].Equal)
		}) {
			errs = append(errs, field.Duplicate(at, ""))
		}
		seen = append(seen, term)
	}
	return errs
}

func validateStorageClassUpdate(x, old *storagev1.StorageClass) field.ErrorList {
	errs := validateStorageClass(x)
	errs = append(errs, core.Immutable(field.NewPath("parameters"), x.Parameters, old.Parameters)...)
	errs = append(errs, core.Immutable(field.NewPath("provisioner"), x.Provisioner, old.Provisioner)...)
	errs = append(errs, core.Immutable(field.NewPath("reclaimPolicy"), x.ReclaimPolicy, old.ReclaimPolicy)...)
	errs = append(errs, core.Immutable(field.NewPath("volumeBindingMode"), x.VolumeBindingMode, old.VolumeBindingMode)...)
	return errs
}
