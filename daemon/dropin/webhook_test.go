package dropin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/daemon"
)

// reviewer knows the token "far" as ann, and lets ann do everything. It returns its kubeconfig.
func reviewer(t *testing.T) string {
	ts := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review map[string]any
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		spec, _ := review["spec"].(map[string]any)
		switch review["kind"] {
		case "TokenReview":
			review["status"] = map[string]any{"authenticated": spec["token"] == "far", "user": map[string]any{"username": "ann"}}
		case "SubjectAccessReview":
			review["status"] = map[string]any{"allowed": spec["user"] == "ann", "reason": "asked"}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	t.Cleanup(ts.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, file, fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]\n"+
		"users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", ts.URL))
	return file
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// webhooks is the server that the flags make.
func webhooks(t *testing.T, args ...string) (*daemon.APIServer, error) {
	p, _, _ := call("kube-apiserver", args...)
	f, o := p.apiFlags()
	if err := f.parse(); err != nil {
		t.Fatal(err)
	}
	a := &daemon.APIServer{}
	return a, o.webhooks.ask(f, a)
}

func TestWebhooks(t *testing.T) {
	kubeconfig := reviewer(t)
	for _, args := range [][]string{
		{"--authentication-token-webhook-config-file=" + kubeconfig, "--authorization-webhook-config-file=" + kubeconfig},
		{"--authentication-token-webhook-config-file=" + kubeconfig, "--authentication-token-webhook-version=v1", "--authorization-webhook-config-file=" + kubeconfig,
			"--authorization-webhook-version=v1"},
	} {
		a, err := webhooks(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		for token, want := range map[string]bool{"far": true, "near": false} {
			r, ok, err := a.Server.TokenWebhook.AuthenticateToken(t.Context(), token)
			if err != nil || ok != want || ok && r.User.GetName() != "ann" {
				t.Errorf("%s: %v %v %v", token, r, ok, err)
			}
		}
		for name, want := range map[string]authorizer.Decision{"ann": authorizer.DecisionAllow, "bob": authorizer.DecisionNoOpinion} {
			at := authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name}, Verb: "get", Resource: "pods", APIVersion: "v1", ResourceRequest: true}
			if got, why, err := a.Server.AuthorizationWebhook.Authorize(t.Context(), at); err != nil || got != want || why != "asked" {
				t.Errorf("%s: %v %q %v", name, got, why, err)
			}
		}
	}
	structured := filepath.Join(t.TempDir(), "authorization.yaml")
	write(t, structured, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: RBAC, name: rbac}]\n")
	if a, err := webhooks(t, "--authorization-config="+structured); err != nil || a.Server.AuthorizationConfig.File != structured {
		t.Errorf("%+v, %v", a, err)
	}
	misnamed := filepath.Join(t.TempDir(), "misnamed.yaml")
	write(t, misnamed, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: RBAC, name: x}]\n")
	for want, args := range map[string][]string{
		"expected name rbac for authorizer RBAC": {"--authorization-config=" + misnamed},
		"nowhere":                                {"--authorization-webhook-config-file=/nowhere"},
		"can not be specified when --a":          {"--authorization-config=" + structured, "--authorization-mode=RBAC"},
	} {
		if _, err := webhooks(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestSettingsThatCannotBeSwitchedOff(t *testing.T) {
	p, _, log := call("kube-apiserver", "--etcd-servers=http://127.0.0.1:1", "--service-account-issuer=https://x",
		"--service-account-signing-key-file=/nowhere", "--service-account-lookup=false", "--enable-priority-and-fairness=false", "--cert-dir="+t.TempDir())
	if err := p.run(t.Context(), p); err == nil {
		t.Fatal("it runs")
	}
	for _, flag := range []string{"--service-account-lookup", "--enable-priority-and-fairness"} {
		if !strings.Contains(log.String(), flag) {
			t.Errorf("nothing is told of %s: %s", flag, log)
		}
	}
}
