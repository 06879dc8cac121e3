package admissionregistration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

// This file judges admission policies and their bindings, but for whether their expressions compile.

const (
	maxAuditAnnotations = 20
	maxValueExpression  = 5 << 10 // bytes
)

func validateValidatingAdmissionPolicy(x *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	at, spec := field.NewPath("spec"), &x.Spec
	errs := validatePolicy(at, spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints)
	errs = append(errs, validateConditions(at.Child("matchConditions"), spec.MatchConditions)...)
	errs = append(errs, validateVariables(at.Child("variables"), spec.Variables)...)
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		const text = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(at.Child("validations"), text), field.Required(at.Child("auditAnnotations"), text))
	}
	for i := range spec.Validations {
		errs = append(errs, validateValidation(at.Child("validations").Index(i), &spec.Validations[i])...)
	}
	return append(errs, validateAnnotations(at.Child("auditAnnotations"), x.Name, spec.AuditAnnotations)...)
}

// validatePolicy judges what both sorts of policies have.
func validatePolicy(at *field.Path, f *admissionv1.FailurePolicyType, params *admissionv1.ParamKind, m *admissionv1.MatchResources) field.ErrorList {
	var errs field.ErrorList
	if f == nil {
		errs = append(errs, field.Required(at.Child("failurePolicy"), ""))
	} else {
		errs = append(errs, core.Known(at.Child("failurePolicy"), *f, admissionv1.Fail, admissionv1.Ignore)...)
	}
	if params != nil {
		errs = append(errs, validateParamKind(at.Child("paramKind"), params)...)
	}
	if m == nil {
		return append(errs, field.Required(at.Child("matchConstraints"), ""))
	}
	errs = append(errs, validateMatch(at.Child("matchConstraints"), m)...)
	if len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(at.Child("matchConstraints", "resourceRules"), ""))
	}
	return errs
}

func validateParamKind(at *field.Path, k *admissionv1.ParamKind) field.ErrorList {
	var errs field.ErrorList
	path := at.Child("apiVersion")
	group, version, has := strings.Cut(k.APIVersion, "/")
	if !has {
		group, version = "", k.APIVersion
	}
	switch {
	case k.APIVersion == "":
		errs = append(errs, field.Required(path, ""))
	case strings.Contains(version, "/"):
		errs = append(errs, field.Invalid(path, k.APIVersion, "unexpected GroupVersion string: "+k.APIVersion))
	default:
		if problems := validation.IsDNS1123Subdomain(group); group != "" && len(problems) > 0 {
			errs = append(errs, field.Invalid(path, group, strings.Join(problems, ",")))
		}
		if version == "" {
			errs = append(errs, field.Invalid(path, k.APIVersion, "version must be specified"))
		} else if problems := validation.IsDNS1035Label(version); len(problems) > 0 {
			errs = append(errs, field.Invalid(path, version, strings.Join(problems, ",")))
		}
	}
	if k.Kind == "" {
		errs = append(errs, field.Required(at.Child("kind"), ""))
	} else if problems := validation.IsDNS1035Label(strings.ToLower(k.Kind)); len(problems) > 0 {
		errs = append(errs, field.Invalid(at.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(problems, ",")))
	}
	return errs
}

var identifier = regexp.MustCompile("^[_a-zA-Z][_a-zA-Z0-9]*$")

// reserved words of CEL.
var reserved = strings.Fields(`true false null in as break const continue else for function if import let loop package namespace
	return var void while`)

func validateVariables(at *field.Path, list []admissionv1.Variable) field.ErrorList {
	var errs field.ErrorList
	for i, v := range list {
		switch name := at.Index(i).Child("name"); {
		case strings.TrimSpace(v.Name) == "":
			errs = append(errs, field.Required(name, "name is not specified"))
		case !identifier.MatchString(v.Name) || slices.Contains(reserved, v.Name):
			errs = append(errs, field.Invalid(name, v.Name, "must be a valid CEL identifier"))
		}
		errs = append(errs, core.Required(at.Index(i).Child("expression"), strings.TrimSpace(v.Expression), "expression is not specified")...)
	}
	return errs
}

