package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
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

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	clientrest "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	streamingrc "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/rest"
)

// fakeKubelet serves a node's API: logs that tell their own address, and an exec that echoes its input.
func fakeKubelet(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/containerLogs/default/early/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "c is waiting to start", http.StatusBadRequest)
	})
	mux.HandleFunc("/containerLogs/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s?%s", r.URL.Path, r.URL.RawQuery) })
	mux.HandleFunc("/exec/", func(w http.ResponseWriter, r *http.Request) {
		opts, err := streamingrc.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		streamingrc.ServeExec(w, r, echo{}, "p", "u", "c", r.URL.Query()["command"], opts, time.Minute, time.Minute, streamingrc.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<a href="/elsewhere">link</a>`)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/page", http.StatusFound) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "node %s", r.URL) })
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

type echo struct{}

func (echo) ExecInContainer(_ context.Context, _, _, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser, _ bool, _ <-chan streamingrc.TerminalSize, _ time.Duration) error {
	fmt.Fprintf(errOut, "%v", cmd)
	_, err := io.Copy(out, in)
	return err
}

func TestStreams(t *testing.T) {
	kubelet := fakeKubelet(t)
	st := openStore(t)
	srv, err := server.New(server.Config{Store: st, Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers, Authorizer: rootOnly,
		Admission: &admission.Chain{}, Extensions: &rest.Extensions{}, KubeletClientTLS: &tls.Config{InsecureSkipVerify: true}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(srv.Handler())
	t.Cleanup(h.Close)
	f := &fixture{t: t, srv: srv, http: h}
	host, port, err := net.SplitHostPort(kubelet.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f.must(201, "POST", "/api/v1/nodes", `{"metadata":{"name":"n"},"status":{"addresses":[{"type":"InternalIP","address":"`+host+`"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":`+port+`}}}}`)
	const pods = "/api/v1/namespaces/default/pods"
	f.must(201, "POST", pods, `{"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`)

	code, _, b := f.do("GET", pods+"/p/log?tailLines=3&container=c", "")
	if code != 200 || string(b) != "/containerLogs/default/p/c?tailLines=3" {
		t.Errorf("log: %d %s", code, b)
	}
	f.must(201, "POST", pods, `{"metadata":{"name":"early"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`)
	if got := f.must(400, "GET", pods+"/early/log", ""); got["message"] != "c is waiting to start" || got["reason"] != "BadRequest" {
		t.Errorf("log that the node has not: %v", got)
	}
	if got := f.must(400, "GET", pods+"/p/log?container=x", ""); got["message"] != "container x is not valid for pod p" {
		t.Errorf("log of a wrong container: %v", got)
	}
	if code, _, b = f.do("GET", "/api/v1/nodes/n/proxy/stats/summary?a=b", ""); code != 200 || string(b) != "node /stats/summary?a=b" {
		t.Errorf("node proxy: %d %s", code, b)
	}
	const proxy = "/api/v1/nodes/n/proxy"
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if code, _, b = f.do(method, proxy+"/x", ""); code != 200 || string(b) != "node /x" {
			t.Errorf("%s through a proxy: %d %s", method, code, b)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req := httptest.NewRequest(method, proxy+"?a=b", nil)
		req.Header.Set("Authorization", "Bearer root-token")
		rec := httptest.NewRecorder()
		if srv.Handler().ServeHTTP(rec, req); rec.Code != http.StatusMovedPermanently || rec.Header().Get("Location") != proxy+"/?a=b" {
			t.Errorf("%s of a proxy's own path: %d to %q", method, rec.Code, rec.Header().Get("Location"))
		}
	}
	for _, path := range []string{"/page", "/moved"} { // the client follows redirects, which must stay below the proxy
		if code, _, b = f.do("GET", proxy+path, ""); code != 200 || string(b) != `<a href="`+proxy+`/elsewhere">link</a>` {
			t.Errorf("links of a proxied page %s: %d %s", path, code, b)
		}
	}
	if got := f.must(400, "POST", pods+"/p/exec?command=x&stdout=true", ""); !strings.Contains(got["message"].(string), "Upgrade request required") {
		t.Errorf("exec without an upgrade: %v", got)
	}

	u, err := url.Parse(h.URL + pods + "/p/exec")
	if err != nil {
		t.Fatal(err)
	}
	q, err := scheme.ParameterCodec.EncodeParameters(&corev1.PodExecOptions{Container: "c", Command: []string{"a", "b"},
		Stdin: true, Stdout: true, Stderr: true}, corev1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = q.Encode()
	cfg := &clientrest.Config{Host: h.URL, BearerToken: "root-token"}
	ws, err := remotecommand.NewWebSocketExecutor(cfg, "GET", u.String())
	if err != nil {
		t.Fatal(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(cfg, "POST", u)
	if err != nil {
		t.Fatal(err)
	}
	for name, ex := range map[string]remotecommand.Executor{"websocket": ws, "spdy": spdy} {
		var out, errOut bytes.Buffer
		err := ex.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errOut})
		if err != nil || out.String() != "hello" || errOut.String() != "[a b]" {
			t.Errorf("%s: %v %q %q", name, err, out.String(), errOut.String())
		}
	}
}
