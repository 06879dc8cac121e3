package admissionregistration

import (
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

func read[T any](t *testing.T, text string) *T {
	t.Helper()
	out := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatal(err)
	}
	return out
}

func fieldsOf(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Field+": "+string(e.Type))
	}
	slices.Sort(out)
	return out
}

const rule = `{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}`

func TestPolicies(t *testing.T) {
	const match = "matchConstraints: {resourceRules: [" + rule + "]}\n"
	for name, c := range map[string]struct {
		spec string
		want []string
	}{
		"good":        {match + `validations: [{expression: "true"}]`, nil},
		"nothing":     {match, []string{"spec.auditAnnotations: FieldValueRequired", "spec.validations: FieldValueRequired"}},
		"no match":    {`validations: [{expression: "true"}]`, []string{"spec.matchConstraints: FieldValueRequired"}},
		"no rules":    {`matchConstraints: {}` + "\n" + `validations: [{expression: "true"}]`, []string{"spec.matchConstraints.resourceRules: FieldValueRequired"}},
		"message":     {match + `validations: [{expression: "true", message: "a\nb", reason: Foo}]`, []string{"spec.validations[0].message: FieldValueInvalid", "spec.validations[0].reason: FieldValueNotSupported"}},
		"variable":    {match + `validations: [{expression: "true"}]` + "\n" + `variables: [{name: in, expression: "1"}, {name: a}]`, []string{"spec.variables[0].name: FieldValueInvalid", "spec.variables[1].expression: FieldValueRequired"}},
		"params":      {match + `validations: [{expression: "true"}]` + "\n" + `paramKind: {apiVersion: a/b/c}`, []string{"spec.paramKind.apiVersion: FieldValueInvalid", "spec.paramKind.kind: FieldValueRequired"}},
		"annotations": {match + `auditAnnotations: [{key: "a b", valueExpression: "''"}, {key: k}, {key: k, valueExpression: "''"}]`, []string{"spec.auditAnnotations[0].key: FieldValueInvalid", "spec.auditAnnotations[1].valueExpression: FieldValueRequired", "spec.auditAnnotations[2].key: FieldValueDuplicate"}},
		"resources": {`matchConstraints: {resourceRules: [{apiGroups: ["*", a], apiVersions: [""], operations: [X], resources: ["pods/*", pods/log, "*", nodes]}]}` + "\n" + `validations: [{expression: "true"}]`,
			[]string{"spec.matchConstraints.resourceRules[0].apiGroups: FieldValueInvalid", "spec.matchConstraints.resourceRules[0].apiVersions[0]: FieldValueRequired",
				"spec.matchConstraints.resourceRules[0].operations[0]: FieldValueNotSupported", "spec.matchConstraints.resourceRules[0].resources: FieldValueInvalid",
				"spec.matchConstraints.resourceRules[0].resources[1]: FieldValueInvalid"}},
	} {
		p := &admissionv1.ValidatingAdmissionPolicy{Spec: *read[admissionv1.ValidatingAdmissionPolicySpec](t, c.spec)}
		p.Name = "p"
		defaultValidatingAdmissionPolicy(p)
		if got := fieldsOf(validateValidatingAdmissionPolicy(p)); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v", name, got)
		}
	}
	for name, c := range map[string]struct {
		spec string
		want []string
	}{
		"good":      {match + "reinvocationPolicy: Never\n" + `mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[]"}}]`, nil},
		"nothing":   {match, []string{"spec.mutations: FieldValueRequired", "spec.reinvocationPolicy: FieldValueRequired"}},
		"patch":     {match + "reinvocationPolicy: Never\n" + `mutations: [{patchType: Foo}, {}, {patchType: ApplyConfiguration, jsonPatch: {expression: "[]"}}]`, []string{"spec.mutations[0].patchType: FieldValueNotSupported", "spec.mutations[1].patchType: FieldValueRequired", "spec.mutations[2].applyConfiguration: FieldValueRequired", "spec.mutations[2].jsonPatch: FieldValueInvalid"}},
		"operation": {`matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [DELETE], resources: [pods]}]}` + "\nreinvocationPolicy: Never\n" + `mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[]"}}]`, []string{"spec.matchConstraints.resourceRules.operations: FieldValueNotSupported"}},
	} {
		p := &admissionv1.MutatingAdmissionPolicy{Spec: *read[admissionv1.MutatingAdmissionPolicySpec](t, c.spec)}
		defaultMutatingAdmissionPolicy(p)
		if got := fieldsOf(validateMutatingAdmissionPolicy(p)); !slices.Equal(got, c.want) {
			t.Errorf("mutating %s: got %v", name, got)
		}
	}
}

