//lint:file-ignore SA1019 Endpoints are deprecated, and served.

package core

import (
	"fmt"
	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var endpoints = &api.Kind{
	Version: "v1", Kind: "Endpoints",
	Plural: "endpoints", Singular: "endpoints", ShortNames: []string{"ep"}, Namespaced: true,
	StoragePath: "services/endpoints",
	New:         api.New[corev1.Endpoints], NewList: api.NewList[corev1.EndpointsList],
	Validate:       api.Check(validateEndpoints),
	ValidateUpdate: api.CheckUpdate(func(x, _ *corev1.Endpoints) field.ErrorList { return validateEndpoints(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Endpoints", "string", func(x *corev1.Endpoints) any { return endpointsText(x) }),
		api.AgeColumn(),
	},
	Default:             api.Defaults(defaultEndpoints),
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
}

func defaultEndpoints(x *corev1.Endpoints) {
	for i := range x.Subsets {
		for j := range x.Subsets[i].Ports {
			api.Fill(&x.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
		}
	}
}

// endpointsText lists the first three addresses.
func endpointsText(x *corev1.Endpoints) string {
	var list []string
	total := 0
	add := func(s string) {
		if total++; len(list) < 3 {
			list = append(list, s)
		}
	}
	for _, s := range x.Subsets {
		for _, a := range s.Addresses {
			if len(s.Ports) == 0 {
				add(a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				add(net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	switch {
	case total == 0:
		return "<none>"
	case total > len(list):
		return fmt.Sprintf("%s + %d more...", strings.Join(list, ","), total-len(list))
	}
	return strings.Join(list, ",")
}

func validateEndpoints(x *corev1.Endpoints) field.ErrorList {
	var errs field.ErrorList
	for i, s := range x.Subsets {
		at := field.NewPath("subsets").Index(i)
		if len(s.Addresses)+len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for name, list := range map[string][]corev1.EndpointAddress{"addresses": s.Addresses, "notReadyAddresses": s.NotReadyAddresses} {
			for j, a := range list {
				errs = append(errs, validateEndpointAddress(at.Child(name).Index(j), &a)...)
			}
		}
		for j, p := range s.Ports {
			pp := at.Child("ports").Index(j)
			if p.Name == "" && len(s.Ports) > 1 {
				errs = append(errs, field.Required(pp.Child("name"), ""))
			} else if p.Name != "" {
				errs = append(errs, Label(pp.Child("name"), p.Name)...)
			}
			errs = append(errs, Port(pp.Child("port"), p.Port)...)
			if p.AppProtocol != nil {
				errs = append(errs, metavalidation.ValidateLabelName(*p.AppProtocol, pp.Child("appProtocol"))...)
			}
			errs = append(errs, OneOf(pp.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
	}
	return errs
}

func validateEndpointAddress(path *field.Path, a *corev1.EndpointAddress) field.ErrorList {
	at := path.Child("ip")
	errs := EndpointIP(at, a.IP)
	if len(validation.IsValidIPForLegacyField(at, a.IP, false, nil)) > 0 {
		errs = append(errs, field.Invalid(at, a.IP, "must be a valid IP address"))
	}
	if a.Hostname != "" {
		errs = append(errs, Label(path.Child("hostname"), a.Hostname)...)
	}
	if a.NodeName != nil {
		errs = append(errs, Subdomain(path.Child("nodeName"), *a.NodeName)...)
	}
	return errs
}

// EndpointIP checks an address that traffic may be sent to.
func EndpointIP(path *field.Path, ip string) field.ErrorList {
	if errs := validation.IsValidIPForLegacyField(path, ip, false, nil); len(errs) > 0 {
		return errs
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return nil
	}
	switch {
	case a.IsUnspecified():
		return field.ErrorList{field.Invalid(path, ip, "may not be unspecified ("+ip+")")}
	case a.IsLoopback():
		return field.ErrorList{field.Invalid(path, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)")}
	case a.IsLinkLocalUnicast():
		return field.ErrorList{field.Invalid(path, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")}
	case a.IsLinkLocalMulticast():
		return field.ErrorList{field.Invalid(path, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")}
	}
	return nil
}
