package storage

import (
	"github.com/skiff-sh/skiff/api/core"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var csiStorageCapacity = &api.Kind{
	Group: "storage.k8s.io", Version: "v1", Kind: "CSIStorageCapacity",
	Plural: "csistoragecapacities", Singular: "csistoragecapacity", Namespaced: true,
	StoragePath: "csistoragecapacities",
	New:         api.New[storagev1.CSIStorageCapacity], NewList: api.NewList[storagev1.CSIStorageCapacityList],
	Validate:       api.Check(validateCSIStorageCapacity),
	ValidateUpdate: api.CheckUpdate(validateCSIStorageCapacityUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.CreatedColumn(),
	},
	UnconditionalUpdate: true,
}

func validateCSIStorageCapacity(x *storagev1.CSIStorageCapacity) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, core.LabelSelector(field.NewPath("nodeTopology"), x.NodeTopology)...)
	errs = append(errs, core.Subdomain(field.NewPath("storageClassName"), x.StorageClassName)...)
	if x.Capacity != nil {
		errs = append(errs, core.NotNegativeQuantity(field.NewPath("capacity"), *x.Capacity)...)
	}
	return errs
}

func validateCSIStorageCapacityUpdate(x, old *storagev1.CSIStorageCapacity) field.ErrorList {
	errs := validateCSIStorageCapacity(x)
	errs = append(errs, core.Immutable(field.NewPath("nodeTopology"), x.NodeTopology, old.NodeTopology)...)
	errs = append(errs, core.Immutable(field.NewPath("storageClassName"), x.StorageClassName, old.StorageClassName)...)
	return errs
}