func TestBindings(t *testing.T) {
	for spec, want := range map[string][]string{
		`{policyName: p, validationActions: [Deny, Audit]}`:                                                               nil,
		`{validationActions: []}`:                                                                                         {"spec.policyName: FieldValueRequired", "spec.validationActions: FieldValueRequired"},
		`{policyName: p, validationActions: [Deny, Warn, Nope, Deny]}`:                                                    {"spec.validationActions: FieldValueInvalid", "spec.validationActions[2]: FieldValueNotSupported", "spec.validationActions[3]: FieldValueDuplicate"},
		`{policyName: p, validationActions: [Deny], paramRef: {name: a, selector: {}}}`:                                   {"spec.paramRef.name: FieldValueForbidden", "spec.paramRef.parameterNotFoundAction: FieldValueRequired", "spec.paramRef.selector: FieldValueForbidden"},
		`{policyName: p, validationActions: [Deny], paramRef: {parameterNotFoundAction: Maybe}}`:                          {"spec.paramRef.parameterNotFoundAction: FieldValueNotSupported", "spec.paramRef: FieldValueRequired"},
		`{policyName: p, validationActions: [Deny], paramRef: {name: a/b, namespace: x, parameterNotFoundAction: Allow}}`: {"spec.paramRef.name: FieldValueInvalid"},
	} {
		b := &admissionv1.ValidatingAdmissionPolicyBinding{Spec: *read[admissionv1.ValidatingAdmissionPolicyBindingSpec](t, spec)}
		defaultValidatingAdmissionPolicyBinding(b)
		if got := fieldsOf(validateValidatingAdmissionPolicyBinding(b)); !slices.Equal(got, want) {
			t.Errorf("%s: got %v", spec, got)
		}
	}
}

func TestWebhooks(t *testing.T) {
	const rest = `, admissionReviewVersions: [v1], sideEffects: None, rules: [` + rule + `]`
	for hooks, want := range map[string][]string{
		`[{name: a.b.c, clientConfig: {url: "https://a/b"}` + rest + `}]`:                                                                                    nil,
		`[{name: a.b.c, clientConfig: {service: {name: a, namespace: b, path: x/y}}` + rest + `}]`:                                                           {"webhooks[0].clientConfig.service.path: FieldValueInvalid", "webhooks[0].clientConfig.service.path: FieldValueInvalid"},
		`[{name: a.b.c, clientConfig: {url: "http://u:p@a?q#f"}` + rest + `}]`:                                                                               {"webhooks[0].clientConfig.url: FieldValueInvalid", "webhooks[0].clientConfig.url: FieldValueInvalid", "webhooks[0].clientConfig.url: FieldValueInvalid", "webhooks[0].clientConfig.url: FieldValueInvalid"},
		`[{name: a.b.c, clientConfig: {}` + rest + `}, {name: a.b.c, clientConfig: {url: "https://a"}` + rest + `, timeoutSeconds: 31, failurePolicy: Foo}]`: {"webhooks[0].clientConfig: FieldValueRequired", "webhooks[1].failurePolicy: FieldValueNotSupported", "webhooks[1].name: FieldValueDuplicate", "webhooks[1].timeoutSeconds: FieldValueInvalid"},
		`[{name: a.b.c, clientConfig: {url: "https://a"}, admissionReviewVersions: [v9, v9], sideEffects: Some}]`:                                            {"webhooks[0].admissionReviewVersions: FieldValueInvalid", "webhooks[0].admissionReviewVersions[1]: FieldValueInvalid", "webhooks[0].sideEffects: FieldValueNotSupported"},
	} {
		c := &admissionv1.MutatingWebhookConfiguration{Webhooks: *read[[]admissionv1.MutatingWebhook](t, hooks)}
		defaultMutatingWebhookConfiguration(c)
		if got := fieldsOf(validateMutatingWebhookConfiguration(c)); !slices.Equal(got, want) {
			t.Errorf("%s: got %v", hooks, got)
		}
	}
}
