package policy

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	celtypes "github.com/google/cel-go/common/types"
	regv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"

	"github.com/skiff-sh/skiff/server/audit"
)

// This file is what validating policies leave in the audit log.

const maxAnnotation = 10 << 10 // bytes

// failureAnnotation is the key under which a failed validation is told whose binding has the action Audit.
const failureAnnotation = "validation.policy.admission.k8s.io/validation_failure"

// failure is the form of that annotation's value, a list of one.
type failure struct {
	Message           string                   `json:"message"`
	Policy            string                   `json:"policy"`
	Binding           string                   `json:"binding"`
	ExpressionIndex   int                      `json:"expressionIndex"`
	ValidationActions []regv1.ValidationAction `json:"validationActions"`
}

func annotateFailure(ctx context.Context, b *binding, d *denial) {
	value, err := json.Marshal([]failure{{d.message, b.policy, b.name, d.index, b.actions}})
	if err == nil {
		audit.Annotate(ctx, failureAnnotation, string(value))
	}
}

// valueExpression is an annotation's expression and its key.
type valueExpression struct {
	expression
	key string
}

func valueExpressions(list []regv1.AuditAnnotation) []plugincel.ExpressionAccessor {
	out := make([]plugincel.ExpressionAccessor, len(list))
	for i, a := range list {
		out[i] = &valueExpression{expression{text: strings.TrimSpace(a.ValueExpression), returns: []*cel.Type{cel.StringType, cel.NullType}}, a.Key}
	}
	return out
}

// annotations are the values that a policy's bindings gave each key.
type annotations map[string][]string

// add keeps the values of one evaluation and returns the errors of the others.
func (a annotations) add(results []plugincel.EvaluationResult) (failed []error) {
	for _, r := range results {
		e, ok := r.ExpressionAccessor.(*valueExpression)
		switch {
		case !ok:
		case r.Error != nil:
			failed = append(failed, r.Error)
		case r.EvalResult.Type() == celtypes.StringType:
			value := strings.TrimSpace(r.EvalResult.Value().(string))
			if value = value[:min(len(value), maxAnnotation)]; value != "" && !slices.Contains(a[e.key], value) {
				a[e.key] = append(a[e.key], value)
			}
		}
	}
	return failed
}

func (a annotations) publish(ctx context.Context, policy string) {
	for key, values := range a {
		audit.Annotate(ctx, policy+"/"+key, strings.Join(values, ", "))
	}
}
