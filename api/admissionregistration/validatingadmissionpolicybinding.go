package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var validatingAdmissionPolicyBinding = &api.Kind{
	Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicyBinding",
	Plural: "validatingadmissionpolicybindings", Singular: "validatingadmissionpolicybinding", Categories: []string{"api-extensions"},
	StoragePath: "validatingadmissionpolicybindings",
	New:         api.New[admissionv1.ValidatingAdmissionPolicyBinding], NewList: api.NewList[admissionv1.ValidatingAdmissionPolicyBindingList],
	Validate: api.Check(validateValidatingAdmissionPolicyBinding),
	ValidateUpdate: api.CheckUpdate(func(x, _ *admissionv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
		return validateValidatingAdmissionPolicyBinding(x)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("PolicyName", "string", func(x *admissionv1.ValidatingAdmissionPolicyBinding) any { return x.Spec.PolicyName }),
		api.Col("ParamRef", "string", func(x *admissionv1.ValidatingAdmissionPolicyBinding) any { return paramRefText(x.Spec.ParamRef) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultValidatingAdmissionPolicyBinding),
	HasGeneration: true,
}

func defaultValidatingAdmissionPolicyBinding(x *admissionv1.ValidatingAdmissionPolicyBinding) {
	defaultMatch(x.Spec.MatchResources)
}

func paramRefText(r *admissionv1.ParamRef) string {
	switch {
	case r == nil:
		return "<unset>"
	case r.Namespace != "":
		return r.Namespace + "/" + r.Name
	case r.Name != "":
		return "*/" + r.Name
	}
	return "*"
}
