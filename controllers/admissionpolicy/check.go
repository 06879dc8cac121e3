package admissionpolicy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	regv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

// maxTypes bounds how many kinds one policy is checked against.
const maxTypes = 10

// Resources names the resources that a policy is about, leaving out wildcards and subresources.
func Resources(p *regv1.ValidatingAdmissionPolicy) (out []schema.GroupVersionResource) {
	if p.Spec.MatchConstraints == nil {
		return nil
	}
	wild := func(list []string) bool { return slices.Contains(list, "*") }
	for _, rule := range p.Spec.MatchConstraints.ResourceRules {
		if wild(rule.APIGroups) || wild(rule.APIVersions) {
			continue
		}
		for _, g := range slices.Sorted(slices.Values(rule.APIGroups)) {
			for _, v := range slices.Sorted(slices.Values(rule.APIVersions)) {
				for _, r := range slices.Sorted(slices.Values(rule.Resources)) {
					if gvr := (schema.GroupVersionResource{Group: g, Version: v, Resource: r}); !strings.ContainsAny(r, "*/") && !slices.Contains(out, gvr) {
						out = append(out, gvr)
					}
				}
			}
		}
	}
	return out
}

// Type is a kind with its schema.
type Type struct {
	Kind schema.GroupVersionKind
	Decl *apiservercel.DeclType
}

// Check compiles the policy's validations against each of the types, and tells what does not fit. Params is the type of
// the policy's parameters: nil where it has none or they are not known.
func Check(p *regv1.ValidatingAdmissionPolicy, types []Type, params *apiservercel.DeclType) ([]regv1.ExpressionWarning, error) {
	checkers := make([]*cel.Env, 0, len(types))
	for _, t := range types {
		env, err := environmentOf(p, t.Decl, params)
		if err != nil {
			return nil, err
		}
		checkers = append(checkers, env)
	}
	var warnings []regv1.ExpressionWarning
	check := func(at *field.Path, expression string) {
		var texts []string
		for i, env := range checkers {
			if _, issues := env.Compile(expression); issues.Err() != nil {
				texts = append(texts, fmt.Sprintf("%v: %s\n", types[i].Kind, issues.String()))
			}
		}
		if len(texts) > 0 {
			warnings = append(warnings, regv1.ExpressionWarning{FieldRef: at.String(), Warning: strings.Join(texts, "\n")})
		}
	}
	for i, v := range p.Spec.Validations {
		at := field.NewPath("spec", "validations").Index(i)
		check(at.Child("expression"), v.Expression)
		if v.MessageExpression != "" {
			check(at.Child("messageExpression"), v.MessageExpression)
		}
	}
	return warnings, nil
}

// environmentOf is what a policy's expressions see when the object is of one type.
func environmentOf(p *regv1.ValidatingAdmissionPolicy, object, params *apiservercel.DeclType) (*cel.Env, error) {
	namespace, request := plugincel.BuildNamespaceType(), plugincel.BuildRequestType()
	types := []*apiservercel.DeclType{namespace, request}
	typed := func(t *apiservercel.DeclType) *cel.Type {
		if t == nil {
			return cel.DynType
		}
		types = append(types, t)
		return t.CelType()
	}
	obj := typed(object)
	options := []cel.EnvOption{
		cel.Variable(plugincel.NamespaceVarName, namespace.CelType()), cel.Variable(plugincel.RequestVarName, request.CelType()),
		cel.Variable(plugincel.ObjectVarName, obj), cel.Variable(plugincel.OldObjectVarName, obj),
		cel.Variable("authorizer", library.AuthorizerType),
	}
	if p.Spec.ParamKind != nil {
		options = append(options, cel.Variable(plugincel.ParamsVarName, typed(params)))
	}
	set, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0), EnvOptions: options, DeclTypes: types})
	if err != nil {
		return nil, err
	}
	compiler, err := plugincel.NewCompositedCompilerForTypeChecking(set)
	if err != nil {
		return nil, err
	}
	compiler.Compiler = typing{compiler}
	for _, v := range p.Spec.Variables {
		compiler.CompileAndStoreVariable(variable(v), plugincel.OptionalVariableDeclarations{}, environment.StoredExpressions)
	}
	return compiler.Env(environment.StoredExpressions)
}

// variable is one of a policy's variables, of any type.
type variable regv1.Variable

func (v variable) GetName() string          { return v.Name }
func (v variable) GetExpression() string    { return v.Expression }
func (v variable) ReturnTypes() []*cel.Type { return []*cel.Type{cel.AnyType, cel.DynType} }

// typing finds out the types of variables, in terms of those before them.
type typing struct{ *plugincel.CompositedCompiler }

// CompileCELExpression gives the type alone; one that does not compile, which validation has refused, is dynamic.
func (c typing) CompileCELExpression(e plugincel.ExpressionAccessor, _ plugincel.OptionalVariableDeclarations, mode environment.Type) plugincel.CompilationResult {
	out := plugincel.CompilationResult{ExpressionAccessor: e, OutputType: cel.DynType}
	if env, err := c.Env(mode); err == nil {
		if ast, issues := env.Compile(e.GetExpression()); issues.Err() == nil {
			out.OutputType = ast.OutputType()
		}
	}
	return out
}
