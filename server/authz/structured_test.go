package authz

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// decider is a webhook that answers by the user's name: "NAME-yes" and "NAME-no", and knows nobody else. It returns its
// kubeconfig.
func decider(t *testing.T, name string) string {
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: review.Spec.User == name+"-yes", Denied: review.Spec.User == name+"-no", Reason: name + " says so"}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(ts.Close)
	file := filepath.Join(t.TempDir(), name)
	put(t, file, fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]\n"+
		"users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", ts.URL))
	return file
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func configuration(authorizers ...string) string {
	return "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- " + strings.Join(authorizers, "\n- ") + "\n"
}

func hook(name, kubeconfig, more string) string {
	return fmt.Sprintf("{type: Webhook, name: %s, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, "+
		"failurePolicy: Deny, connectionInfo: {type: KubeConfigFile, kubeConfigFile: %s}%s}}", name, kubeconfig, more)
}

func TestStructured(t *testing.T) {
	one, two := decider(t, "one"), decider(t, "two")
	gone := filepath.Join(t.TempDir(), "gone")
	b, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	put(t, gone, strings.Replace(string(b), "https://", "https://127.0.0.1:1/", 1))
	file := filepath.Join(t.TempDir(), "authorization.yaml")
	rbac := "{type: RBAC, name: rbac}"
	first := configuration(hook("one", one, ", matchConditions: [{expression: \"request.user != 'two-no'\"}]"), rbac, hook("two", two, ""))
	put(t, file, first)
	a := New(nil)
	outcomes := make(chan error, 10)
	c, err := a.Structured(StructuredConfig{File: file, Reloaded: func(err error) { outcomes <- err }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	expect := func(name string, want authorizer.Decision, groups ...string) {
		t.Helper()
		at := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name, Groups: groups}, Verb: "get", Resource: "pods", APIVersion: "v1", ResourceRequest: true}
		if got, why, err := c.Authorize(ctx, at); got != want || err != nil && want != authorizer.DecisionDeny {
			t.Errorf("%s: %v %q %v, want %v", name, got, why, err, want)
		}
	}
	reload := func(text string, ok bool) {
		t.Helper()
		put(t, file, text)
		if err := <-outcomes; (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	expect("one-yes", authorizer.DecisionAllow)
	expect("one-no", authorizer.DecisionDeny)
	expect("two-yes", authorizer.DecisionAllow)
	expect("two-no", authorizer.DecisionDeny)
	expect("nobody", authorizer.DecisionNoOpinion)
	expect("root", authorizer.DecisionAllow, user.SystemPrivilegedGroup)

	for _, wrong := range []string{"no: [", configuration(hook("one", one, "")), configuration(rbac, "{type: Node, name: node}"),
		configuration(rbac, hook("x", "/nowhere", "")), configuration(rbac, rbac), configuration("{type: RBAC, name: other}"),
		configuration(rbac, hook("x", one, ", matchConditions: [{expression: \"request.user ==\"}]"))} {
		reload(wrong, false)
		expect("one-yes", authorizer.DecisionAllow)
	}
	reload(configuration(rbac, hook("two", two, "")), true)
	expect("one-yes", authorizer.DecisionNoOpinion)
	expect("two-yes", authorizer.DecisionAllow)
	reload(configuration(rbac, "{type: AlwaysAllow, name: alwaysallow}"), true)
	expect("nobody", authorizer.DecisionAllow)
	reload(configuration(rbac, hook("gone", gone, ", authorizedTTL: 1s")), true)
	expect("two-yes", authorizer.DecisionDeny) // the failure policy
	expect("root", authorizer.DecisionAllow, user.SystemPrivilegedGroup)

	for _, wrong := range []string{"", configuration(), configuration("{type: ABAC, name: abac}")} {
		put(t, file+"2", wrong)
		if err := Check(StructuredConfig{File: file + "2"}); err == nil {
			t.Errorf("taken: %q", wrong)
		}
	}
}
