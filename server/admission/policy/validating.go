package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	celtypes "github.com/google/cel-go/common/types"
	regv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
)

const stored = environment.StoredExpressions

// Validating is the plugin ValidatingAdmissionPolicy.
type Validating struct {
	cfg      Config
	count    *metrics
	policies *match.Source[*regv1.ValidatingAdmissionPolicy, *validation]
	bindings *match.Source[*regv1.ValidatingAdmissionPolicyBinding, *binding]
}

// validation is a policy and, once somebody asked, its programs.
type validation struct {
	*regv1.ValidatingAdmissionPolicy
	match    constraints
	programs func() *programs
}

// programs is what a validating policy was compiled into.
type programs struct {
	err        error
	conditions matchconditions.Matcher // nil: none
	checks     plugincel.ConditionEvaluator
	values     plugincel.ConditionEvaluator // of the audit annotations
	messages   plugincel.ConditionEvaluator
}

// NewValidating makes the plugin.
func NewValidating(cfg Config) *Validating {
	return &Validating{cfg: cfg, count: newMetrics(cfg.Metrics, "validating"),
		policies: match.NewSource(cfg.Store, func(p *regv1.ValidatingAdmissionPolicy) *validation {
			return &validation{p, newConstraints(p.Spec.MatchConstraints), sync.OnceValue(func() *programs { return compile(p) })}
		}),
		bindings: match.NewSource(cfg.Store, func(b *regv1.ValidatingAdmissionPolicyBinding) *binding {
			return &binding{name: b.Name, policy: b.Spec.PolicyName, param: b.Spec.ParamRef,
				match: newConstraints(b.Spec.MatchResources), actions: b.Spec.ValidationActions}
		})}
}

func compile(p *regv1.ValidatingAdmissionPolicy) *programs {
	options := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	c, err := compiler(p.Spec.Variables, options)
	if err != nil {
		return &programs{err: fmt.Errorf("failed to initialize CEL compiler: %w", err)}
	}
	out := &programs{}
	if len(p.Spec.MatchConditions) > 0 {
		out.conditions = matchconditions.NewMatcher(c.CompileCondition(match.ConditionExpressions(p.Spec.MatchConditions), options, stored),
			p.Spec.FailurePolicy, "policy", "validate", p.Name)
	}
	checks, messages := make([]plugincel.ExpressionAccessor, len(p.Spec.Validations)), make([]plugincel.ExpressionAccessor, len(p.Spec.Validations))
	for i, v := range p.Spec.Validations {
		checks[i] = &expression{text: v.Expression, returns: []*cel.Type{cel.BoolType}}
		if v.MessageExpression != "" {
			messages[i] = &expression{text: v.MessageExpression, returns: []*cel.Type{cel.StringType}}
		}
	}
	out.checks = c.CompileCondition(checks, options, stored)
	out.values = c.CompileCondition(valueExpressions(p.Spec.AuditAnnotations), options, stored)
	options.HasAuthorizer = false
	out.messages = c.CompileCondition(messages, options, stored)
	return out
}

// Name implements admission.Plugin.
func (*Validating) Name() string { return "ValidatingAdmissionPolicy" }

// Handles implements admission.Plugin.
func (*Validating) Handles(_ admission.Operation, k *api.Kind, _ string) bool { return handles(k) }

// denial is one reason to refuse a request.
type denial struct {
	reason  metav1.StatusReason
	message string
	index   int   // of the validation
	err     error // why the validation could not be evaluated, if that is it
	elapsed time.Duration
}

// Validate asks every policy with every parameter of every binding; the first denial is the answer.
func (p *Validating) Validate(ctx context.Context, r *admission.Request) error {
	policies := p.policies.All()
	if len(policies) == 0 {
		return nil
	}
	bindings := p.bindings.All()
	t := match.NewTarget(p.cfg.Store, p.cfg.Kinds, r)
	var first *denial
	keep := func(d *denial) {
		if first == nil {
			first = d
		}
	}
	for _, v := range policies {
		bound := bindingsOf(bindings, v.Name)
		if len(bound) == 0 {
			continue
		}
		row, err := v.match.find(t)
		if err != nil {
			if !ignores(v.Spec.FailurePolicy) {
				keep(&denial{message: fmt.Sprintf("ValidatingAdmissionPolicy '%s' denied request: failed to configure policy: %v", v.Name, err)})
			}
			continue
		}
		if row == nil {
			continue
		}
		notes := annotations{}
		for _, b := range bound {
			d, err := p.bound(ctx, t, v, b, row, notes)
			if err != nil && !ignores(v.Spec.FailurePolicy) {
				d = &denial{message: fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: failed to configure binding: %v",
					v.Name, b.name, err)}
			}
			if d != nil {
				keep(d)
			}
		}
		notes.publish(ctx, v.Name)
	}
	if first != nil {
		return refused(t, first.reason, first.message)
	}
	return nil
}

