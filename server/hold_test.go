package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/rest"
)

// shortServer is a server whose requests may take only a moment, and so may the writes of its watches.
func shortServer(t *testing.T, timeout time.Duration) *httptest.Server {
	t.Helper()
	srv, err := server.New(server.Config{SlowWatch: timeout, Store: openStore(t), Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers, RequestTimeout: timeout,
		Authorizer: rootOnly, Admission: &admission.Chain{}, Extensions: &rest.Extensions{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(srv.Handler())
	t.Cleanup(h.Close)
	return h
}

// TestSlowBody sends half a body and then nothing: the request ends with its time, not with the client's patience.
func TestSlowBody(t *testing.T) {
	h := shortServer(t, 100*time.Millisecond)
	c, err := net.Dial("tcp", h.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root-token\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n{", cm)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(b), `"Timeout"`) {
		t.Errorf("got %d %s", res.StatusCode, b)
	}
}

// TestSlowWatcher: a client that does not read its watch is cut off, and another one gets every event.
func TestSlowWatcher(t *testing.T) {
	h := shortServer(t, 300*time.Millisecond)
	send := func(method, path, body string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer root-token")
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	send("POST", "/api/v1/namespaces", `{"metadata":{"name":"default"}}`).Body.Close()
	slow, err := net.Dial("tcp", h.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "GET %s?watch=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root-token\r\n\r\n", cm)
	res, err := http.ReadResponse(bufio.NewReader(slow), nil) // the watch has begun
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	good := send("GET", cm+"?watch=1", "")
	defer good.Body.Close()
	const events, size = 30, 500 << 10 // more than the sockets hold
	told := make(chan error, 1)
	go func() {
		lines := bufio.NewReaderSize(good.Body, 1<<20)
		for i := range events {
			if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, fmt.Sprintf(`"name":"c%d"`, i)) {
				told <- fmt.Errorf("event %d: %.100s %v", i, line, err)
				return
			}
		}
		told <- nil
	}()
	for i := range events {
		send("POST", cm, fmt.Sprintf(`{"metadata":{"name":"c%d"},"data":{"a":%q}}`, i, strings.Repeat("x", size))).Body.Close()
	}
	if err := <-told; err != nil {
		t.Fatalf("the good watcher: %v", err)
	}
	for watches := ""; !strings.HasSuffix(watches, " 1"); { // until the slow one is cut off
		res := send("GET", "/metrics", "")
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, watches, _ = strings.Cut(string(b), `apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps"`)
		watches, _, _ = strings.Cut(watches, "\n")
	}
	if n, err := io.Copy(io.Discard, res.Body); err == nil || n >= events*size {
		t.Errorf("the slow watcher got %d bytes: %v", n, err)
	}
}

// TestIdleConnections: connections that ask for nothing keep nobody from being answered.
func TestIdleConnections(t *testing.T) {
	h := shortServer(t, time.Minute)
	for range 2000 {
		c, err := net.Dial("tcp", h.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", h.URL+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("status %d", res.StatusCode)
	}
}

// TestNested: what is nested ten thousand deep is refused, in every format and kind of patch.
func TestNested(t *testing.T) {
	f := start(t)
	const deep = 20000
	f.must(201, "POST", cm, `{"metadata":{"name":"a"}}`)
	asJSON := `{"metadata":{"name":"x"},"data":` + strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep) + "}"
	asYAML := "data: " + strings.Repeat("[", deep) + strings.Repeat("]", deep)
	for _, c := range []struct{ method, path, contentType, body string }{
		{"POST", cm, "application/json", asJSON},
		{"POST", cm, "application/yaml", asYAML},
		{"PATCH", cm + "/a", "application/merge-patch+json", asJSON},
		{"PATCH", cm + "/a", "application/strategic-merge-patch+json", asJSON},
		{"PATCH", cm + "/a", "application/json-patch+json", `[{"op":"add","path":"/data","value":` + asJSON + `}]`},
		{"PATCH", cm + "/a?fieldManager=m", "application/apply-patch+yaml", asYAML},
		{"DELETE", cm + "/a", "application/json", asJSON},
	} {
		code, _, b := f.do(c.method, c.path, c.body, "Content-Type", c.contentType)
		if code < 400 || code >= 500 {
			t.Errorf("%s %s: %d %.200s", c.method, c.contentType, code, b)
		}
	}
}

var bodyTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/merge-patch+json",
	"application/strategic-merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor", "", ";"}

// FuzzBodies sends whatever as a body, of whatever type: the answer is never that the server failed.
func FuzzBodies(f *testing.F) {
	for i, body := range []string{`{"metadata":{"name":"x"},"data":{"a":"b"}}`, "metadata:\n  name: x", "k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x00",
		`{"data":{"a":null}}`, `{"metadata":{"$patch":"replace"}}`, `[{"op":"test","path":"/data/a","value":1},{"op":"copy","from":"/metadata","path":"/data"}]`,
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}\ndata: {x: 1}", "\xd9\xd9\xf7\xa0", "{", "null"} {
		for m := range byte(4) {
			f.Add(m, byte(i), []byte(body))
		}
	}
	fix := start(f)
	h := fix.srv.Handler()
	fix.must(201, "POST", cm, `{"metadata":{"name":"p"},"data":{"a":"b"}}`)
	fix.must(201, "POST", "/api/v1/namespaces/default/pods", `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	f.Fuzz(func(t *testing.T, what, kind byte, body []byte) {
		target := []struct{ method, path string }{{"POST", cm}, {"PUT", cm + "/p"}, {"PATCH", cm + "/p?fieldManager=m&force=true"},
			{"PATCH", "/api/v1/namespaces/default/pods/p?fieldManager=m"}, {"DELETE", cm + "/none"}, {"POST", "/api/v1/namespaces/default/pods?dryRun=All"}}[what%6]
		r := httptest.NewRequest(target.method, target.path, strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer root-token")
		r.Header.Set("Content-Type", bodyTypes[int(kind)%len(bodyTypes)])
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		// An apply whose types are wrong is 500, as upstream's is.
		if w.Code >= 500 && !strings.Contains(w.Body.String(), "failed to create typed patch object") {
			t.Errorf("%s %s with %q of %q: %d %s", target.method, target.path, body, r.Header.Get("Content-Type"), w.Code, w.Body)
		}
	})
}

// FuzzQueries sends whatever as the options of a list.
func FuzzQueries(f *testing.F) {
	for _, s := range []string{"labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "timeoutSeconds", "timeout", "pretty", "includeObject"} {
		for _, v := range []string{"a", "=", "a in (b,c),!d", "metadata.name=x", "1", "-1", "99999999999999999999", "a==b,a!=b", "Exact", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0"} {
			f.Add(s, v, "limit", "2")
		}
	}
	fix := start(f)
	h := fix.srv.Handler()
	for i := range 5 {
		fix.must(201, "POST", cm, fmt.Sprintf(`{"metadata":{"name":"c%d","labels":{"a":"b"}}}`, i))
	}
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		if k1 == "watch" || k2 == "watch" {
			return
		}
		// A revision of the future is waited for.
		if v := url.Values(map[string][]string{k1: {v1}, k2: {v2}}); len(v.Get("resourceVersion")) > 3 || v.Has("continue") && strings.Contains(v.Get("continue"), "J2") && len(v.Get("continue")) > 60 {
			return
		}
		r := httptest.NewRequest("GET", cm+"?"+url.QueryEscape(k1)+"="+url.QueryEscape(v1)+"&"+url.QueryEscape(k2)+"="+url.QueryEscape(v2), nil)
		r.Header.Set("Authorization", "Bearer root-token")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusGatewayTimeout {
			t.Errorf("%q=%q %q=%q: %d %s", k1, v1, k2, v2, w.Code, w.Body)
		}
	})
}

// TestMetricsNames: dashboards and alerts look for these.
func TestMetricsNames(t *testing.T) {
	f := start(t)
	f.must(201, "POST", cm, `{"metadata":{"name":"a"}}`)
	f.must(200, "GET", cm, "")
	f.do("GET", cm+"/none", "")
	f.do("GET", "/readyz", "")
	_, h, b := f.do("GET", "/metrics", "")
	if h.Get("Process-Start-Time-Unix") == "" {
		t.Error("no start time")
	}
	for _, want := range []string{
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_response_sizes_count{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1`,
		`apiserver_current_inflight_requests{request_kind="mutating"} 0`,
		`apiserver_storage_objects{resource="configmaps"} 1`, `apiserver_flowcontrol_nominal_limit_seats{priority_level="catch-all"}`,
		`apiserver_flowcontrol_dispatched_requests_total{flow_schema=`, `kubernetes_build_info{`, `go_goroutines`, `process_start_time_seconds`,
		`kubernetes_healthchecks_total{name="ping",status="success",type="readyz"} 1`, `authentication_attempts{result="success"}`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("there is no %s", want)
		}
	}
}

func TestHealthPages(t *testing.T) {
	f := start(t)
	for _, c := range []struct{ path, want string }{
		{"/livez?verbose", "livez check passed"},
		{"/readyz?verbose&exclude=etcd", "[+]etcd excluded: ok\n"},
		{"/readyz?verbose&exclude=nope,never", `warn: some health checks cannot be excluded: no matches for "nope","never"`},
		{"/healthz/poststarthook/rbac/bootstrap-roles", "ok"},
		{"/livez/etcd", "ok"},
		{"/statusz", "Binary version: 1.36"},
		{"/flagz", "apiserver flagz"},
		{"/metrics/slis", `kubernetes_healthcheck{name="etcd",type="livez"} 1`},
		{"/debug/pprof/cmdline", "server.test"},
		{"/debug/api_priority_and_fairness/dump_priority_levels", "catch-all,"},
		{"/debug/api_priority_and_fairness/dump_queues", "PriorityLevelName, "},
	} {
		if code, _, b := f.do("GET", c.path, ""); code != 200 || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %d %s", c.path, code, b)
		}
	}
	_, _, b := f.do("GET", "/readyz?verbose", "")
	order := []string{"start-system-namespaces-controller", "storage-readiness", "rbac/bootstrap-roles", "bootstrap-controller",
		"start-kube-aggregator-informers", "kube-apiserver-autoregistration"}
	for i := 1; i < len(order); i++ {
		if strings.Index(string(b), order[i-1]) > strings.Index(string(b), order[i]) {
			t.Errorf("%s comes after %s: %s", order[i-1], order[i], b)
		}
	}
	if code, _, _ := f.do("GET", "/livez/informer-sync", ""); code != 404 {
		t.Errorf("a check of another root: %d", code)
	}
	if code, _, _ := f.do("GET", "/debug/pprof/", "", "Authorization", "Bearer eve-token"); code != 403 {
		t.Errorf("profiles for everybody: %d", code)
	}
}
