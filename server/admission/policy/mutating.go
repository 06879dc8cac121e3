package policy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	regv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	kadmission "k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/client-go/applyconfigurations"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
	"github.com/skiff-sh/skiff/server/codec"
)

// Mutating is the plugin MutatingAdmissionPolicy.
type Mutating struct {
	cfg      Config
	count    *metrics
	policies *match.Source[*regv1.MutatingAdmissionPolicy, *mutation]
	bindings *match.Source[*regv1.MutatingAdmissionPolicyBinding, *binding]
	types    func() managedfields.TypeConverter // of the built-in kinds
}

// mutation is a policy and, once somebody asked, its programs.
type mutation struct {
	*regv1.MutatingAdmissionPolicy
	match    constraints
	programs func() *patchers
}

// patchers is what a mutating policy was compiled into.
type patchers struct {
	err        error
	compiler   *plugincel.CompositedCompiler
	conditions matchconditions.Matcher // nil: none
	list       []patch.Patcher
}

// NewMutating makes the plugin.
func NewMutating(cfg Config) *Mutating {
	return &Mutating{cfg: cfg, count: newMetrics(cfg.Metrics, "mutating"),
		types: sync.OnceValue(func() managedfields.TypeConverter { return applyconfigurations.NewTypeConverter(codec.Scheme()) }),
		policies: match.NewSource(cfg.Store, func(p *regv1.MutatingAdmissionPolicy) *mutation {
			return &mutation{p, newConstraints(p.Spec.MatchConstraints), sync.OnceValue(func() *patchers { return compilePatchers(p) })}
		}),
		bindings: match.NewSource(cfg.Store, func(b *regv1.MutatingAdmissionPolicyBinding) *binding {
			return &binding{name: b.Name, policy: b.Spec.PolicyName, param: b.Spec.ParamRef, match: newConstraints(b.Spec.MatchResources)}
		})}
}

func compilePatchers(p *regv1.MutatingAdmissionPolicy) *patchers {
	options := plugincel.OptionalVariableDeclarations{HasParams: p.Spec.ParamKind != nil, HasAuthorizer: true}
	c, err := compiler(p.Spec.Variables, options)
	if err != nil {
		return &patchers{err: fmt.Errorf("failed to initialize CEL compiler: %w", err)}
	}
	out := &patchers{compiler: c}
	if len(p.Spec.MatchConditions) > 0 {
		out.conditions = matchconditions.NewMatcher(c.CompileCondition(match.ConditionExpressions(p.Spec.MatchConditions), options, stored),
			p.Spec.FailurePolicy, "policy", "validate", p.Name)
	}
	options.HasPatchTypes = true
	for _, m := range p.Spec.Mutations {
		switch {
		case m.PatchType == regv1.PatchTypeJSONPatch && m.JSONPatch != nil:
			e := &patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}
			out.list = append(out.list, patch.NewJSONPatcher(c.CompileMutatingEvaluator(e, options, stored)))
		case m.PatchType == regv1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
			e := &patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}
			out.list = append(out.list, patch.NewApplyConfigurationPatcher(c.CompileMutatingEvaluator(e, options, stored)))
		default:
			out.err = fmt.Errorf("unrecognized mutation type %q", m.PatchType)
		}
	}
	return out
}

// Name implements admission.Plugin.
func (*Mutating) Name() string { return "MutatingAdmissionPolicy" }

// Handles implements admission.Plugin.
func (*Mutating) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	return (op == admission.Create || op == admission.Update) && handles(k)
}

// Admit lets every policy change the object, for every parameter of every binding.
func (p *Mutating) Admit(ctx context.Context, r *admission.Request) error {
	policies := p.policies.All()
	if len(policies) == 0 || r.Object == nil {
		return nil
	}
	bindings := p.bindings.All()
	t := match.NewTarget(p.cfg.Store, p.cfg.Kinds, r)
	rounds := admission.BeginRound(r, p.Name())
	defer rounds.End(r)
	for _, m := range policies {
		for _, b := range bindingsOf(bindings, m.Name) {
			err := p.bound(ctx, t, m, b, rounds)
			var status *apierrors.StatusError
			switch {
			case errors.As(err, &status):
				return err
			case err != nil && !ignores(m.Spec.FailurePolicy):
				return refusedBy(t, m.Name, b.name, err)
			}
		}
	}
	return nil
}

// refusedBy is the error of a policy that could not do its work: with that for a message, and nothing around it.
func refusedBy(t *match.Target, policy, binding string, err error) error {
	message := fmt.Sprintf("policy '%s' with binding '%s' denied request: %v", policy, binding, err)
	var out *apierrors.StatusError
	if errors.As(refused(t, metav1.StatusReasonInvalid, message), &out) {
		out.ErrStatus.Message = message
	}
	return out
}

