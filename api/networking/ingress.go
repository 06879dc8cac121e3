package networking

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"net/netip"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var ingress = &api.Kind{
	Group: "networking.k8s.io", Version: "v1", Kind: "Ingress",
	Plural: "ingresses", Singular: "ingress", ShortNames: []string{"ing"}, Namespaced: true,
	StoragePath: "ingress",
	New:         api.New[networkingv1.Ingress], NewList: api.NewList[networkingv1.IngressList],
	Validate:       api.Check(validateIngress),
	ValidateStatus: api.CheckUpdate(validateIngressStatus),
	Warnings: func(obj, old api.Object) []string {
		if _, ok := obj.GetAnnotations()[classAnnotation]; !ok || old != nil {
			return nil
		}
		return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", classAnnotation)}
	},
	ValidateUpdate: api.CheckUpdate(func(x, _ *networkingv1.Ingress) field.ErrorList { return validateIngress(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Class", "string", func(x *networkingv1.Ingress) any { return ingressClassName(x) }),
		api.Col("Hosts", "string", func(x *networkingv1.Ingress) any { return hostsText(x.Spec.Rules) }),
		api.Col("Address", "string", func(x *networkingv1.Ingress) any { return ingressAddress(x) }),
		api.Col("Ports", "string", func(x *networkingv1.Ingress) any { return ingressPorts(x) }),
		api.AgeColumn(),
	},
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func ingressClassName(x *networkingv1.Ingress) string {
	if x.Spec.IngressClassName == nil {
		return "<none>"
	}
	return *x.Spec.IngressClassName
}

func hostsText(rules []networkingv1.IngressRule) string {
	var hosts []string
	more := 0
	for _, r := range rules {
		if r.Host == "" {
			continue
		}
		if len(hosts) < 3 {
			hosts = append(hosts, r.Host)
		} else {
			more++
		}
	}
	switch {
	case len(hosts) == 0:
		return "*"
	case more > 0:
		return fmt.Sprintf("%s + %d more...", strings.Join(hosts, ","), more)
	}
	return strings.Join(hosts, ",")
}

func ingressAddress(x *networkingv1.Ingress) string {
	var out []string
	for _, i := range x.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			out = append(out, i.IP)
		} else if i.Hostname != "" {
			out = append(out, i.Hostname)
		}
	}
	return strings.Join(out, ",")
}

func ingressPorts(x *networkingv1.Ingress) string {
	if len(x.Spec.TLS) > 0 {
		return "80, 443"
	}
	return "80"
}

func validateIngress(x *networkingv1.Ingress) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if len(x.Spec.Rules) == 0 && x.Spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(path, x.Spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if b := x.Spec.DefaultBackend; b != nil {
		errs = append(errs, validateBackend(path.Child("defaultBackend"), b)...)
	}
	if c := x.Spec.IngressClassName; c != nil {
		errs = append(errs, core.Subdomain(path.Child("ingressClassName"), *c)...)
	}
	for i, t := range x.Spec.TLS {
		for j, h := range t.Hosts {
			errs = append(errs, validateHost(path.Child("tls").Index(i).Child("hosts").Index(j), h)...)
		}
		if t.SecretName != "" {
			errs = append(errs, core.Subdomain(path.Child("tls").Index(i).Child("secretName"), t.SecretName)...)
		}
	}
	for i, r := range x.Spec.Rules {
		errs = append(errs, validateIngressRule(path.Child("rules").Index(i), &r)...)
	}
	return errs
}

func validateIngressStatus(x, _ *networkingv1.Ingress) field.ErrorList {
	var errs field.ErrorList
	for i, g := range x.Status.LoadBalancer.Ingress {
		at := field.NewPath("status", "loadBalancer", "ingress").Index(i)
		if g.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), g.IP, false, nil)...)
		}
		if g.Hostname == "" {
			continue
		}
		errs = append(errs, core.Subdomain(at.Child("hostname"), g.Hostname)...)
		if _, err := netip.ParseAddr(g.Hostname); err == nil {
			errs = append(errs, field.Invalid(at.Child("hostname"), g.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	return errs
}

// classAnnotation named the class before Ingress had a field for it.
const classAnnotation = "kubernetes.io/ingress.class"

func validateHost(path *field.Path, h string) field.ErrorList {
	if strings.Contains(h, "*") {
		return core.Problems(path, h, validation.IsWildcardDNS1123Subdomain(h))
	}
	return core.Subdomain(path, h)
}

func validateIngressRule(at *field.Path, r *networkingv1.IngressRule) field.ErrorList {
	var errs field.ErrorList
	if r.Host != "" {
		if _, err := netip.ParseAddr(r.Host); err == nil {
			errs = append(errs, field.Invalid(at.Child("host"), r.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, validateHost(at.Child("host"), r.Host)...)
	}
	if r.HTTP == nil {
		return errs
	}
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(at.Child("http", "paths"), ""))
	}
	for i, p := range r.HTTP.Paths {
		pp := at.Child("http", "paths").Index(i)
		if p.PathType == nil {
			errs = append(errs, field.Required(pp.Child("pathType"), "pathType must be specified"))
			continue
		}
		errs = append(errs, core.Known(pp.Child("pathType"), *p.PathType, networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix)...)
		switch {
		case *p.PathType == networkingv1.PathTypeExact || *p.PathType == networkingv1.PathTypePrefix:
			errs = append(errs, validateIngressPath(pp.Child("path"), p.Path)...)
		case *p.PathType == networkingv1.PathTypeImplementationSpecific && p.Path != "" && !strings.HasPrefix(p.Path, "/"):
			errs = append(errs, field.Invalid(pp.Child("path"), p.Path, "must be an absolute path"))
		}
		errs = append(errs, validateBackend(pp.Child("backend"), &p.Backend)...)
	}
	return errs
}

func validateBackend(at *field.Path, b *networkingv1.IngressBackend) field.ErrorList {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(at, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return validateTypedRef(at.Child("resource"), b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name)
	case b.Service == nil:
		return field.ErrorList{field.Invalid(at, "", "resource or service backend is required")}
	}
	s := b.Service
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(at.Child("service", "name"), ""))
	} else {
		errs = append(errs, core.Label(at.Child("service", "name"), s.Name)...)
	}
	switch {
	case s.Port.Name != "" && s.Port.Number != 0:
		errs = append(errs, field.Invalid(at, "", "cannot set both port name & port number"))
	case s.Port.Name != "":
		errs = append(errs, core.Problems(at.Child("service", "port", "name"), s.Port.Name, validation.IsValidPortName(s.Port.Name))...)
	case s.Port.Number != 0:
		errs = append(errs, core.Port(at.Child("service", "port", "number"), s.Port.Number)...)
	default:
		errs = append(errs, field.Required(at, "port name or number is required"))
	}
	return errs
}

// validateTypedRef checks a reference to an object whose kind may be any.
func validateTypedRef(at *field.Path, group *string, kind, name string) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, core.Subdomain(at.Child("apiGroup"), *group)...)
	}
	for _, f := range []struct{ name, value string }{{"kind", kind}, {"name", name}} {
		if f.value == "" {
			errs = append(errs, field.Required(at.Child(f.name), ""))
		} else {
			errs = append(errs, core.Problems(at.Child(f.name), f.value, core.PathSegment(f.value, false))...)
		}
	}
	return errs
}

// validateIngressPath checks a path that is matched segment by segment.
func validateIngressPath(at *field.Path, path string) field.ErrorList {
	if !strings.HasPrefix(path, "/") {
		return field.ErrorList{field.Invalid(at, path, "must be an absolute path")}
	}
	var errs field.ErrorList
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(path, part) {
			errs = append(errs, field.Invalid(at, path, "must not contain '"+part+"'"))
		}
	}
	for _, end := range []string{"/..", "/."} {
		if strings.HasSuffix(path, end) {
			errs = append(errs, field.Invalid(at, path, "cannot end with '"+end+"'"))
		}
	}
	return errs
}
