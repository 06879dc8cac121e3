package networking

import (
	"github.com/skiff-sh/skiff/api/core"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var ingressClass = &api.Kind{
	Group: "networking.k8s.io", Version: "v1", Kind: "IngressClass",
	Plural: "ingressclasses", Singular: "ingressclass",
	StoragePath: "ingressclasses",
	New:         api.New[networkingv1.IngressClass], NewList: api.NewList[networkingv1.IngressClassList],
	Validate:       api.Check(validateIngressClass),
	ValidateUpdate: api.CheckUpdate(validateIngressClassUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Controller", "string", func(x *networkingv1.IngressClass) any { return x.Spec.Controller }),
		api.Col("Parameters", "string", func(x *networkingv1.IngressClass) any { return parametersText(x.Spec.Parameters) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultIngressClass),
	HasGeneration: true, UnconditionalUpdate: true,
}

func defaultIngressClass(x *networkingv1.IngressClass) {
	if p := x.Spec.Parameters; p != nil {
		api.FillPtr(&p.Scope, networkingv1.IngressClassParametersReferenceScopeCluster)
	}
}

func parametersText(p *networkingv1.IngressClassParametersReference) string {
	if p == nil {
		return "<none>"
	}
	if p.APIGroup != nil {
		return p.Kind + "." + *p.APIGroup + "/" + p.Name
	}
	return p.Kind + "/" + p.Name
}

func validateIngressClass(x *networkingv1.IngressClass) field.ErrorList {
	var errs field.ErrorList
	const most = 250 // bytes
	at := field.NewPath("spec", "controller")
	if len(x.Spec.Controller) > most {
		errs = append(errs, field.TooLong(at, x.Spec.Controller, most))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(at, x.Spec.Controller)...)
	p, at := x.Spec.Parameters, field.NewPath("spec", "parameters")
	if p == nil {
		return errs
	}
	errs = append(errs, validateTypedRef(at, p.APIGroup, p.Kind, p.Name)...)
	if p.Scope == nil {
		return append(errs, field.Required(at.Child("scope"), ""))
	}
	errs = append(errs, core.Known(at.Child("scope"), *p.Scope, networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace)...)
	switch *p.Scope {
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if p.Namespace == nil {
			errs = append(errs, field.Required(at.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
		} else {
			errs = append(errs, core.Label(at.Child("namespace"), *p.Namespace)...)
		}
	case networkingv1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(at.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
		}
	}
	return errs
}

func validateIngressClassUpdate(x, old *networkingv1.IngressClass) field.ErrorList {
	errs := core.Immutable(field.NewPath("spec", "controller"), x.Spec.Controller, old.Spec.Controller)
	return append(errs, validateIngressClass(x)...)
}