// bound evaluates a policy for one binding. An error says that the binding is no good.
func (p *Validating) bound(ctx context.Context, t *match.Target, v *validation, b *binding, row *api.Kind, notes annotations) (*denial, error) {
	if in, err := b.match.find(t); err != nil || in == nil {
		return nil, err
	}
	params, err := p.cfg.params(v.Spec.ParamKind, b.param, t)
	if err != nil || len(params) == 0 {
		return nil, err
	}
	view, err := t.View(row)
	if err != nil {
		return nil, err
	}
	ns, err := t.NamespaceObject()
	if err != nil {
		return nil, err
	}
	var out *denial
	for _, param := range params {
		for _, d := range p.evaluate(ctx, t, v, view, param, ns, notes) {
			if p.enforce(ctx, t, b, &d) && out == nil {
				out = &d
				out.message = fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s", v.Name, b.name, d.message)
			}
		}
	}
	return out, nil
}

// enforce does what a binding wants of a failed validation, and reports whether that is to refuse the request.
func (p *Validating) enforce(ctx context.Context, t *match.Target, b *binding, d *denial) (refuse bool) {
	for _, action := range b.actions {
		word := "deny"
		switch action {
		case regv1.Deny:
			refuse = true
		case regv1.Warn:
			word = "warn"
			t.Warn(fmt.Sprintf("Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s", b.policy, b.name, d.message))
		case regv1.Audit:
			word = "audit"
			annotateFailure(ctx, b, d)
		}
		p.count.observe(d.elapsed, b.policy, b.name, errorType(d.err), word)
	}
	return refuse
}

// evaluate runs a policy's programs and returns what speaks against the request.
func (p *Validating) evaluate(ctx context.Context, t *match.Target, v *validation, view *match.View, param runtime.Object, ns *corev1.Namespace, notes annotations) []denial {
	fail := func(err error) []denial {
		if ignores(v.Spec.FailurePolicy) {
			return nil
		}
		return []denial{{message: err.Error(), err: err}}
	}
	prog := v.programs()
	if prog.err != nil {
		return fail(prog.err)
	}
	attributes := t.Attributes(view)
	if prog.conditions != nil {
		m := prog.conditions.Match(ctx, attributes, param, p.cfg.Authorizer)
		if m.Error != nil {
			return fail(m.Error)
		}
		if !m.Matches {
			return nil
		}
	}
	request := plugincel.CreateAdmissionRequest(attributes.Attributes, metav1.GroupVersionResource(view.Resource), metav1.GroupVersionKind(view.Kind))
	ns = plugincel.CreateNamespaceObject(ns)
	bindings := plugincel.OptionalVariableBindings{VersionedParams: param, Authorizer: p.cfg.Authorizer}
	results, budget, err := prog.checks.ForInput(ctx, attributes, request, bindings, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return fail(err)
	}
	bindings.Authorizer = nil
	messages, _, messageErr := prog.messages.ForInput(ctx, attributes, request, bindings, ns, budget)
	var out []denial
	for i, r := range results {
		switch {
		case r.Error != nil:
			out = append(out, fail(r.Error)...)
		case errors.Is(messageErr, apiservercel.ErrInternal), errors.Is(messageErr, apiservercel.ErrOutOfBudget):
			out = append(out, fail(fmt.Errorf("failed messageExpression: %w", messageErr))...)
		case r.EvalResult != celtypes.True:
			d := denial{message: message(&v.Spec.Validations[i], messages, i), index: i, elapsed: r.Elapsed}
			if reason := v.Spec.Validations[i].Reason; reason != nil {
				d.reason = *reason
			}
			out = append(out, d)
		}
	}
	if len(v.Spec.AuditAnnotations) == 0 {
		return out
	}
	bindings.Authorizer = p.cfg.Authorizer
	values, _, err := prog.values.ForInput(ctx, attributes, request, bindings, ns, celconfig.RuntimeCELCostBudget)
	if err != nil {
		return append(out, fail(err)...)
	}
	for _, err := range notes.add(values) {
		out = append(out, fail(err)...)
	}
	return out
}

// message is what a failed validation says: its messageExpression's text if that is of one line and not too long, else
// its message, else the expression.
func message(v *regv1.Validation, results []plugincel.EvaluationResult, i int) string {
	if i < len(results) && results[i].Error == nil && results[i].EvalResult != nil {
		if s, ok := results[i].EvalResult.Value().(string); ok {
			s = strings.TrimSpace(s)
			if s != "" && len(s) <= celconfig.MaxEvaluatedMessageExpressionSizeBytes && !strings.Contains(s, "\n") {
				return s
			}
		}
	}
	if s := strings.TrimSpace(v.Message); s != "" {
		return s
	}
	return "failed expression: " + strings.TrimSpace(v.Expression)
}
