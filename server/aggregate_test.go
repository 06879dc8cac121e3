package server_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/rest"
)

// startRunning is start with what runs beside the listener.
func startRunning(t *testing.T) *fixture {
	t.Helper()
	lend := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(lend.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Store: openStore(t), Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers, Listener: ln,
		TLS: &tls.Config{Certificates: lend.TLS.Certificates}, Authorizer: rootOnly, Admission: &admission.Chain{}, Extensions: &rest.Extensions{},
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	h := httptest.NewServer(srv.Handler())
	t.Cleanup(func() {
		h.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &fixture{t: t, srv: srv, http: h}
}

// until waits for something that runs beside the requests.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A group-version that another server is to serve is told of from the moment that its APIService is there, whether that
// server can be reached or not.
func TestAggregated(t *testing.T) {
	f := startRunning(t)
	const group = "/apis/wardle.example.com"
	if code, _, b := f.do("GET", group+"/v1/flunders", ""); code != 404 || string(b) != "404 page not found\n" {
		t.Fatalf("before: %d %s", code, b)
	}
	f.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", `{"metadata":{"name":"v1.wardle.example.com"},"spec":{"group":"wardle.example.com",
		"version":"v1","groupPriorityMinimum":2000,"versionPriority":10,"insecureSkipTLSVerify":true,"service":{"namespace":"default","name":"wardle"}}}`)
	until(t, func() bool { code, _, _ := f.do("GET", group, ""); return code == 200 })
	for _, path := range []string{group + "/v1", group + "/v1/", group + "/v1/namespaces/default/flunders", group + "/v1/flunders?watch=1"} {
		if code, _, b := f.do("GET", path, ""); code != 503 || string(b) != "service unavailable\n" {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	const v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	if _, h, b := f.do("GET", "/apis", "", "Accept", v2); !strings.Contains(string(b), `{"metadata":{"name":"wardle.example.com"},"versions":[{"version":"v1","freshness":"Stale"}]}`) ||
		h.Get("ETag") == "" || h.Get("Cache-Control") != "public" {
		t.Errorf("%v %s", h, b)
	}
	if code, _, _ := f.do("GET", group+"/v1/flunders", "", "Authorization", "Bearer ann-token"); code != 403 {
		t.Errorf("somebody who may nothing: %d", code)
	}
	f.must(200, "DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wardle.example.com", "")
	until(t, func() bool { code, _, _ := f.do("GET", group, ""); return code == 404 })
}

// What is registered for the server itself says so at once, and what does not exist is answered as upstream does.
func TestUnserved(t *testing.T) {
	f := start(t)
	got := f.must(201, "POST", "/apis/apiregistration.k8s.io/v1/apiservices", `{"metadata":{"name":"v1.example.com"},"spec":{"group":"example.com",
		"version":"v1","groupPriorityMinimum":2000,"versionPriority":10},"status":{"conditions":[{"type":"Available","status":"False","reason":"Forged"}]}}`)
	conditions := got["status"].(map[string]any)["conditions"].([]any)
	if c := conditions[0].(map[string]any); len(conditions) != 1 || c["reason"] != "Local" || c["status"] != "True" {
		t.Errorf("conditions: %v", conditions)
	}
	for path, want := range map[string]int{"/api/v1/nobody": 404, "/apis/apps/v9/deployments": 404, "/apis/apps/v9": 404, "/api/v1/namespaces/default/pods/x/nobody": 404} {
		if st := f.must(want, "GET", path, ""); st["kind"] != "Status" || st["reason"] != "NotFound" {
			t.Errorf("%s: %v", path, st)
		}
	}
	for _, path := range []string{"/apis/nobody", "/apis/nobody/v1", "/apis/nobody/v1/x", "/nobody"} {
		if code, _, b := f.do("GET", path, ""); code != 404 || string(b) != "404 page not found\n" {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
	if st := f.must(405, "DELETE", "/apis/apps/v1", ""); st["reason"] != "MethodNotAllowed" {
		t.Errorf("%v", st)
	}
}
