package server_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/rest"
)

// answer is what a server of the configuration answers to a GET without credentials.
func answer(t *testing.T, c server.Config, path string) *httptest.ResponseRecorder {
	t.Helper()
	c.Store, c.Kinds, c.Log = memstore.New(), api.NewTable(builtin.Kinds()...), slog.New(slog.DiscardHandler)
	c.Admission, c.Extensions = &admission.Chain{}, &rest.Extensions{}
	srv, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	srv.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestStrangers(t *testing.T) {
	for _, c := range []struct {
		config *apiserver.AnonymousAuthConfig
		path   string
		want   int
	}{
		{nil, "/livez", 200},
		{nil, "/api", 200},
		{&apiserver.AnonymousAuthConfig{Enabled: false}, "/livez", 401},
		{&apiserver.AnonymousAuthConfig{Enabled: true}, "/api", 200},
		{&apiserver.AnonymousAuthConfig{Enabled: true, Conditions: []apiserver.AnonymousAuthCondition{{Path: "/livez"}}}, "/livez", 200},
		{&apiserver.AnonymousAuthConfig{Enabled: true, Conditions: []apiserver.AnonymousAuthCondition{{Path: "/livez"}}}, "/livez?verbose", 200},
		{&apiserver.AnonymousAuthConfig{Enabled: true, Conditions: []apiserver.AnonymousAuthCondition{{Path: "/livez"}}}, "/livez/ping", 401},
		{&apiserver.AnonymousAuthConfig{Enabled: true, Conditions: []apiserver.AnonymousAuthCondition{{Path: "/livez"}}}, "/api", 401},
	} {
		w := answer(t, server.Config{AuthorizationModes: []string{"AlwaysAllow"},
			Authentication: &authn.StructuredConfig{Fixed: &apiserver.AuthenticationConfiguration{Anonymous: c.config}}}, c.path)
		if w.Code != c.want {
			t.Errorf("%+v: %s: %d, want %d", c.config, c.path, w.Code, c.want)
		}
	}
}

// Who decides may fail, and may deny what is open to everybody else.
func TestAuthorizersThatFailOrDeny(t *testing.T) {
	ruling := func(d authorizer.Decision, err error) authorizer.Authorizer {
		return authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return d, "because", err
		})
	}
	broken := errors.New("broken")
	for _, c := range []struct {
		authorizer authorizer.Authorizer
		path       string
		code       int
		text       string
	}{
		{ruling(authorizer.DecisionNoOpinion, nil), "/livez", 200, "ok"},
		{ruling(authorizer.DecisionDeny, nil), "/livez", 403, `cannot get path \"/livez\": because`},
		{ruling(authorizer.DecisionAllow, broken), "/api", 200, "APIVersions"},
		{ruling(authorizer.DecisionNoOpinion, broken), "/api?x=1", 500, "Internal Server Error: \"/api?x=1\": broken\n"},
		{ruling(authorizer.DecisionDeny, broken), "/livez", 500, "Internal Server Error: \"/livez\": broken\n"},
	} {
		w := answer(t, server.Config{Authorizer: c.authorizer, Authenticator: tokenUsers}, c.path)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %s, want %d %s", c.path, w.Code, w.Body, c.code, c.text)
		}
	}
}