func validateValidation(at *field.Path, v *admissionv1.Validation) field.ErrorList {
	errs := core.Required(at.Child("expression"), strings.TrimSpace(v.Expression), "expression is not specified")
	if v.MessageExpression != "" && strings.TrimSpace(v.MessageExpression) == "" {
		errs = append(errs, field.Invalid(at.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
	}
	switch message := strings.TrimSpace(v.Message); {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(at.Child("message"), v.Message, "must be non-empty if specified"))
	case strings.ContainsAny(message, "\n\r"):
		errs = append(errs, field.Invalid(at.Child("message"), v.Message, "must not contain line breaks"))
	}
	if v.Reason != nil {
		errs = append(errs, core.Known(at.Child("reason"), *v.Reason, metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)...)
	}
	return errs
}

func validateAnnotations(at *field.Path, policy string, list []admissionv1.AuditAnnotation) field.ErrorList {
	var errs field.ErrorList
	if len(list) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(at, list, fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	seen := map[string]bool{}
	for i, a := range list {
		key, value := at.Index(i).Child("key"), at.Index(i).Child("valueExpression")
		if policy == "" {
			errs = append(errs, field.Invalid(key, a.Key, "requires metadata.name be non-empty"))
		} else {
			name := policy + "/" + a.Key
			errs = append(errs, core.Problems(key, name, validation.IsQualifiedName(name))...)
		}
		switch n := len(strings.TrimSpace(a.ValueExpression)); {
		case n == 0:
			errs = append(errs, field.Required(value, "valueExpression is not specified"))
		case n > maxValueExpression:
			errs = append(errs, field.Required(value, fmt.Sprintf("must not exceed %d bytes in length", maxValueExpression)))
		}
		if seen[a.Key] {
			errs = append(errs, field.Duplicate(key, a.Key))
		}
		seen[a.Key] = true
	}
	return errs
}

func validateValidatingAdmissionPolicyStatus(x, _ *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	errs := metavalidation.ValidateConditions(x.Status.Conditions, field.NewPath("status", "conditions"))
	if t := x.Status.TypeChecking; t != nil {
		for i, w := range t.ExpressionWarnings {
			at := field.NewPath("status", "typeChecking", "expressionWarnings").Index(i)
			errs = append(errs, core.Required(at.Child("warning"), w.Warning, "")...)
			errs = append(errs, core.Required(at.Child("fieldRef"), strings.TrimSpace(w.FieldRef), "")...)
		}
	}
	return errs
}

func validateMutatingAdmissionPolicy(x *admissionv1.MutatingAdmissionPolicy) field.ErrorList {
	at, spec := field.NewPath("spec"), &x.Spec
	errs := validatePolicy(at, spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints)
	errs = append(errs, validateMutable(at.Child("matchConstraints"), spec.MatchConstraints)...)
	errs = append(errs, validateConditions(at.Child("matchConditions"), spec.MatchConditions)...)
	errs = append(errs, validateVariables(at.Child("variables"), spec.Variables)...)
	if len(spec.Mutations) == 0 {
		errs = append(errs, field.Required(at.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range spec.Mutations {
		errs = append(errs, validateMutation(at.Child("mutations").Index(i), &spec.Mutations[i])...)
	}
	if spec.ReinvocationPolicy == "" {
		return append(errs, field.Required(at.Child("reinvocationPolicy"), ""))
	}
	return append(errs, core.Known(at.Child("reinvocationPolicy"), spec.ReinvocationPolicy, admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
}

// validateMutation demands the patch that the type names, and no other.
func validateMutation(at *field.Path, m *admissionv1.Mutation) field.ErrorList {
	if m.PatchType == "" {
		return field.ErrorList{field.Required(at.Child("patchType"), "")}
	}
	errs := core.Known(at.Child("patchType"), m.PatchType, admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch)
	if len(errs) > 0 {
		return errs
	}
	for _, p := range []struct {
		name string
		of   admissionv1.PatchType
		text *string
	}{{"applyConfiguration", admissionv1.PatchTypeApplyConfiguration, expressionOf(m.ApplyConfiguration)}, {"jsonPatch", admissionv1.PatchTypeJSONPatch, jsonExpressionOf(m.JSONPatch)}} {
		path := at.Child(p.name)
		switch {
		case p.of != m.PatchType && p.text != nil:
			errs = append(errs, field.Invalid(path, "{"+p.name+"}", fmt.Sprintf("must not be specified when patchType is %s", m.PatchType)))
		case p.of == m.PatchType && p.text == nil:
			errs = append(errs, field.Required(path, fmt.Sprintf("must be specified when patchType is %s", m.PatchType)))
		case p.of == m.PatchType:
			errs = append(errs, core.Required(path.Child("expression"), strings.TrimSpace(*p.text), "")...)
		}
	}
	return errs
}

func expressionOf(a *admissionv1.ApplyConfiguration) *string {
	if a == nil {
		return nil
	}
	return &a.Expression
}

func jsonExpressionOf(p *admissionv1.JSONPatch) *string {
	if p == nil {
		return nil
	}
	return &p.Expression
}

func validateValidatingAdmissionPolicyBinding(x *admissionv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	at := field.NewPath("spec")
	errs := validateBinding(at, x.Spec.PolicyName, x.Spec.ParamRef, x.Spec.MatchResources)
	path, list := at.Child("validationActions"), x.Spec.ValidationActions
	for i, a := range list {
		errs = append(errs, core.Known(path.Index(i), a, admissionv1.Audit, admissionv1.Deny, admissionv1.Warn)...)
		if slices.Contains(list[:i], a) {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
	}
	if slices.Contains(list, admissionv1.Deny) && slices.Contains(list, admissionv1.Warn) {
		errs = append(errs, field.Invalid(path, list, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	if len(list) == 0 {
		errs = append(errs, field.Required(path, "at least one validation action is required"))
	}
	return errs
}

func validateMutatingAdmissionPolicyBinding(x *admissionv1.MutatingAdmissionPolicyBinding) field.ErrorList {
	at := field.NewPath("spec")
	return append(validateBinding(at, x.Spec.PolicyName, x.Spec.ParamRef, x.Spec.MatchResources),
		validateMutable(at.Child("matchResources"), x.Spec.MatchResources)...)
}

func validateBinding(at *field.Path, policy string, ref *admissionv1.ParamRef, m *admissionv1.MatchResources) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(at.Child("policyName"), ""))
	} else {
		errs = append(errs, core.Problems(at.Child("policyName"), policy, apivalidation.NameIsDNSSubdomain(policy, false))...)
	}
	errs = append(errs, validateParamRef(at.Child("paramRef"), ref)...)
	return append(errs, validateMatch(at.Child("matchResources"), m)...)
}

func validateParamRef(at *field.Path, r *admissionv1.ParamRef) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	const exclusive = "name and selector are mutually exclusive"
	if r.Name != "" {
		errs = append(errs, core.Problems(at.Child("name"), r.Name, content.IsPathSegmentName(r.Name))...)
	}
	errs = append(errs, core.LabelSelector(at.Child("selector"), r.Selector)...)
	switch {
	case r.Name != "" && r.Selector != nil:
		errs = append(errs, field.Forbidden(at.Child("name"), exclusive), field.Forbidden(at.Child("selector"), exclusive))
	case r.Name == "" && r.Selector == nil:
		errs = append(errs, field.Required(at, "one of name or selector must be specified"))
	}
	if a := r.ParameterNotFoundAction; a == nil || *a == "" {
		errs = append(errs, field.Required(at.Child("parameterNotFoundAction"), ""))
	} else {
		errs = append(errs, core.Known(at.Child("parameterNotFoundAction"), *a, admissionv1.DenyAction, admissionv1.AllowAction)...)
	}
	return errs
}
