package node

import (
	"github.com/skiff-sh/skiff/api/core"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var runtimeClass = &api.Kind{
	Group: "node.k8s.io", Version: "v1", Kind: "RuntimeClass",
	Plural: "runtimeclasses", Singular: "runtimeclass",
	StoragePath: "runtimeclasses",
	New:         api.New[nodev1.RuntimeClass], NewList: api.NewList[nodev1.RuntimeClassList],
	Validate:       api.Check(validateRuntimeClass),
	ValidateUpdate: api.CheckUpdate(validateRuntimeClassUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Handler", "string", func(x *nodev1.RuntimeClass) any { return x.Handler }),
		api.AgeColumn(),
	},
}

func validateRuntimeClass(x *nodev1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, core.Label(field.NewPath("handler"), x.Handler)...)
	if s := x.Scheduling; s != nil {
		errs = append(errs, core.ValidateTolerations(field.NewPath("scheduling", "tolerations"), s.Tolerations)...)
	}
	return errs
}

func validateRuntimeClassUpdate(x, old *nodev1.RuntimeClass) field.ErrorList {
	errs := validateRuntimeClass(x)
	errs = append(errs, core.Immutable(field.NewPath("handler"), x.Handler, old.Handler)...)
	return errs
}
