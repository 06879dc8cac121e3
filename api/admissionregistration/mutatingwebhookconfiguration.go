package admissionregistration

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var mutatingWebhookConfiguration = &api.Kind{
	Group: "admissionregistration.k8s.io", Version: "v1", Kind: "MutatingWebhookConfiguration",
	Plural: "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration", Categories: []string{"api-extensions"},
	StoragePath: "mutatingwebhookconfigurations",
	New:         api.New[admissionv1.MutatingWebhookConfiguration], NewList: api.NewList[admissionv1.MutatingWebhookConfigurationList],
	Validate: api.Check(validateMutatingWebhookConfiguration),
	ValidateUpdate: api.CheckUpdate(func(x, _ *admissionv1.MutatingWebhookConfiguration) field.ErrorList {
		return validateMutatingWebhookConfiguration(x)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Webhooks", "integer", func(x *admissionv1.MutatingWebhookConfiguration) any { return int64(len(x.Webhooks)) }),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultMutatingWebhookConfiguration),
	HasGeneration: true,
}

func defaultMutatingWebhookConfiguration(x *admissionv1.MutatingWebhookConfiguration) {
	for i := range x.Webhooks {
		w := &x.Webhooks[i]
		defaultWebhook(&w.FailurePolicy, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector)
		api.FillPtr(&w.TimeoutSeconds, 10)
		api.FillPtr(&w.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
		defaultScopes(w.Rules)
		if s := w.ClientConfig.Service; s != nil {
			api.FillPtr(&s.Port, 443)
		}
	}
}

func validateMutatingWebhookConfiguration(x *admissionv1.MutatingWebhookConfiguration) field.ErrorList {
	return validateHooks(mutatingHooks(x.Webhooks))
}