func (p *Mutating) bound(ctx context.Context, t *match.Target, m *mutation, b *binding, rounds *admission.Rounds) error {
	row, err := m.match.find(t)
	if err != nil || row == nil {
		return err
	}
	if in, err := b.match.find(t); err != nil || in == nil {
		return err
	}
	params, err := p.cfg.params(m.Spec.ParamKind, b.param, t)
	if err != nil {
		return err
	}
	for _, param := range params {
		id := m.Name + "/" + b.name
		if o, ok := param.(metav1.Object); ok {
			id += "/" + o.GetNamespace() + "/" + o.GetName()
		}
		if !rounds.Wants(t.Request, id) {
			continue
		}
		begin := time.Now()
		ran, changed, err := p.mutate(ctx, t, m, row, param)
		if ran {
			p.count.observe(time.Since(begin), m.Name, b.name, errorType(err))
		}
		if err != nil {
			return err
		}
		if changed {
			rounds.Changed(t.Request)
		}
		if ran && m.Spec.ReinvocationPolicy == regv1.IfNeededReinvocationPolicy {
			rounds.Asked(id)
		}
	}
	return nil
}

// mutate runs one policy with one parameter.
func (p *Mutating) mutate(ctx context.Context, t *match.Target, m *mutation, row *api.Kind, param runtime.Object) (ran, changed bool, err error) {
	prog := m.programs()
	if prog.err != nil {
		return false, false, prog.err
	}
	view, err := t.View(row)
	if err != nil {
		return false, false, err
	}
	ns, err := t.NamespaceObject()
	if err != nil {
		return false, false, err
	}
	ctx = prog.compiler.CreateContext(ctx)
	attributes := t.Attributes(view)
	if prog.conditions != nil {
		matched := prog.conditions.Match(ctx, attributes, param, p.cfg.Authorizer)
		if matched.Error != nil || !matched.Matches {
			return false, false, matched.Error
		}
	}
	for _, one := range prog.list {
		obj, err := one.Patch(ctx, patch.Request{MatchedResource: view.Resource, VersionedAttributes: attributes,
			ObjectInterfaces: interfaces{codec.Converter{Table: p.cfg.Kinds}}, Namespace: plugincel.CreateNamespaceObject(ns),
			OptionalVariables: plugincel.OptionalVariableBindings{VersionedParams: param, Authorizer: p.cfg.Authorizer},
			TypeConverter:     p.typesOf(view.Row)}, celconfig.RuntimeCELCostBudget)
		if err != nil {
			return true, changed, err
		}
		if obj, err = typed(view, obj); err != nil {
			return true, changed, apierrors.NewInternalError(err)
		}
		changed = changed || !equality.Semantic.DeepEqual(attributes.VersionedObject, obj)
		attributes.VersionedObject = obj
		if o, ok := obj.(api.Object); ok && view.Kind == view.Row.GroupVersionKind() {
			codec.Defaulted(view.Row, o)
		}
	}
	if !changed {
		return true, false, nil
	}
	return true, true, t.Replace(view, attributes.VersionedObject)
}

func (p *Mutating) typesOf(row *api.Kind) managedfields.TypeConverter {
	if row.CRD && p.cfg.Types != nil {
		return p.cfg.Types(row)
	}
	if row.CRD || row.Group == "apiextensions.k8s.io" || row.Group == "apiregistration.k8s.io" {
		return managedfields.NewDeducedTypeConverter()
	}
	return p.types()
}

// typed gives a patched object the Go type of its kind.
func typed(v *match.View, obj runtime.Object) (runtime.Object, error) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok || v.Row.CRD {
		return obj, nil
	}
	out, err := v.Empty()
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, err
	}
	out.GetObjectKind().SetGroupVersionKind(v.Kind)
	return out, nil
}

// interfaces is the table as upstream's patchers take it.
type interfaces struct{ codec.Converter }

func (i interfaces) GetObjectCreater() runtime.ObjectCreater     { return i.Converter }
func (i interfaces) GetObjectTyper() runtime.ObjectTyper         { return codec.Scheme() }
func (i interfaces) GetObjectDefaulter() runtime.ObjectDefaulter { return i.Converter }
func (i interfaces) GetObjectConvertor() runtime.ObjectConvertor { return i.Converter }
func (i interfaces) GetEquivalentResourceMapper() runtime.EquivalentResourceMapper {
	return runtime.NewEquivalentResourceRegistry()
}

var _ kadmission.ObjectInterfaces = interfaces{}
