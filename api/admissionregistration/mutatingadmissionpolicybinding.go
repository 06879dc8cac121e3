package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var mutatingAdmissionPolicyBinding = &api.Kind{
	Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingAdmissionPolicyBinding",
	Plural: "mutatingadmissionpolicybindings", Singular: "mutatingadmissionpolicybinding", Categories: []string{"api-extensions"},
	StoragePath: "mutatingadmissionpolicybindings",
	New:         api.New[admissionv1.MutatingAdmissionPolicyBinding], NewList: api.NewList[admissionv1.MutatingAdmissionPolicyBindingList],
	Validate: api.Check(validateMutatingAdmissionPolicyBinding),
	ValidateUpdate: api.CheckUpdate(func(x, _ *admissionv1.MutatingAdmissionPolicyBinding) field.ErrorList {
		return validateMutatingAdmissionPolicyBinding(x)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("PolicyName", "string", func(x *admissionv1.MutatingAdmissionPolicyBinding) any { return x.Spec.PolicyName }),
		api.Col("ParamRef", "string", func(x *admissionv1.MutatingAdmissionPolicyBinding) any { return paramRefText(x.Spec.ParamRef) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultMutatingAdmissionPolicyBinding),
	HasGeneration: true,
}

func defaultMutatingAdmissionPolicyBinding(x *admissionv1.MutatingAdmissionPolicyBinding) {
	defaultMatch(x.Spec.MatchResources)
}
