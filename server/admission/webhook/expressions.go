package webhook

import (
	"context"

	regv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
)

// Expressions refuses webhook configurations whose match conditions do not compile. It is a part of validation that
// needs CEL, and so is kept from the table of kinds.
type Expressions struct{}

// Name implements admission.Plugin.
func (Expressions) Name() string { return "WebhookExpressions" }

// Handles implements admission.Plugin.
func (Expressions) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return (op == admission.Create || op == admission.Update) && sub == "" && k.Group == regv1.GroupName &&
		(k.Plural == "validatingwebhookconfigurations" || k.Plural == "mutatingwebhookconfigurations")
}

// Validate compiles the conditions, unless an update leaves all of them as they are.
func (Expressions) Validate(_ context.Context, r *admission.Request) error {
	lists := conditionsOf(r.Object)
	if equality.Semantic.DeepEqual(lists, conditionsOf(r.Old)) {
		return nil
	}
	var errs field.ErrorList
	for i, list := range lists {
		if len(list) == 0 {
			continue
		}
		for j, err := range match.ConditionErrors(list) {
			path := field.NewPath("webhooks").Index(i).Child("matchConditions").Index(j).Child("expression")
			errs = append(errs, field.Invalid(path, list[j].Expression, err.Error()))
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(r.Kind.GroupVersionKind().GroupKind(), r.Name, errs)
	}
	return nil
}

// conditionsOf is the match conditions of each webhook of a configuration.
func conditionsOf(obj runtime.Object) (out [][]regv1.MatchCondition) {
	switch o := obj.(type) {
	case *regv1.ValidatingWebhookConfiguration:
		for i := range o.Webhooks {
			out = append(out, o.Webhooks[i].MatchConditions)
		}
	case *regv1.MutatingWebhookConfiguration:
		for i := range o.Webhooks {
			out = append(out, o.Webhooks[i].MatchConditions)
		}
	}
	return out
}
