package admissionregistration

import (
	"github.com/skiff-sh/skiff/api/core"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var validatingWebhookConfiguration = &api.Kind{
	Group: "admissionregistration.k8s.io", Version: "v1", Kind: "ValidatingWebhookConfiguration",
	Plural: "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration", Categories: []string{"api-extensions"},
	StoragePath: "validatingwebhookconfigurations",
	New:         api.New[admissionv1.ValidatingWebhookConfiguration], NewList: api.NewList[admissionv1.ValidatingWebhookConfigurationList],
	Validate: api.Check(validateValidatingWebhookConfiguration),
	ValidateUpdate: api.CheckUpdate(func(x, _ *admissionv1.ValidatingWebhookConfiguration) field.ErrorList {
		return validateValidatingWebhookConfiguration(x)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Webhooks", "integer", func(x *admissionv1.ValidatingWebhookConfiguration) any { return int64(len(x.Webhooks)) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultValidatingWebhookConfiguration),
	HasGeneration: true,
}

func defaultValidatingWebhookConfiguration(x *admissionv1.ValidatingWebhookConfiguration) {
	for i := range x.Webhooks {
		w := &x.Webhooks[i]
		defaultWebhook(&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector)
		api.FillPtr(&w.TimeoutSeconds, 10)
		defaultScopes(w.Rules)
		if s := w.ClientConfig.Service; s != nil {
			api.FillPtr(&s.Port, 443)
		}
	}
}

func defaultWebhook(f **admissionv1.FailurePolicyType, m **admissionv1.MatchPolicyType, ns, obj **metav1.LabelSelector) {
	api.FillPtr(f, admissionv1.Fail)
	api.FillPtr(m, admissionv1.Equivalent)
	api.FillPtr(ns, metav1.LabelSelector{})
	api.FillPtr(obj, metav1.LabelSelector{})
}

func defaultScopes(rules []admissionv1.RuleWithOperations) {
	for i := range rules {
		api.FillPtr(&rules[i].Scope, admissionv1.AllScopes)
	}
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	api.FillPtr(&m.MatchPolicy, admissionv1.Equivalent)
	api.FillPtr(&m.NamespaceSelector, metav1.LabelSelector{})
	api.FillPtr(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			api.FillPtr(&rules[i].Scope, admissionv1.AllScopes)
		}
	}
}

func validateValidatingWebhookConfiguration(x *admissionv1.ValidatingWebhookConfiguration) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range x.Webhooks {
		w, at := &x.Webhooks[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, validation.IsFullyQualifiedName(at.Child("name"), w.Name)...)
		if seen[w.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), w.Name))
		}
		seen[w.Name] = true
		errs = append(errs, validateWebhook(at, w.AdmissionReviewVersions, w.SideEffects, w.TimeoutSeconds, &w.ClientConfig, w.Rules)...)
		errs = append(errs, core.LabelSelector(at.Child("namespaceSelector"), w.NamespaceSelector)...)
		errs = append(errs, core.LabelSelector(at.Child("objectSelector"), w.ObjectSelector)...)
		errs = append(errs, validateConditions(at.Child("matchConditions"), w.MatchConditions)...)
	}
	return errs
}

func validateWebhook(at *field.Path, versions []string, effects *admissionv1.SideEffectClass, timeout *int32, c *admissionv1.WebhookClientConfig, rules []admissionv1.RuleWithOperations) field.ErrorList {
	var errs field.ErrorList
	if len(versions) == 0 {
		errs = append(errs, field.Required(at.Child("admissionReviewVersions"), "must specify one of v1, v1beta1"))
	} else if !slices.Contains(versions, "v1") && !slices.Contains(versions, "v1beta1") {
		errs = append(errs, field.Invalid(at.Child("admissionReviewVersions"), versions, "must include at least one of v1, v1beta1"))
	}
	if effects == nil {
		errs = append(errs, field.Required(at.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, core.OneOf(at.Child("sideEffects"), *effects, admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	}
	if timeout != nil && (*timeout < 1 || *timeout > 30) {
		errs = append(errs, field.Invalid(at.Child("timeoutSeconds"), *timeout, "the timeout value must be between 1 and 30 seconds"))
	}
	cc := at.Child("clientConfig")
	switch {
	case (c.URL == nil) == (c.Service == nil):
		errs = append(errs, field.Required(cc, "exactly one of url or service is required"))
	case c.URL != nil && !strings.HasPrefix(*c.URL, "https://"):
		errs = append(errs, field.Invalid(cc.Child("url"), *c.URL, "'https' is the only allowed URL scheme; desired format: https://host[/path]"))
	case c.Service != nil:
		errs = append(errs, core.Required(cc.Child("service", "name"), c.Service.Name, "service name is required")...)
		errs = append(errs, core.Required(cc.Child("service", "namespace"), c.Service.Namespace, "service namespace is required")...)
	}
	for i, r := range rules {
		rp := at.Child("rules").Index(i)
		for _, f := range []struct {
			name string
			n    int
		}{{"operations", len(r.Operations)}, {"apiGroups", len(r.APIGroups)}, {"apiVersions", len(r.APIVersions)}, {"resources", len(r.Resources)}} {
			if f.n == 0 {
				errs = append(errs, field.Required(rp.Child(f.name), ""))
			}
		}
		for j, op := range r.Operations {
			errs = append(errs, core.OneOf(rp.Child("operations").Index(j), op, admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Delete, admissionv1.Update)...)
		}
	}
	return errs
}

// validateConditions checks names and presence; expressions are compiled where they are used.
func validateConditions(at *field.Path, list []admissionv1.MatchCondition) field.ErrorList {
	var errs field.ErrorList
	if len(list) > 64 {
		errs = append(errs, field.TooMany(at, len(list), 64))
	}
	seen := map[string]bool{}
	for i, c := range list {
		errs = append(errs, core.Required(at.Index(i).Child("expression"), strings.TrimSpace(c.Expression), "")...)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Index(i).Child("name"), ""))
		} else {
			errs = append(errs, core.Problems(at.Index(i).Child("name"), c.Name, validation.IsQualifiedName(c.Name))...)
		}
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(at.Index(i).Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}
