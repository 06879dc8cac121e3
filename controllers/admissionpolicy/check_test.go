package admissionpolicy

import (
	"strings"
	"testing"

	regv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/common"
	"k8s.io/apiserver/pkg/cel/openapi"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

func deployments() Type {
	s := &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{
		"spec": {SchemaProps: spec.SchemaProps{Type: []string{"object"}, Properties: map[string]spec.Schema{
			"replicas": {SchemaProps: spec.SchemaProps{Type: []string{"integer"}}}}}}}}}
	return Type{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"},
		common.SchemaDeclType(&openapi.Schema{Schema: s}, true).MaybeAssignTypeName("kubernetes.Deployment")}
}

func TestExpressionsAreCheckedAgainstTheTypes(t *testing.T) {
	p := &regv1.ValidatingAdmissionPolicy{Spec: regv1.ValidatingAdmissionPolicySpec{
		Variables: []regv1.Variable{{Name: "r", Expression: "object.spec.replicas"}, {Name: "twice", Expression: "variables.r * 2"}},
		Validations: []regv1.Validation{
			{Expression: "object.spec.replicas > 1"}, {Expression: "object.spec.retries > 1"}, {Expression: "variables.twice > 'a'"},
			{Expression: "oldObject == null || request.operation == 'UPDATE'", MessageExpression: "'no ' + object.kind"}}}}
	got, err := Check(p, []Type{deployments()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ at, text string }{{"spec.validations[1].expression", "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'retries'"},
		{"spec.validations[2].expression", "apps/v1, Kind=Deployment: ERROR: <input>:1:17: found no matching overload for '_>_' applied to '(int, string)'"}}
	if len(got) != len(want) {
		t.Fatalf("warnings %+v, want two", got)
	}
	for i, w := range want {
		if got[i].FieldRef != w.at || !strings.HasPrefix(got[i].Warning, w.text) {
			t.Errorf("%+v, want %+v", got[i], w)
		}
	}
	var nothing *apiservercel.DeclType
	p.Spec.ParamKind = &regv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"}
	p.Spec.Validations = []regv1.Validation{{Expression: "params.data.x == 'y'"}}
	if got, err := Check(p, []Type{deployments()}, nothing); err != nil || len(got) > 0 {
		t.Errorf("parameters of an unknown type: %v, %v", got, err)
	}
}

func TestResourcesOfAPolicy(t *testing.T) {
	rule := func(groups, versions, resources []string) regv1.NamedRuleWithOperations {
		return regv1.NamedRuleWithOperations{RuleWithOperations: regv1.RuleWithOperations{Rule: regv1.Rule{APIGroups: groups, APIVersions: versions, Resources: resources}}}
	}
	p := &regv1.ValidatingAdmissionPolicy{Spec: regv1.ValidatingAdmissionPolicySpec{MatchConstraints: &regv1.MatchResources{ResourceRules: []regv1.NamedRuleWithOperations{
		rule([]string{"apps"}, []string{"v1"}, []string{"deployments", "deployments/scale", "*"}), rule([]string{"*"}, []string{"v1"}, []string{"pods"})}}}}
	if got := Resources(p); len(got) != 1 || got[0].Resource != "deployments" {
		t.Errorf("%v, want deployments alone", got)
	}
}
