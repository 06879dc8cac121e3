package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var validatingAdmissionPolicy = &api.Kind{
	Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingAdmissionPolicy",
	Plural: "validatingadmissionpolicies", Singular: "validatingadmissionpolicy", Categories: []string{"api-extensions"},
	StoragePath: "validatingadmissionpolicies",
	New:         api.New[admissionv1.ValidatingAdmissionPolicy], NewList: api.NewList[admissionv1.ValidatingAdmissionPolicyList],
	Validate: api.Check(validateValidatingAdmissionPolicy),
	ValidateUpdate: api.CheckUpdate(func(x, _ *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
		return validateValidatingAdmissionPolicy(x)
	}),
	ValidateStatus: api.CheckUpdate(validateValidatingAdmissionPolicyStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Validations", "integer", func(x *admissionv1.ValidatingAdmissionPolicy) any { return int64(len(x.Spec.Validations)) }),
		api.Col("ParamKind", "string", func(x *admissionv1.ValidatingAdmissionPolicy) any { return paramKindText(x.Spec.ParamKind) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultValidatingAdmissionPolicy),
	HasGeneration: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultValidatingAdmissionPolicy(x *admissionv1.ValidatingAdmissionPolicy) {
	api.FillPtr(&x.Spec.FailurePolicy, admissionv1.Fail)
	defaultMatch(x.Spec.MatchConstraints)
}

func paramKindText(k *admissionv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}
