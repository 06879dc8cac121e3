package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

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
	return validateHooks(validatingHooks(x.Webhooks))
}
