package reviews

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/server/tokens"
)

// rule allows ann to get, and everybody to see /version.
type rule struct{}

func (rule) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if (a.GetUser().GetName() == "ann" && a.GetVerb() == "get" && a.GetNamespace() == "a") || a.GetPath() == "/version" {
		return authorizer.DecisionAllow, "because", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (rule) RulesFor(context.Context, user.Info, string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/version"}}}, false, nil
}

func setup(t *testing.T) (map[string]rest.Action, *tokens.Issuer, *corev1.ServiceAccount) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "robot", UID: "u"}}
	iss, err := tokens.New(tokens.Config{Issuer: "https://iss", Key: key, Lookup: tokens.FromStore(memstore.New(sa))})
	if err != nil {
		t.Fatal(err)
	}
	an := authn.New(authn.Config{Tokens: iss, Static: map[string]user.Info{"sesame": &user.DefaultInfo{Name: "ali"}}})
	return Actions(an, rule{}, iss), iss, sa
}

func as(t *testing.T, name string) context.Context {
	return request.With(t.Context(), &request.Info{User: &user.DefaultInfo{Name: name, Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}})
}

func do[T runtime.Object](t *testing.T, m map[string]rest.Action, ctx context.Context, key string, parent api.Object, q T) T {
	t.Helper()
	out, err := m[key](ctx, parent, q, false)
	if err != nil {
		t.Fatal(err)
	}
	return out.(T)
}

func TestTokenReview(t *testing.T) {
	m, _, sa := setup(t)
	const key = "tokenreviews.authentication.k8s.io"
	tr := do(t, m, as(t, "ann"), "serviceaccounts/token", sa, &authenticationv1.TokenRequest{})
	for _, c := range []struct {
		spec authenticationv1.TokenReviewSpec
		user string // "" is not authenticated
	}{
		{authenticationv1.TokenReviewSpec{Token: tr.Status.Token}, "system:serviceaccount:a:robot"},
		{authenticationv1.TokenReviewSpec{Token: tr.Status.Token, Audiences: []string{"https://iss", "x"}}, "system:serviceaccount:a:robot"},
		{authenticationv1.TokenReviewSpec{Token: tr.Status.Token, Audiences: []string{"x"}}, ""},
		{authenticationv1.TokenReviewSpec{Token: "sesame"}, "ali"},
		{authenticationv1.TokenReviewSpec{Token: "wheat"}, ""},
	} {
		out := do(t, m, as(t, "ann"), key, nil, &authenticationv1.TokenReview{Spec: c.spec})
		if out.Status.Authenticated != (c.user != "") || out.Status.User.Username != c.user || (c.user == "") != (out.Status.Error != "") {
			t.Errorf("%+v: %+v", c.spec, out.Status)
		}
		if c.user != "" && (len(out.Status.Audiences) != 1 || out.Status.Audiences[0] != "https://iss") {
			t.Errorf("audiences %v", out.Status.Audiences)
		}
	}
	if _, err := m[key](as(t, "ann"), nil, &authenticationv1.TokenReview{}, false); err == nil {
		t.Error("a review without a token")
	}
}

func TestAccess(t *testing.T) {
	m, _, _ := setup(t)
	get := &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "a"}
	version := &authorizationv1.NonResourceAttributes{Verb: "get", Path: "/version"}
	const sar, self, local = "subjectaccessreviews.authorization.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io", "localsubjectaccessreviews.authorization.k8s.io"
	if s := do(t, m, as(t, "bob"), sar, nil, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: get}}); !s.Status.Allowed || s.Status.Denied || s.Status.Reason != "because" {
		t.Errorf("%+v", s.Status)
	}
	if s := do(t, m, as(t, "ann"), sar, nil, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: get}}); s.Status.Allowed || s.Status.Denied {
		t.Errorf("%+v", s.Status)
	}
	if s := do(t, m, as(t, "ann"), self, nil, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: get}}); !s.Status.Allowed {
		t.Errorf("%+v", s.Status)
	}
	if s := do(t, m, as(t, "bob"), self, nil, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: version}}); !s.Status.Allowed {
		t.Errorf("%+v", s.Status)
	}
	if s := do(t, m, as(t, "bob"), local, nil, &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "a"},
		Spec: authorizationv1.SubjectAccessReviewSpec{User: "ann", ResourceAttributes: get}}); !s.Status.Allowed {
		t.Errorf("%+v", s.Status)
	}
	bad := get.DeepCopy()
	bad.FieldSelector = &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b=c,=="}
	if s := do(t, m, as(t, "ann"), self, nil, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: bad}}); s.Status.EvaluationError == "" {
		t.Errorf("%+v", s.Status)
	}
	for _, c := range []struct {
		key  string
		q    runtime.Object
		want string
	}{
		{sar, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: get}}, "at least one of user or group must be specified"},
		{sar, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "x"}}, "exactly one of nonResourceAttributes or resourceAttributes must be specified"},
		{self, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: get, NonResourceAttributes: version}}, "cannot be specified in combination with resourceAttributes"},
		{self, &authorizationv1.SelfSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: get}}, "must be empty"},
		{local, &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "b"}, Spec: authorizationv1.SubjectAccessReviewSpec{User: "x", ResourceAttributes: get}}, "must match metadata.namespace"},
	} {
		if _, err := m[c.key](as(t, "ann"), nil, c.q, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestSelf(t *testing.T) {
	m, _, _ := setup(t)
	s := do(t, m, as(t, "ann"), "selfsubjectreviews.authentication.k8s.io", nil, &authenticationv1.SelfSubjectReview{})
	if s.Status.UserInfo.Username != "ann" || s.Status.UserInfo.Groups[0] != "g" || s.Status.UserInfo.Extra["k"][0] != "v" || s.CreationTimestamp.IsZero() {
		t.Errorf("%+v", s)
	}
	r := do(t, m, as(t, "ann"), "selfsubjectrulesreviews.authorization.k8s.io", nil,
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "a"}})
	if len(r.Status.ResourceRules) != 1 || r.Status.ResourceRules[0].Resources[0] != "pods" || r.Status.NonResourceRules[0].NonResourceURLs[0] != "/version" || r.Status.Incomplete {
		t.Errorf("%+v", r.Status)
	}
	if _, err := m["selfsubjectrulesreviews.authorization.k8s.io"](as(t, "ann"), nil, &authorizationv1.SelfSubjectRulesReview{}, false); err == nil {
		t.Error("no namespace")
	}
}
