package policy

import (
	"strings"
	"testing"

	regv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
)

func deploymentRules() *regv1.MatchResources {
	return &regv1.MatchResources{ResourceRules: []regv1.NamedRuleWithOperations{{RuleWithOperations: regv1.RuleWithOperations{
		Operations: []regv1.OperationType{regv1.Create, regv1.Update},
		Rule:       regv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}}}}}}
}

func policyOf(validations ...regv1.Validation) *regv1.ValidatingAdmissionPolicy {
	return &regv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"},
		Spec: regv1.ValidatingAdmissionPolicySpec{MatchConstraints: deploymentRules(), Validations: validations}}
}

func bind(change ...func(*regv1.ValidatingAdmissionPolicyBindingSpec)) *regv1.ValidatingAdmissionPolicyBinding {
	b := &regv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: regv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "p", ValidationActions: []regv1.ValidationAction{regv1.Deny}}}
	for _, f := range change {
		f(&b.Spec)
	}
	return b
}

func deployment(replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "d"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
}

func request(t *testing.T, obj runtime.Object) *admission.Request {
	t.Helper()
	k, ok := builtin.Table().Of(obj.(api.Object))
	if !ok {
		t.Fatalf("%T is no kind", obj)
	}
	m := obj.(metav1.Object)
	return &admission.Request{Operation: admission.Create, Kind: k, Namespace: m.GetNamespace(), Name: m.GetName(), Object: obj,
		Options: &metav1.CreateOptions{}, User: &user.DefaultInfo{Name: "jane"}, Warn: func(string) {}}
}

func config(objs ...api.Object) Config {
	objs = append(objs, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"most": "3"}}})
	return Config{Store: memstore.New(objs...), Kinds: builtin.Table()}
}

func TestValidating(t *testing.T) {
	few := regv1.Validation{Expression: "object.spec.replicas <= 5"}
	limit := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "limit"}, Data: map[string]string{"most": "5"}}
	withParams := policyOf(regv1.Validation{Expression: "object.spec.replicas <= int(params.data.most)",
		MessageExpression: "'at most ' + params.data.most", Reason: ptr.To(metav1.StatusReasonForbidden)})
	withParams.Spec.ParamKind = &regv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"}
	toParam := func(name string, missing regv1.ParameterNotFoundActionType) *regv1.ValidatingAdmissionPolicyBinding {
		return bind(func(s *regv1.ValidatingAdmissionPolicyBindingSpec) {
			s.ParamRef = &regv1.ParamRef{Name: name, ParameterNotFoundAction: &missing}
		})
	}
	withVariables := policyOf(regv1.Validation{Expression: "variables.n < 6 && variables.twice == 2 * variables.n"})
	withVariables.Spec.Variables = []regv1.Variable{{Name: "n", Expression: "object.spec.replicas"}, {Name: "twice", Expression: "variables.n * 2"}}
	conditional := policyOf(regv1.Validation{Expression: "false"})
	conditional.Spec.MatchConditions = []regv1.MatchCondition{{Name: "c", Expression: "request.userInfo.username != 'jane'"}}
	lenient := policyOf(regv1.Validation{Expression: "object.spec.none == 1"})
	lenient.Spec.FailurePolicy = ptr.To(regv1.Ignore)

	for name, c := range map[string]struct {
		objs []api.Object
		want string
		code int32
	}{
		"denied": {[]api.Object{policyOf(few), bind()}, "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: failed expression: object.spec.replicas <= 5", 422},
		"message": {[]api.Object{policyOf(regv1.Validation{Expression: "false", Message: " never "}), bind()},
			"denied request: never", 422},
		"no binding": {[]api.Object{policyOf(few)}, "", 0},
		"warned only": {[]api.Object{policyOf(few), bind(func(s *regv1.ValidatingAdmissionPolicyBindingSpec) {
			s.ValidationActions = []regv1.ValidationAction{regv1.Warn}
		})}, "", 0},
		"other namespace": {[]api.Object{policyOf(few), bind(func(s *regv1.ValidatingAdmissionPolicyBindingSpec) {
			s.MatchResources = &regv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}}}
		})}, "", 0},
		"params":          {[]api.Object{withParams, limit, toParam("limit", regv1.AllowAction)}, "denied request: at most 5", 403},
		"params missing":  {[]api.Object{withParams, toParam("none", regv1.AllowAction)}, "", 0},
		"params demanded": {[]api.Object{withParams, toParam("none", regv1.DenyAction)}, "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction", 422},
		"variables":       {[]api.Object{withVariables, bind()}, "failed expression: variables.n < 6", 422},
		"namespace":       {[]api.Object{policyOf(regv1.Validation{Expression: "object.spec.replicas <= int(namespaceObject.metadata.labels.most)"}), bind()}, "failed expression", 422},
		"condition":       {[]api.Object{conditional, bind()}, "", 0},
		"evaluation":      {[]api.Object{policyOf(regv1.Validation{Expression: "object.spec.none == 1"}), bind()}, "no such key: none", 422},
		"ignored":         {[]api.Object{lenient, bind()}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			err := NewValidating(config(c.objs...)).Validate(t.Context(), request(t, deployment(7)))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			status, ok := err.(apierrors.APIStatus)
			if !ok || !strings.Contains(err.Error(), c.want) || status.Status().Code != c.code {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWarning(t *testing.T) {
	r := request(t, deployment(7))
	var got string
	r.Warn = func(s string) { got = s }
	b := bind(func(s *regv1.ValidatingAdmissionPolicyBindingSpec) {
		s.ValidationActions = []regv1.ValidationAction{regv1.Warn}
	})
	if err := NewValidating(config(policyOf(regv1.Validation{Expression: "false", Message: "m"}), b)).Validate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if want := "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': m"; got != want {
		t.Errorf("got %q", got)
	}
}

func mutatingPolicy(mutations ...regv1.Mutation) []api.Object {
	return []api.Object{
		&regv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: regv1.MutatingAdmissionPolicySpec{
			MatchConstraints: deploymentRules(), Mutations: mutations}},
		&regv1.MutatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: regv1.MutatingAdmissionPolicyBindingSpec{PolicyName: "p"}}}
}

