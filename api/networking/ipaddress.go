package networking

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"net/netip"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var ipAddress = &api.Kind{
	Group: "networking.k8s.io", Version: "v1", Kind: "IPAddress",
	Plural: "ipaddresses", Singular: "ipaddress", ShortNames: []string{"ip"},
	StoragePath: "ipaddresses",
	New:         api.New[networkingv1.IPAddress], NewList: api.NewList[networkingv1.IPAddressList],
	ValidateName:   validateIPName,
	Validate:       api.Check(validateIPAddress),
	ValidateUpdate: api.CheckUpdate(validateIPAddressUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("ParentRef", "string", func(x *networkingv1.IPAddress) any { return parentText(x.Spec.ParentRef) }),
	},
	UnconditionalUpdate: true,
}

func parentText(r *networkingv1.ParentReference) string {
	if r == nil {
		return "<none>"
	}
	resource := r.Resource
	if r.Group != "" {
		resource += "." + r.Group
	}
	parts := []string{resource}
	if r.Namespace != "" {
		parts = append(parts, r.Namespace)
	}
	return strings.Join(append(parts, r.Name), "/")
}

func validateIPAddress(x *networkingv1.IPAddress) field.ErrorList {
	var errs field.ErrorList
	if x.Spec.ParentRef == nil {
		return append(errs, field.Required(field.NewPath("spec", "parentRef"), ""))
	}
	at := field.NewPath("spec", "parentRef")
	r := x.Spec.ParentRef
	if r.Group != "" {
		errs = append(errs, core.Subdomain(at.Child("group"), r.Group)...)
	}
	for _, f := range []struct {
		name, value string
		needed      bool
	}{{"resource", r.Resource, true}, {"name", r.Name, true}, {"namespace", r.Namespace, false}} {
		switch {
		case f.value != "":
			errs = append(errs, core.Problems(at.Child(f.name), f.value, core.PathSegment(f.value, false))...)
		case f.needed:
			errs = append(errs, field.Required(at.Child(f.name), ""))
		}
	}
	return errs
}

func validateIPAddressUpdate(x, old *networkingv1.IPAddress) field.ErrorList {
	errs := validateIPAddress(x)
	errs = append(errs, core.Immutable(field.NewPath("spec", "parentRef"), x.Spec.ParentRef, old.Spec.ParentRef)...)
	return errs
}

// validateIPName checks that the name is an address in its canonical form.
func validateIPName(name string, _ bool) []string {
	a, err := netip.ParseAddr(name)
	switch {
	case err != nil:
		return []string{"must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"}
	case a.String() != name:
		return []string{fmt.Sprintf("must be in canonical form (%q)", a)}
	}
	return nil
}
