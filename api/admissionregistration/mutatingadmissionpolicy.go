package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var mutatingAdmissionPolicy = &api.Kind{
	Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingAdmissionPolicy",
	Plural: "mutatingadmissionpolicies", Singular: "mutatingadmissionpolicy", Categories: []string{"api-extensions"},
	StoragePath: "mutatingadmissionpolicies",
	New:         api.New[admissionv1.MutatingAdmissionPolicy], NewList: api.NewList[admissionv1.MutatingAdmissionPolicyList],
	Validate: api.Check(validateMutatingAdmissionPolicy),
	ValidateUpdate: api.CheckUpdate(func(x, _ *admissionv1.MutatingAdmissionPolicy) field.ErrorList {
		return validateMutatingAdmissionPolicy(x)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Mutations", "integer", func(x *admissionv1.MutatingAdmissionPolicy) any { return int64(len(x.Spec.Mutations)) }),
		api.Col("ParamKind", "string", func(x *admissionv1.MutatingAdmissionPolicy) any { return paramKindText(x.Spec.ParamKind) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultMutatingAdmissionPolicy),
	HasGeneration: true,
}

func defaultMutatingAdmissionPolicy(x *admissionv1.MutatingAdmissionPolicy) {
	api.FillPtr(&x.Spec.FailurePolicy, admissionv1.Fail)
	defaultMatch(x.Spec.MatchConstraints)
}
