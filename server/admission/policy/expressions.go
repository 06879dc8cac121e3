package policy

import (
	"context"

	"github.com/google/cel-go/cel"
	regv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
)

// Expressions refuses policies whose expressions do not compile. It is a part of validation that needs CEL, and so is
// kept from the table of kinds.
type Expressions struct{}

// Name implements admission.Plugin.
func (Expressions) Name() string { return "PolicyExpressions" }

// Handles implements admission.Plugin.
func (Expressions) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return (op == admission.Create || op == admission.Update) && sub == "" && k.Group == regv1.GroupName &&
		(k.Plural == "validatingadmissionpolicies" || k.Plural == "mutatingadmissionpolicies")
}

// Validate compiles a policy, unless an update leaves its spec as it is.
func (Expressions) Validate(_ context.Context, r *admission.Request) error {
	var errs field.ErrorList
	switch p := r.Object.(type) {
	case *regv1.ValidatingAdmissionPolicy:
		if old, ok := r.Old.(*regv1.ValidatingAdmissionPolicy); ok && equality.Semantic.DeepEqual(old.Spec, p.Spec) {
			return nil
		}
		errs = checkValidating(p)
	case *regv1.MutatingAdmissionPolicy:
		if old, ok := r.Old.(*regv1.MutatingAdmissionPolicy); ok && equality.Semantic.DeepEqual(old.Spec, p.Spec) {
			return nil
		}
		errs = checkMutating(p)
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(r.Kind.GroupVersionKind().GroupKind(), r.Name, errs)
	}
	return nil
}

// checker compiles a policy's expressions as strictly as new ones must be, and collects what is wrong with them.
type checker struct {
	*plugincel.CompositedCompiler
	options plugincel.OptionalVariableDeclarations
	errs    field.ErrorList
}

func newChecker(variables []regv1.Variable, conditions []regv1.MatchCondition, params *regv1.ParamKind) *checker {
	c := &checker{options: plugincel.OptionalVariableDeclarations{HasParams: params != nil, HasAuthorizer: true}}
	spec := field.NewPath("spec")
	var err error
	if c.CompositedCompiler, err = plugincel.NewCompositedCompiler(match.Environment()); err != nil {
		c.errs = field.ErrorList{field.InternalError(spec, err)}
		return c
	}
	for i, v := range variables {
		e := &expression{name: v.Name, text: v.Expression, returns: []*cel.Type{cel.AnyType, cel.DynType}}
		if r := c.CompileAndStoreVariable(e, c.options, environment.NewExpressions); r.Error != nil {
			c.errs = append(c.errs, field.Invalid(spec.Child("variables").Index(i).Child("expression"), v.Expression, r.Error.Error()))
		}
	}
	for i, e := range match.ConditionExpressions(conditions) {
		c.check(spec.Child("matchConditions").Index(i).Child("expression"), e, c.options)
	}
	return c
}

func (c *checker) check(path *field.Path, e plugincel.ExpressionAccessor, options plugincel.OptionalVariableDeclarations) {
	if e.GetExpression() == "" {
		return // that it is missing is said elsewhere
	}
	if r := c.CompileCELExpression(e, options, environment.NewExpressions); r.Error != nil {
		c.errs = append(c.errs, field.Invalid(path, e.GetExpression(), r.Error.Error()))
	}
}

func checkValidating(p *regv1.ValidatingAdmissionPolicy) field.ErrorList {
	c := newChecker(p.Spec.Variables, p.Spec.MatchConditions, p.Spec.ParamKind)
	if c.CompositedCompiler == nil {
		return c.errs
	}
	spec := field.NewPath("spec")
	plain := c.options
	plain.HasAuthorizer = false
	for i, v := range p.Spec.Validations {
		path := spec.Child("validations").Index(i)
		c.check(path.Child("expression"), &expression{text: v.Expression, returns: []*cel.Type{cel.BoolType}}, c.options)
		c.check(path.Child("messageExpression"), &expression{text: v.MessageExpression, returns: []*cel.Type{cel.StringType}}, plain)
	}
	for i, a := range p.Spec.AuditAnnotations {
		c.check(spec.Child("auditAnnotations").Index(i).Child("valueExpression"),
			&expression{text: a.ValueExpression, returns: []*cel.Type{cel.StringType, cel.NullType}}, c.options)
	}
	return c.errs
}

func checkMutating(p *regv1.MutatingAdmissionPolicy) field.ErrorList {
	c := newChecker(p.Spec.Variables, p.Spec.MatchConditions, p.Spec.ParamKind)
	if c.CompositedCompiler == nil {
		return c.errs
	}
	patches := c.options
	patches.HasPatchTypes = true
	for i, m := range p.Spec.Mutations {
		path := field.NewPath("spec", "mutations").Index(i)
		if m.JSONPatch != nil {
			c.check(path.Child("jsonPatch", "expression"), &patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, patches)
		}
		if m.ApplyConfiguration != nil {
			c.check(path.Child("applyConfiguration", "expression"),
				&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, patches)
		}
	}
	return c.errs
}
