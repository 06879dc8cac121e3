package storage

import (
	"github.com/skiff-sh/skiff/api/core"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var csiNode = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "CSINode",
	Plural: "csinodes", Singular: "csinode",
	StoragePath: "csinodes",
	New:         api.New[storagev1.CSINode], NewList: api.NewList[storagev1.CSINodeList],
	Validate:       api.Check(validateCSINode),
	ValidateUpdate: api.CheckUpdate(func(x, _ *storagev1.CSINode) field.ErrorList { return validateCSINode(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Drivers", "integer", func(x *storagev1.CSINode) any { return int64(len(x.Spec.Drivers)) }),
		api.AgeColumn(),
	},
}

func validateCSINode(x *storagev1.CSINode) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, d := range x.Spec.Drivers {
		at := field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, core.Required(at.Child("name"), d.Name, "")...)
		errs = append(errs, core.Required(at.Child("nodeID"), d.NodeID, "")...)
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
	}
	return errs
}
