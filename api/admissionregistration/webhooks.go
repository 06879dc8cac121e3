package admissionregistration

import (
	"slices"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	webhookvalidation "k8s.io/apiserver/pkg/util/webhook"

	"github.com/skiff-sh/skiff/api/core"
)

// hook is what both sorts of webhooks have.
type hook struct {
	name               string
	client             *admissionv1.WebhookClientConfig
	rules              []admissionv1.RuleWithOperations
	failure            *admissionv1.FailurePolicyType
	match              *admissionv1.MatchPolicyType
	namespaces, object *metav1.LabelSelector
	effects            *admissionv1.SideEffectClass
	timeout            *int32
	reinvocation       *admissionv1.ReinvocationPolicyType
	versions           []string
	conditions         []admissionv1.MatchCondition
}

func validatingHooks(list []admissionv1.ValidatingWebhook) []hook {
	out := make([]hook, len(list))
	for i := range list {
		w := &list[i]
		out[i] = hook{w.Name, &w.ClientConfig, w.Rules, w.FailurePolicy, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector,
			w.SideEffects, w.TimeoutSeconds, nil, w.AdmissionReviewVersions, w.MatchConditions}
	}
	return out
}

func mutatingHooks(list []admissionv1.MutatingWebhook) []hook {
	out := make([]hook, len(list))
	for i := range list {
		w := &list[i]
		out[i] = hook{w.Name, &w.ClientConfig, w.Rules, w.FailurePolicy, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector,
			w.SideEffects, w.TimeoutSeconds, w.ReinvocationPolicy, w.AdmissionReviewVersions, w.MatchConditions}
	}
	return out
}

func validateHooks(list []hook) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range list {
		at := field.NewPath("webhooks").Index(i)
		errs = append(errs, validateHook(at, &list[i])...)
		errs = append(errs, validateVersions(at.Child("admissionReviewVersions"), list[i].versions)...)
		if name := list[i].name; name != "" && seen[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		seen[list[i].name] = true
	}
	return errs
}

func validateHook(at *field.Path, h *hook) field.ErrorList {
	errs := validation.IsFullyQualifiedName(at.Child("name"), h.name)
	errs = append(errs, validateRules(at.Child("rules"), h.rules)...)
	if h.failure != nil {
		errs = append(errs, core.Known(at.Child("failurePolicy"), *h.failure, admissionv1.Fail, admissionv1.Ignore)...)
	}
	if h.match != nil {
		errs = append(errs, core.Known(at.Child("matchPolicy"), *h.match, admissionv1.Equivalent, admissionv1.Exact)...)
	}
	if h.effects == nil {
		errs = append(errs, field.Required(at.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, core.Known(at.Child("sideEffects"), *h.effects, admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	}
	if h.timeout != nil && (*h.timeout < 1 || *h.timeout > 30) {
		errs = append(errs, field.Invalid(at.Child("timeoutSeconds"), *h.timeout, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, core.LabelSelector(at.Child("namespaceSelector"), h.namespaces)...)
	errs = append(errs, core.LabelSelector(at.Child("objectSelector"), h.object)...)
	if h.reinvocation != nil {
		errs = append(errs, core.Known(at.Child("reinvocationPolicy"), *h.reinvocation, admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
	}
	errs = append(errs, validateClient(at.Child("clientConfig"), h.client)...)
	return append(errs, validateConditions(at.Child("matchConditions"), h.conditions)...)
}

func validateClient(at *field.Path, c *admissionv1.WebhookClientConfig) field.ErrorList {
	switch {
	case (c.URL == nil) == (c.Service == nil):
		return field.ErrorList{field.Required(at, "exactly one of url or service is required")}
	case c.URL != nil:
		return webhookvalidation.ValidateWebhookURL(at.Child("url"), *c.URL, true)
	}
	port := int32(443)
	if c.Service.Port != nil {
		port = *c.Service.Port
	}
	return webhookvalidation.ValidateWebhookService(at.Child("service"), c.Service.Namespace, c.Service.Name, c.Service.Path, port)
}

func validateVersions(at *field.Path, list []string) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at, "must specify one of v1, v1beta1")}
	}
	var errs field.ErrorList
	for i, v := range list {
		if slices.Contains(list[:i], v) {
			errs = append(errs, field.Invalid(at.Index(i), v, "duplicate version"))
			continue
		}
		errs = append(errs, core.Problems(at.Index(i), v, validation.IsDNS1035Label(v))...)
	}
	if !slices.Contains(list, "v1") && !slices.Contains(list, "v1beta1") {
		errs = append(errs, field.Invalid(at, list, "must include at least one of v1, v1beta1"))
	}
	return errs
}
