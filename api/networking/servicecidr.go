package networking

import (
	"github.com/skiff-sh/skiff/api/core"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var serviceCIDR = &api.Kind{
	Group: "networking.k8s.io", Version: "v1", Kind: "ServiceCIDR",
	Plural: "servicecidrs", Singular: "servicecidr",
	StoragePath: "servicecidrs",
	New:         api.New[networkingv1.ServiceCIDR], NewList: api.NewList[networkingv1.ServiceCIDRList],
	Validate:       api.Check(validateServiceCIDR),
	ValidateUpdate: api.CheckUpdate(validateServiceCIDRUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("CIDRs", "string", func(x *networkingv1.ServiceCIDR) any { return strings.Join(x.Spec.CIDRs, ",") }),
		api.AgeColumn(),
	},
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func validateServiceCIDR(x *networkingv1.ServiceCIDR) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec", "cidrs")
	switch n := len(x.Spec.CIDRs); {
	case n == 0:
		errs = append(errs, field.Required(at, "at least one CIDR required"))
	case n > 2:
		errs = append(errs, field.Invalid(at, x.Spec, "may only hold up to 2 values"))
	}
	for i, c := range x.Spec.CIDRs {
		errs = append(errs, validation.IsValidCIDR(at.Index(i), c)...)
	}
	return errs
}

func validateServiceCIDRUpdate(x, old *networkingv1.ServiceCIDR) field.ErrorList {
	errs := validateServiceCIDR(x)
	errs = append(errs, core.Immutable(field.NewPath("spec", "cidrs"), x.Spec.CIDRs, old.Spec.CIDRs)...)
	return errs
}
