package discovery

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"maps"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var endpointSlice = &api.Kind{
	Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice",
	Plural: "endpointslices", Singular: "endpointslice", Namespaced: true,
	StoragePath: "endpointslices",
	New:         api.New[discoveryv1.EndpointSlice], NewList: api.NewList[discoveryv1.EndpointSliceList],
	PrepareCreate: api.OnCreate(prepare),
	PrepareUpdate: api.OnUpdate(func(x, old *discoveryv1.EndpointSlice) {
		prepare(x)
		if !maps.Equal(x.Labels, old.Labels) { // they count here
			x.Generation = old.Generation + 1
		}
	}),
	Warnings: func(o, old api.Object) []string {
		if old == nil && o.(*discoveryv1.EndpointSlice).AddressType == discoveryv1.AddressTypeFQDN {
			return []string{"spec.addressType: FQDN endpoints are deprecated"}
		}
		return nil
	},
	Validate:       api.Check(validateEndpointSlice),
	ValidateUpdate: api.CheckUpdate(validateEndpointSliceUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("AddressType", "string", func(x *discoveryv1.EndpointSlice) any { return string(x.AddressType) }),
		api.Col("Ports", "string", func(x *discoveryv1.EndpointSlice) any { return portsText(x) }),
		api.Col("Endpoints", "string", func(x *discoveryv1.EndpointSlice) any { return addressesText(x) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultEndpointSlice),
	HasGeneration: true, UnconditionalUpdate: true,
}

// prepare forgets what only v1beta1 could set, and which of two lists without elements the client sent.
func prepare(x *discoveryv1.EndpointSlice) {
	if len(x.Endpoints) == 0 {
		x.Endpoints = nil
	}
	if len(x.Ports) == 0 {
		x.Ports = nil
	}
	for i := range x.Endpoints {
		x.Endpoints[i].DeprecatedTopology = nil
	}
}

func defaultEndpointSlice(x *discoveryv1.EndpointSlice) {
	for i := range x.Ports {
		api.FillPtr(&x.Ports[i].Name, "")
		api.FillPtr(&x.Ports[i].Protocol, corev1.ProtocolTCP)
	}
}

func portsText(x *discoveryv1.EndpointSlice) string {
	var out []string
	for _, p := range x.Ports {
		switch {
		case p.Port != nil:
			out = append(out, fmt.Sprint(*p.Port))
		case p.Name != nil:
			out = append(out, *p.Name)
		default:
			out = append(out, "*")
		}
	}
	return someOf(out)
}

func addressesText(x *discoveryv1.EndpointSlice) string {
	var out []string
	for _, e := range x.Endpoints {
		out = append(out, e.Addresses...)
	}
	return someOf(out)
}

// someOf lists the first three.
func someOf(list []string) string {
	switch {
	case strings.Join(list, "") == "":
		return "<unset>"
	case len(list) > 3:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:3], ","), len(list)-3)
	}
	return strings.Join(list, ",")
}

func validateEndpointSlice(x *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, core.OneOf(field.NewPath("addressType"), x.AddressType, discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	if len(x.Endpoints) > 1000 {
		errs = append(errs, field.TooMany(field.NewPath("endpoints"), len(x.Endpoints), 1000))
	}
	for i, e := range x.Endpoints {
		at := field.NewPath("endpoints").Index(i).Child("addresses")
		if len(e.Addresses) == 0 {
			errs = append(errs, field.Required(at, "must contain at least 1 address"))
		}
		for j, a := range e.Addresses {
			switch x.AddressType {
			case discoveryv1.AddressTypeFQDN:
				errs = append(errs, validation.IsFullyQualifiedDomainName(at.Index(j), a)...)
			case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
				errs = append(errs, core.EndpointIP(at.Index(j), a)...)
			}
		}
		errs = append(errs, validateEndpointMeta(field.NewPath("endpoints").Index(i), &e)...)
	}
	names := map[string]bool{}
	for i, p := range x.Ports {
		at := field.NewPath("ports").Index(i)
		if p.Name != nil {
			if *p.Name != "" {
				errs = append(errs, core.Label(at.Child("name"), *p.Name)...)
			}
			if names[*p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), *p.Name))
			}
			names[*p.Name] = true
		}
		if p.AppProtocol != nil {
			errs = append(errs, metavalidation.ValidateLabelName(*p.AppProtocol, at.Child("appProtocol"))...)
		}
		if p.Protocol != nil {
			errs = append(errs, core.Known(at.Child("protocol"), *p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
	}
	return errs
}

// validateEndpointMeta checks what is said of an endpoint beside its addresses.
func validateEndpointMeta(path *field.Path, e *discoveryv1.Endpoint) field.ErrorList {
	var errs field.ErrorList
	if e.NodeName != nil {
		errs = append(errs, core.Subdomain(path.Child("nodeName"), *e.NodeName)...)
	}
	if e.Hostname != nil {
		errs = append(errs, core.Label(path.Child("hostname"), *e.Hostname)...)
	}
	if e.Hints == nil {
		return errs
	}
	const most = 8
	zones, at := map[string]bool{}, path.Child("hints", "forZones")
	if n := len(e.Hints.ForZones); n > most {
		errs = append(errs, field.TooMany(at, n, most))
	}
	for i, z := range e.Hints.ForZones {
		at := at.Index(i).Child("name")
		if zones[z.Name] {
			errs = append(errs, field.Duplicate(at, z.Name))
		} else {
			zones[z.Name] = true
			errs = append(errs, core.Problems(at, z.Name, validation.IsValidLabelValue(z.Name))...)
		}
	}
	nodes, at := map[string]bool{}, path.Child("hints", "forNodes")
	if n := len(e.Hints.ForNodes); n > most {
		errs = append(errs, field.TooMany(at, n, most))
	}
	for i, n := range e.Hints.ForNodes {
		at := at.Index(i).Child("name")
		if nodes[n.Name] {
			errs = append(errs, field.Duplicate(at, n.Name))
		} else {
			nodes[n.Name] = true
			errs = append(errs, core.Subdomain(at, n.Name)...)
		}
	}
	return errs
}

func validateEndpointSliceUpdate(x, old *discoveryv1.EndpointSlice) field.ErrorList {
	errs := validateEndpointSlice(x)
	errs = append(errs, core.Immutable(field.NewPath("addressType"), x.AddressType, old.AddressType)...)
	return errs
}
