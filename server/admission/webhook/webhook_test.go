package webhook

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	regv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
)

// asked serves a webhook that answers as f says, and returns how to reach it.
func asked(t *testing.T, f func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse) regv1.WebhookClientConfig {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		data, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(data, &review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := f(review.Request)
		if answer == nil {
			<-r.Context().Done()
			return
		}
		answer.UID = review.Request.UID
		review.Request, review.Response = nil, answer
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return regv1.WebhookClientConfig{URL: ptr.To(s.URL + "/check"), CABundle: ca}
}

func rule(group, version, resource string, ops ...regv1.OperationType) []regv1.RuleWithOperations {
	return []regv1.RuleWithOperations{{Operations: ops, Rule: regv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: []string{resource}}}}
}

func validating(name string, c regv1.WebhookClientConfig, change ...func(*regv1.ValidatingWebhook)) *regv1.ValidatingWebhookConfiguration {
	w := regv1.ValidatingWebhook{Name: name + ".example.com", ClientConfig: c, Rules: rule("", "v1", "configmaps", regv1.OperationAll),
		SideEffects: ptr.To(regv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}}
	for _, f := range change {
		f(&w)
	}
	return &regv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []regv1.ValidatingWebhook{w}}
}

func mutating(name string, c regv1.WebhookClientConfig, again bool) *regv1.MutatingWebhookConfiguration {
	w := regv1.MutatingWebhook{Name: name + ".example.com", ClientConfig: c, Rules: rule("", "v1", "configmaps", regv1.Create),
		SideEffects: ptr.To(regv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}}
	if again {
		w.ReinvocationPolicy = ptr.To(regv1.IfNeededReinvocationPolicy)
	}
	return &regv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []regv1.MutatingWebhook{w}}
}

func try(t *testing.T, r *admission.Request, objs ...api.Object) error {
	t.Helper()
	objs = append(objs, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"team": "red"}}})
	cfg := Config{Store: memstore.New(objs...), Kinds: builtin.Table()}
	if r.User == nil {
		r.User = &user.DefaultInfo{Name: "jane", Groups: []string{"g"}}
	}
	if r.Warn == nil {
		r.Warn = func(string) {}
	}
	c := admission.NewChain(nil, NewMutating(cfg), NewValidating(cfg))
	if err := c.Admit(t.Context(), r); err != nil {
		return err
	}
	return c.Validate(t.Context(), r)
}

func row(t *testing.T, group, version, resource string) *api.Kind {
	t.Helper()
	k, ok := builtin.Table().Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource})
	if !ok {
		t.Fatalf("no row for %s", resource)
	}
	return k
}

func create(t *testing.T) *admission.Request {
	t.Helper()
	return &admission.Request{Operation: admission.Create, Kind: row(t, "", "v1", "configmaps"), Namespace: "a", Name: "c",
		Options: &metav1.CreateOptions{}, Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c"},
			Data: map[string]string{"k": "v"}}}
}

func TestRefusal(t *testing.T) {
	var got *admissionv1.AdmissionRequest
	c := asked(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		got = r
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: "no", Code: 403, Reason: "Because"}, Warnings: []string{"careful"}}
	})
	r := create(t)
	var warned []string
	r.Warn = func(s string) { warned = append(warned, s) }
	err := try(t, r, validating("v", c))
	if err == nil || err.Error() != `admission webhook "v.example.com" denied the request: no` {
		t.Errorf("got %v", err)
	}
	if s, ok := err.(apierrors.APIStatus); !ok || s.Status().Code != 403 || s.Status().Reason != "Because" {
		t.Errorf("the webhook's status is lost: %#v", err)
	}
	if !slices.Equal(warned, []string{"careful"}) {
		t.Errorf("warnings: %q", warned)
	}
	if got.UserInfo.Username != "jane" || got.Kind.Kind != "ConfigMap" || got.RequestResource.Resource != "configmaps" || got.Operation != "CREATE" ||
		got.Namespace != "a" || got.Name != "c" || *got.DryRun {
		t.Errorf("the question was %+v", got)
	}
	var cm corev1.ConfigMap
	if err := json.Unmarshal(got.Object.Raw, &cm); err != nil || cm.Kind != "ConfigMap" || cm.Data["k"] != "v" {
		t.Errorf("the object was %s", got.Object.Raw)
	}
	if !strings.Contains(string(got.Options.Raw), `"kind":"CreateOptions"`) {
		t.Errorf("the options were %s", got.Options.Raw)
	}
}

