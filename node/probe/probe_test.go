package probe

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/node/lifecycle"
)

func TestCounter(t *testing.T) {
	p := &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	var c Counter
	want := []struct {
		o  Outcome
		r  lifecycle.Result
		ok bool
	}{{Good, 0, false}, {Bad, 0, false}, {Bad, 0, false}, {Broken, 0, false}, {Bad, lifecycle.Failure, true}, {Good, 0, false}, {Warning, lifecycle.Success, true}, {Bad, 0, false}, {Good, 0, false}}
	for i, w := range want {
		if r, ok := c.Add(w.o, p); r != w.r || ok != w.ok {
			t.Errorf("answer %d: %v %v", i, r, ok)
		}
	}
}

func TestHTTP(t *testing.T) {
	agent := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/away":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/ok", http.StatusFound)
		}
	}))
	defer srv.Close()
	p := &Prober{Version: "v1.36.3"}
	for path, want := range map[string]Outcome{"/ok": Good, "/bad": Bad, "/away": Warning, "/near": Good} {
		u, err := url.Parse(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if got, message := p.http(context.Background(), u, http.Header{}); got != want {
			t.Errorf("%s: %v %s", path, got, message)
		}
	}
	if !strings.HasPrefix(agent, "kube-probe/1.36") {
		t.Errorf("the agent is %s", agent)
	}
}
