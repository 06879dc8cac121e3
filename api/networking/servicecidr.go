package networking

import (
	"github.com/skiff-sh/skiff/api/core"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"net/netip"
	"slices"
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
	families := map[bool]bool{}
	for i, c := range x.Spec.CIDRs {
		errs = append(errs, validation.IsValidCIDR(at.Index(i), c)...)
		if p, err := netip.ParsePrefix(c); err == nil {
			families[p.Addr().Is4()] = true
		}
	}
	if len(errs) == 0 && len(x.Spec.CIDRs) == 2 && len(families) < 2 {
		errs = append(errs, field.Invalid(at, x.Spec, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
	}
	return errs
}

func validateServiceCIDRUpdate(x, old *networkingv1.ServiceCIDR) field.ErrorList {
	at, now, was := field.NewPath("spec", "cidrs"), x.Spec.CIDRs, old.Spec.CIDRs
	if len(now) == 0 || len(was) == 0 || len(now) < len(was) {
		return core.Immutable(at, now, was)
	}
	var errs field.ErrorList
	for i, c := range was { // one range may grow to two
		errs = append(errs, core.Immutable(at.Index(i), now[i], c)...)
	}
	if slices.Equal(now, was) {
		return errs
	}
	if len(was) == 1 && len(now) == 2 && now[0] == was[0] {
		errs = append(errs, validateServiceCIDR(x)...)
	}
	return errs
}