func allow(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true}
}

func TestWhoIsAsked(t *testing.T) {
	deny := asked(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{}
	})
	selector := func(k, v string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{k: v}}
	}
	for name, c := range map[string]struct {
		change func(*regv1.ValidatingWebhook)
		want   bool
	}{
		"all":             {func(*regv1.ValidatingWebhook) {}, true},
		"other operation": {func(w *regv1.ValidatingWebhook) { w.Rules[0].Operations = []regv1.OperationType{regv1.Delete} }, false},
		"subresources":    {func(w *regv1.ValidatingWebhook) { w.Rules[0].Resources = []string{"configmaps/status"} }, false},
		"stars":           {func(w *regv1.ValidatingWebhook) { w.Rules = rule("*", "*", "*/*", regv1.OperationAll) }, true},
		"cluster scope":   {func(w *regv1.ValidatingWebhook) { w.Rules[0].Scope = ptr.To(regv1.ClusterScope) }, false},
		"namespace":       {func(w *regv1.ValidatingWebhook) { w.NamespaceSelector = selector("team", "red") }, true},
		"other namespace": {func(w *regv1.ValidatingWebhook) { w.NamespaceSelector = selector("team", "blue") }, false},
		"no such object":  {func(w *regv1.ValidatingWebhook) { w.ObjectSelector = selector("x", "y") }, false},
		"condition": {func(w *regv1.ValidatingWebhook) {
			w.MatchConditions = condition("object.data.k == 'v' && request.userInfo.username == 'jane'")
		}, true},
		"unmet condition":   {func(w *regv1.ValidatingWebhook) { w.MatchConditions = condition("object.metadata.name == 'd'") }, false},
		"failing condition": {func(w *regv1.ValidatingWebhook) { w.MatchConditions = condition("object.data.none == 'd'") }, true},
	} {
		if err := try(t, create(t), validating("v", deny, c.change)); (err != nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func condition(text string) []regv1.MatchCondition {
	return []regv1.MatchCondition{{Name: "c", Expression: text}}
}

func TestEquivalentVersion(t *testing.T) {
	v2 := row(t, "autoscaling", "v2", "horizontalpodautoscalers")
	v1 := row(t, "autoscaling", "v1", "horizontalpodautoscalers")
	var got *admissionv1.AdmissionRequest
	c := asked(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { got = r; return allow(r) })
	ask := func(policy regv1.MatchPolicyType) {
		obj := v2.New()
		obj.SetName("h")
		obj.SetNamespace("a")
		err := try(t, &admission.Request{Operation: admission.Create, Kind: v2, Namespace: "a", Name: "h", Object: obj},
			validating("v", c, func(w *regv1.ValidatingWebhook) {
				w.Rules, w.MatchPolicy = rule("autoscaling", "v1", "horizontalpodautoscalers", regv1.Create), &policy
			}))
		if err != nil {
			t.Fatal(err)
		}
	}
	if ask(regv1.Exact); got != nil {
		t.Error("Exact asked about another version")
	}
	if ask(regv1.Equivalent); got == nil || got.Kind.Version != v1.Version || got.RequestKind.Version != "v2" {
		t.Fatalf("got %+v", got)
	}
	var h autoscalingv1.HorizontalPodAutoscaler
	if err := json.Unmarshal(got.Object.Raw, &h); err != nil || h.APIVersion != "autoscaling/v1" {
		t.Errorf("the object was %s", got.Object.Raw)
	}
}

func TestFailure(t *testing.T) {
	hang := asked(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse { return nil })
	in := func(change func(*regv1.ValidatingWebhook)) api.Object {
		return validating("v", hang, func(w *regv1.ValidatingWebhook) { w.TimeoutSeconds = ptr.To[int32](1) }, change)
	}
	err := try(t, create(t), in(func(*regv1.ValidatingWebhook) {}))
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), `failed calling webhook "v.example.com": failed to call webhook: Post "https://`) ||
		!strings.Contains(err.Error(), "deadline") {
		t.Errorf("got %v", err)
	}
	if err := try(t, create(t), in(func(w *regv1.ValidatingWebhook) { w.FailurePolicy = ptr.To(regv1.Ignore) })); err != nil {
		t.Errorf("Ignore: %v", err)
	}
	r := create(t)
	r.DryRun = true
	err = try(t, r, in(func(w *regv1.ValidatingWebhook) { w.SideEffects = ptr.To(regv1.SideEffectClassUnknown) }))
	if !apierrors.IsBadRequest(err) || err.Error() != `admission webhook "v.example.com" does not support dry run` {
		t.Errorf("dry run: %v", err)
	}
	// A webhook configuration can always be changed.
	k := row(t, "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")
	everything := in(func(w *regv1.ValidatingWebhook) { w.Rules = rule("*", "*", "*", regv1.OperationAll) })
	if err := try(t, &admission.Request{Operation: admission.Delete, Kind: k, Name: "v", Old: everything}, everything); err != nil {
		t.Errorf("configuration: %v", err)
	}
}

