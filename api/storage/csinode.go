package storage

import (
	"fmt"
	"slices"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var csiNode = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "CSINode",
	Plural: "csinodes", Singular: "csinode",
	StoragePath: "csinodes",
	New:         api.New[storagev1.CSINode], NewList: api.NewList[storagev1.CSINodeList],
	Validate:       api.Check(validateCSINode),
	ValidateUpdate: api.CheckUpdate(validateCSINodeUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Drivers", "integer", func(x *storagev1.CSINode) any { return int64(len(x.Spec.Drivers)) }),
		api.AgeColumn(),
	},
}

const longestNodeID = 256 // bytes

// validateCSINodeUpdate lets drivers come and go, but not change, except in how many volumes they take.
func validateCSINodeUpdate(x, old *storagev1.CSINode) field.ErrorList {
	errs := validateCSINode(x)
	for _, d := range x.Spec.Drivers {
		for _, was := range old.Spec.Drivers {
			if d.Name != was.Name {
				continue
			}
			was.Allocatable = d.Allocatable
			if !equality.Semantic.DeepEqual(d, was) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "drivers"), x.Spec.Drivers, "field is immutable"))
			}
		}
	}
	return errs
}

func validateCSINode(x *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, d := range x.Spec.Drivers {
		at := field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, core.CSIDriverName(at.Child("name"), d.Name)...)
		errs = append(errs, core.Required(at.Child("nodeID"), d.NodeID, "")...)
		if len(d.NodeID) > longestNodeID {
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", longestNodeID)))
		}
		if a := d.Allocatable; a != nil {
			errs = append(errs, core.NotNegative(at.Child("allocatable", "count"), a.Count)...)
		}
		for j, k := range d.TopologyKeys { // upstream names no key
			errs = append(errs, core.Required(at, k, "")...)
			if slices.Contains(d.TopologyKeys[:j], k) {
				errs = append(errs, field.Duplicate(at, k))
			}
			errs = append(errs, core.Problems(at, k, validation.IsQualifiedName(k))...)
		}
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
	}
	return errs
}