func TestMutating(t *testing.T) {
	apply := func(s string) regv1.Mutation {
		return regv1.Mutation{PatchType: regv1.PatchTypeApplyConfiguration, ApplyConfiguration: &regv1.ApplyConfiguration{Expression: s}}
	}
	json := func(s string) regv1.Mutation {
		return regv1.Mutation{PatchType: regv1.PatchTypeJSONPatch, JSONPatch: &regv1.JSONPatch{Expression: s}}
	}
	r := request(t, deployment(1))
	objs := mutatingPolicy(apply(`Object{spec: Object.spec{replicas: 4, template: Object.spec.template{spec: Object.spec.template.spec{
			containers: [Object.spec.template.spec.containers{name: "side", image: "s"}]}}}}`),
		json(`[JSONPatch{op: "add", path: "/metadata/labels", value: {"n": string(object.spec.replicas)}}]`))
	if err := NewMutating(config(objs...)).Admit(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	d := r.Object.(*appsv1.Deployment)
	if *d.Spec.Replicas != 4 || d.Labels["n"] != "4" || len(d.Spec.Template.Spec.Containers) != 2 || !r.Again {
		t.Errorf("got %+v %+v", d.Labels, d.Spec)
	}
	err := NewMutating(config(mutatingPolicy(json(`[JSONPatch{op: "remove", path: "/none"}]`))...)).Admit(t.Context(), request(t, deployment(1)))
	if !apierrors.IsInvalid(err) || !strings.HasPrefix(err.Error(), "policy 'p' with binding 'b' denied request: JSON Patch: ") {
		t.Errorf("got %v", err)
	}
}

func TestExpressions(t *testing.T) {
	p := policyOf(regv1.Validation{Expression: "object.spec.replicas", MessageExpression: "1"})
	p.Spec.Variables = []regv1.Variable{{Name: "v", Expression: "1 +"}}
	err := Expressions{}.Validate(t.Context(), request(t, p))
	for _, want := range []string{"spec.variables[0].expression", "spec.validations[0].messageExpression", "compilation failed"} {
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in %v", want, err)
		}
	}
	m := mutatingPolicy(regv1.Mutation{PatchType: regv1.PatchTypeJSONPatch, JSONPatch: &regv1.JSONPatch{Expression: "7"}})[0]
	if err := (Expressions{}).Validate(t.Context(), request(t, m)); err == nil || !strings.Contains(err.Error(), "spec.mutations[0].jsonPatch.expression") {
		t.Errorf("got %v", err)
	}
	if Expressions.Validate(Expressions{}, t.Context(), request(t, policyOf(regv1.Validation{Expression: "true"}))) != nil {
		t.Error("a good policy is refused")
	}
}
