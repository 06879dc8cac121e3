// Package policy runs ValidatingAdmissionPolicy and MutatingAdmissionPolicy objects: rules in CEL, bound to requests and
// parameters by binding objects.
//
// Invariant: a policy is compiled once per revision, when the first request comes that it is about; a request that no
// policy is about evaluates nothing. Policies never judge webhook configurations or policies. Only
// server/admission/plugins imports policy.
package policy

import (
	"net/http"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/prometheus/client_golang/prometheus"
	regv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
	"github.com/skiff-sh/skiff/store"
)

// Config is what the plugins need; Store and Kinds are required. Expressions may ask the Authorizer.
type Config struct {
	Store      store.Store
	Kinds      *api.Table
	Authorizer authorizer.Authorizer
	// Types knows the lists and maps of custom resources; nil takes them to be atomic.
	Types   func(k *api.Kind) managedfields.TypeConverter
	Metrics prometheus.Registerer // nil: nobody counts
}

// handles reports whether policies may judge a kind. Reviews are questions, and must get answers.
func handles(k *api.Kind) bool {
	switch k.Group {
	case "authorization.k8s.io":
		return false
	case "authentication.k8s.io":
		return k.Plural != "tokenreviews" && k.Plural != "selfsubjectreviews"
	}
	return !match.Exempt(k)
}

// constraints is a compiled MatchResources.
type constraints struct {
	regv1.MatchResources
	selectors match.Selectors
	invalid   error
}

func newConstraints(m *regv1.MatchResources) constraints {
	c := constraints{}
	if m != nil {
		c.MatchResources = *m
	}
	c.selectors, c.invalid = match.NewSelectors(c.NamespaceSelector, c.ObjectSelector)
	return c
}

// find tells in which version the constraints are about a request; nil if they are not. No rules are all requests.
func (c *constraints) find(t *match.Target) (*api.Kind, error) {
	if c.invalid != nil {
		return nil, c.invalid
	}
	if ok, err := t.Selected(c.selectors); err != nil || !ok {
		return nil, err
	}
	if ruleOf(t, c.MatchPolicy, c.ExcludeResourceRules) != nil {
		return nil, nil
	}
	if len(c.ResourceRules) == 0 {
		return t.Requested(), nil
	}
	return ruleOf(t, c.MatchPolicy, c.ResourceRules), nil
}

func ruleOf(t *match.Target, policy *regv1.MatchPolicyType, rules []regv1.NamedRuleWithOperations) *api.Kind {
	for i := range rules {
		r := &rules[i]
		if len(r.ResourceNames) > 0 && !slices.Contains(r.ResourceNames, t.Name) {
			continue
		}
		if row := t.Rules(policy, []regv1.RuleWithOperations{r.RuleWithOperations}); row != nil {
			return row
		}
	}
	return nil
}

// binding is a compiled binding of either sort of policy.
type binding struct {
	name, policy string
	param        *regv1.ParamRef
	match        constraints
	actions      []regv1.ValidationAction
}

func bindingsOf(all []*binding, policy string) []*binding {
	var out []*binding
	for _, b := range all {
		if b.policy == policy {
			out = append(out, b)
		}
	}
	return out
}

// expression is one CEL expression and what it may return.
type expression struct {
	name, text string
	returns    []*cel.Type
}

func (e *expression) GetName() string          { return e.name }
func (e *expression) GetExpression() string    { return e.text }
func (e *expression) ReturnTypes() []*cel.Type { return e.returns }

// compiler makes a compiler that knows a policy's variables.
func compiler(variables []regv1.Variable, options plugincel.OptionalVariableDeclarations) (*plugincel.CompositedCompiler, error) {
	c, err := plugincel.NewCompositedCompiler(match.Environment())
	if err != nil {
		return nil, err
	}
	var list []plugincel.NamedExpressionAccessor
	for _, v := range variables {
		list = append(list, &expression{name: v.Name, text: v.Expression, returns: []*cel.Type{cel.AnyType, cel.DynType}})
	}
	c.CompileAndStoreVariables(list, options, stored)
	return c, nil
}

// refused is the error of a request that a policy denied.
func refused(t *match.Target, reason metav1.StatusReason, message string) error {
	name := t.Name
	if m, ok := t.Object.(metav1.Object); ok && name == "" {
		name = m.GetGenerateName()
	}
	err := apierrors.NewForbidden(t.Requested().GroupResource(), name, text(message))
	if reason == "" {
		reason = metav1.StatusReasonInvalid
	}
	err.ErrStatus.Reason, err.ErrStatus.Code = reason, codeOf(reason)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Message: message})
	return err
}

type text string

func (t text) Error() string { return string(t) }

func codeOf(reason metav1.StatusReason) int32 {
	switch reason {
	case metav1.StatusReasonForbidden:
		return http.StatusForbidden
	case metav1.StatusReasonUnauthorized:
		return http.StatusUnauthorized
	case metav1.StatusReasonRequestEntityTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusUnprocessableEntity
}

func ignores(f *regv1.FailurePolicyType) bool { return f != nil && *f == regv1.Ignore }

var _ admission.Plugin = (*Validating)(nil)
