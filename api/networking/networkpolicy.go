package networking

import (
	"github.com/skiff-sh/skiff/api/core"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var networkPolicy = &api.Kind{
	Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy",
	Plural: "networkpolicies", Singular: "networkpolicy", ShortNames: []string{"netpol"}, Namespaced: true,
	StoragePath: "networkpolicies",
	New:         api.New[networkingv1.NetworkPolicy], NewList: api.NewList[networkingv1.NetworkPolicyList],
	Validate:       api.Check(validateNetworkPolicy),
	ValidateUpdate: api.CheckUpdate(func(x, _ *networkingv1.NetworkPolicy) field.ErrorList { return validateNetworkPolicy(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Pod-Selector", "string", func(x *networkingv1.NetworkPolicy) any { return metav1.FormatLabelSelector(&x.Spec.PodSelector) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultNetworkPolicy),
	HasGeneration: true, UnconditionalUpdate: true,
}

func defaultNetworkPolicy(x *networkingv1.NetworkPolicy) {
	if len(x.Spec.PolicyTypes) == 0 {
		x.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(x.Spec.Egress) != 0 {
			x.Spec.PolicyTypes = append(x.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for i := range x.Spec.Ingress {
		defaultPolicyPorts(x.Spec.Ingress[i].Ports)
	}
	for i := range x.Spec.Egress {
		defaultPolicyPorts(x.Spec.Egress[i].Ports)
	}
}

func defaultPolicyPorts(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		api.FillPtr(&ports[i].Protocol, corev1.ProtocolTCP)
	}
}

func validateNetworkPolicy(x *networkingv1.NetworkPolicy) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	errs = append(errs, core.LabelSelector(path.Child("podSelector"), &x.Spec.PodSelector)...)
	for i, r := range x.Spec.Ingress {
		at := path.Child("ingress").Index(i)
		errs = append(errs, validatePolicyPorts(at.Child("ports"), r.Ports)...)
		errs = append(errs, validatePeers(at.Child("from"), r.From)...)
	}
	for i, r := range x.Spec.Egress {
		at := path.Child("egress").Index(i)
		errs = append(errs, validatePolicyPorts(at.Child("ports"), r.Ports)...)
		errs = append(errs, validatePeers(at.Child("to"), r.To)...)
	}
	if len(x.Spec.PolicyTypes) > 2 {
		errs = append(errs, field.Invalid(path.Child("policyTypes"), &x.Spec.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range x.Spec.PolicyTypes {
		errs = append(errs, core.Known(path.Child("policyTypes").Index(i), t, networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)...)
	}
	return errs
}

func validatePolicyPorts(path *field.Path, ports []networkingv1.NetworkPolicyPort) field.ErrorList {
	var errs field.ErrorList
	for i, p := range ports {
		at := path.Index(i)
		if p.Protocol != nil {
			errs = append(errs, core.Known(at.Child("protocol"), *p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
		}
		if p.Port != nil {
			errs = append(errs, core.PortOrName(at.Child("port"), *p.Port)...)
		}
		switch {
		case p.EndPort == nil:
		case p.Port == nil:
			errs = append(errs, field.Invalid(at.Child("endPort"), *p.EndPort, "may not be specified when `port` is not specified"))
		case p.Port.IntVal > *p.EndPort:
			errs = append(errs, field.Invalid(at.Child("endPort"), p.Port.IntVal, "must be greater than or equal to `port`"))
		}
		if p.EndPort != nil && p.Port != nil {
			errs = append(errs, core.Port(at.Child("endPort"), *p.EndPort)...)
		}
	}
	return errs
}

func validatePeers(path *field.Path, peers []networkingv1.NetworkPolicyPeer) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		at := path.Index(i)
		errs = append(errs, core.LabelSelector(at.Child("podSelector"), p.PodSelector)...)
		errs = append(errs, core.LabelSelector(at.Child("namespaceSelector"), p.NamespaceSelector)...)
		switch {
		case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
			errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
		case p.IPBlock != nil:
			if p.IPBlock.CIDR == "" {
				errs = append(errs, field.Required(at.Child("ipBlock", "cidr"), ""))
				continue
			}
			errs = append(errs, validation.IsValidCIDRForLegacyField(at.Child("ipBlock", "cidr"), p.IPBlock.CIDR, false, nil)...)
			for j, e := range p.IPBlock.Except {
				errs = append(errs, validation.IsValidCIDRForLegacyField(at.Child("ipBlock", "except").Index(j), e, false, nil)...)
			}
		case p.PodSelector == nil && p.NamespaceSelector == nil:
			errs = append(errs, field.Required(at, "must specify a peer"))
		}
	}
	return errs
}
