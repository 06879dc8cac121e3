package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var lease = &api.Kind{
	Group: "coordination.k8s.io", Version: "v1", Kind: "Lease",
	Plural: "leases", Singular: "lease", Namespaced: true,
	StoragePath: "leases",
	New:         api.New[coordinationv1.Lease], NewList: api.NewList[coordinationv1.LeaseList],
	Validate:       api.Check(validateLease),
	ValidateUpdate: api.CheckUpdate(func(x, _ *coordinationv1.Lease) field.ErrorList { return validateLease(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Holder", "string", func(x *coordinationv1.Lease) any { return holder(x) }),
		api.AgeColumn(),
	},
	AllowCreateOnUpdate: true,
	// Coordinated leader election is off, as by default upstream.
	PrepareCreate: api.OnCreate(func(x *coordinationv1.Lease) { x.Spec.Strategy, x.Spec.PreferredHolder = nil, nil }),
	PrepareUpdate: api.OnUpdate(func(x, old *coordinationv1.Lease) {
		if old.Spec.Strategy == nil {
			x.Spec.Strategy = nil
		}
		if old.Spec.PreferredHolder == nil {
			x.Spec.PreferredHolder = nil
		}
	}),
}

func holder(x *coordinationv1.Lease) string {
	if x.Spec.HolderIdentity == nil {
		return ""
	}
	return *x.Spec.HolderIdentity
}

func validateLease(x *coordinationv1.Lease) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if d := x.Spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if t := x.Spec.LeaseTransitions; t != nil && *t < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *t, "must be greater than or equal to 0"))
	}
	return errs
}