func TestPatchAndReinvocation(t *testing.T) {
	var first, second atomic.Int32
	patch := func(n *atomic.Int32, ops string) func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			n.Add(1)
			return &admissionv1.AdmissionResponse{Allowed: true, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch), Patch: []byte(ops)}
		}
	}
	r := create(t)
	err := try(t, r, mutating("m1", asked(t, patch(&first, `[{"op":"add","path":"/data/a","value":"1"}]`)), true),
		mutating("m2", asked(t, patch(&second, `[{"op":"add","path":"/data/b","value":"2"},{"op":"add","path":"/unknown","value":1}]`)), true))
	if err != nil {
		t.Fatal(err)
	}
	if d := r.Object.(*corev1.ConfigMap).Data; d["k"] != "v" || d["a"] != "1" || d["b"] != "2" {
		t.Errorf("data is %v", d)
	}
	if first.Load() != 2 || second.Load() != 1 {
		t.Errorf("asked %d and %d times, want the first again and the second not", first.Load(), second.Load())
	}
	err = try(t, &admission.Request{Operation: admission.Delete, Kind: r.Kind, Namespace: "a", Name: "c", Old: r.Object},
		func() api.Object {
			m := mutating("m", asked(t, patch(&first, `[{"op":"remove","path":"/data"}]`)), false)
			m.Webhooks[0].Rules[0].Operations = []regv1.OperationType{regv1.Delete}
			return m
		}())
	if err == nil || !strings.Contains(err.Error(), "attempted to modify the object, which is not supported for this operation") {
		t.Errorf("a patch of a deletion: %v", err)
	}
}

func TestBadAnswers(t *testing.T) {
	h := &hook{name: "h", version: "v1"}
	head := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"`
	for body, want := range map[string]string{
		`{`:    "unexpected end",
		`null`: "absent",
		`{"apiVersion":"v1","kind":"Pod","response":{"uid":"u"}}`:                         "expected webhook response of admission.k8s.io/v1",
		head + `,"response":{"uid":"x","allowed":true}}`:                                  `expected response.uid="u", got "x"`,
		head + `,"response":{"uid":"u","allowed":true,"patch":"W10="}}`:                   "not response.patchType",
		head + `,"response":{"uid":"u","allowed":true,"patchType":"JSONPatch"}}`:          "not response.patch",
		head + `,"response":{"uid":"u","allowed":true,"patch":"W10=","patchType":"Foo"}}`: `invalid response.patchType of "Foo"`,
	} {
		if _, err := h.read([]byte(body), "u"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestExpressions(t *testing.T) {
	k := row(t, "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations")
	bad := validating("v", regv1.WebhookClientConfig{}, func(w *regv1.ValidatingWebhook) { w.MatchConditions = condition("... [] bad") })
	err := Expressions{}.Validate(context.Background(), &admission.Request{Operation: admission.Create, Kind: k, Name: "v", Object: bad})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "webhooks[0].matchConditions[0].expression") || !strings.Contains(err.Error(), "compilation failed") {
		t.Errorf("got %v", err)
	}
	if err := (Expressions{}).Validate(context.Background(), &admission.Request{Operation: admission.Update, Kind: k, Name: "v", Object: bad, Old: bad}); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}
