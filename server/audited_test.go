package server_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/audit"
	"github.com/skiff-sh/skiff/server/rest"
)

// TestAudited makes requests over HTTP and in the process, and reads what the log says of them.
func TestAudited(t *testing.T) {
	dir := t.TempDir()
	policy, log := filepath.Join(dir, "policy"), filepath.Join(dir, "log")
	if err := os.WriteFile(policy, []byte(`{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
		{"level": "None", "verbs": ["list"]}, {"level": "RequestResponse", "resources": [{"resources": ["configmaps"]}]}, {"level": "Metadata"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := audit.ReadPolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	a, err := audit.New(audit.Config{Policy: p, File: &audit.FileConfig{Path: log}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Store: openStore(t), Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers, Audit: a,
		Authorizer: rootOnly, Admission: &admission.Chain{}, Extensions: &rest.Extensions{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(srv.Handler())
	defer h.Close()
	f := &fixture{t: t, srv: srv, http: h}
	f.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"default"}}`)
	f.must(201, "POST", cm, `{"metadata":{"name":"a"},"data":{"x":"y"}}`)
	f.must(200, "GET", cm, "")
	f.do("GET", cm+"/none", "")
	f.do("GET", cm+"/a", "", "Authorization", "Bearer eve-token")
	f.do("GET", cm+"/a", "", "Authorization", "Bearer nobody")
	k, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if _, err := srv.Local(root).Create(t.Context(), k, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "inside"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		var ev auditv1.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s/%s %d %s %v %v %s", ev.Stage, ev.Verb, ev.ObjectRef.Resource, ev.ObjectRef.Name, ev.ResponseStatus.Code,
			ev.User.Username, ev.RequestObject != nil, ev.ResponseObject != nil, ev.Annotations["authorization.k8s.io/decision"]))
	}
	want := []string{
		"ResponseComplete create namespaces/default 201 root false false allow",
		"ResponseComplete create configmaps/a 201 root true true allow",
		"ResponseComplete get configmaps/none 404 root false true allow",
		"ResponseComplete get configmaps/a 403 eve false true forbid",
		"ResponseComplete get configmaps/a 401  false true ",
		"ResponseComplete create configmaps/inside 200 root true false allow",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if code, _, b := f.do("GET", "/metrics", ""); code != http.StatusOK || !strings.Contains(string(b), "apiserver_audit_event_total 6") {
		t.Errorf("metrics: %d", code)
	}
}
