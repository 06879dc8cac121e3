package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
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

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/rest"
)

// TestSmallInputsThatGrow: what is short on the wire and huge in memory is refused.
func TestSmallInputsThatGrow(t *testing.T) {
	f := start(t)
	var laughs strings.Builder // each line is nine times the one before it
	laughs.WriteString("metadata: {name: x}\na0: &a0 [lol]\n")
	for i := range 12 {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	f.must(201, "POST", cm, `{"metadata":{"name":"a"},"data":{"k":"v"}}`)
	doubling := strings.Repeat(`{"op":"copy","from":"","path":"/data/x"},`, 40) // each copy holds all the copies before it
	keys := strings.Repeat("x", 300)
	for _, c := range []struct{ name, method, path, contentType, body string }{
		{"aliases", "POST", cm, "application/yaml", laughs.String()},
		{"aliases in an apply", "PATCH", cm + "/a?fieldManager=m", "application/apply-patch+yaml", laughs.String()},
		{"copies of the whole", "PATCH", cm + "/a", "application/json-patch+json", "[" + strings.TrimSuffix(doubling, ",") + "]"},
		{"ten thousand operations", "PATCH", cm + "/a", "application/json-patch+json", "[" + strings.Repeat(`{"op":"test","path":"/data/k","value":"v"},`, 10001) + `{"op":"test","path":"/data/k","value":"v"}]`},
		{"an endless number", "POST", cm, "application/json", `{"metadata":{"name":"n","generation":1e999999999}}`},
		{"a key that is too long", "POST", cm, "application/json", `{"metadata":{"name":"n"},"data":{"` + keys + `":""}}`},
	} {
		code, _, b := f.do(c.method, c.path, c.body, "Content-Type", c.contentType)
		if code < 400 || code >= 500 {
			t.Errorf("%s: %d %.200s", c.name, code, b)
		}
	}
}

// TestBadTokensAndSelectors: continue tokens and selectors that no server gave out are the client's mistake.
func TestBadTokensAndSelectors(t *testing.T) {
	f := start(t)
	token := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	many := strings.TrimSuffix(strings.Repeat("a=b,", 20000), ",")
	for _, query := range []string{
		"limit=1&continue=" + token(`{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/x"}`),
		"limit=1&continue=" + token(`{"v":"meta.k8s.io/v1","rv":-5,"start":"a"}`),
		"limit=1&continue=" + token(`{"v":"meta.k8s.io/v9","rv":1,"start":"a"}`),
		"limit=1&continue=" + token(`{"v":"meta.k8s.io/v1","rv":1,"start":""}`),
		"limit=1&continue=" + token(strings.Repeat("[", 10000)),
		"labelSelector=" + url.QueryEscape("a in ("),
		"labelSelector=" + url.QueryEscape(strings.Repeat("a", 300)+"=b"),
		"labelSelector=" + url.QueryEscape("a="+strings.Repeat("b", 300)),
		"fieldSelector=" + url.QueryEscape(`metadata.name=\`),
		"fieldSelector=" + many,
		"limit=-x", "resourceVersion=-1", "resourceVersion=5&resourceVersionMatch=Nonsense", "sendInitialEvents=true",
	} {
		if code, _, b := f.do("GET", cm+"?"+query, ""); code < 400 || code >= 500 {
			t.Errorf("%.100s: %d %.200s", query, code, b)
		}
	}
	// What is long but right is answered.
	if code, _, b := f.do("GET", cm+"?labelSelector="+many, ""); code != 200 {
		t.Errorf("many requirements: %d %.200s", code, b)
	}
}

// hostile is a definition with a schema of the attacker's.
func hostile(schema string) string {
	return `{"metadata":{"name":"traps.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"traps","kind":"Trap"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":` + schema + `}}]}}`
}

// TestHostileDefinitions: schemas and rules that would cost too much are refused when they are written.
func TestHostileDefinitions(t *testing.T) {
	f := start(t)
	nest := func(n int, inner string) string {
		return strings.Repeat(`{"type":"object","properties":{"a":`, n) + inner + strings.Repeat("}}", n)
	}
	ruled := func(field, rule string) string {
		return `{"type":"object","properties":{"spec":{` + field + `,"x-kubernetes-validations":[{"rule":"` + rule + `"}]}}}`
	}
	text := `{"type":"string"}`
	for name, c := range map[string]struct{ schema, want string }{
		"a rule over unbounded lists": {ruled(`"type":"object","properties":{"l":{"type":"array","items":`+text+`}}`, "self.l.all(x, self.l.all(y, self.l.all(z, x != y)))"), "cost"},
		"a rule that never ends":      {ruled(`"type":"string"`, strings.Repeat("(", 5000)+"self"+strings.Repeat(")", 5000)), ""},
		"a rule of a megabyte":        {ruled(`"type":"string"`, "self == '"+strings.Repeat("x", 1<<20)+"'"), ""},
		"a rule with a wild pattern":  {ruled(`"type":"string"`, "self.matches('(a*)*(')"), ""},
		"a pattern that is none":      {`{"type":"object","properties":{"s":{"type":"string","pattern":"(a"}}}`, "pattern"},
		"a schema without type":       {`{"properties":{"a":{"properties":{"b":{}}}}}`, "type"},
		"nested two thousand deep":    {nest(2000, text), ""},
		"a default that does not fit": {`{"type":"object","properties":{"a":{"type":"integer","default":"` + strings.Repeat("x", 1<<16) + `"}}}`, "default"},
		"a reference":                 {`{"type":"object","properties":{"a":{"$ref":"#/properties/a"}}}`, "$ref"},
	} {
		code, _, b := f.do("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", hostile(c.schema))
		if name == "nested two thousand deep" && code == 201 { // it costs little, and nobody can use it for more
			f.do("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/traps.example.com", "")
			continue
		}
		if code < 400 || code >= 500 || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %d %.300s", name, code, b)
			f.do("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/traps.example.com", "")
		}
	}
}

// TestHostileExpressions: the expressions of admission objects that would cost too much are refused, too.
func TestHostileExpressions(t *testing.T) {
	f := &fixture{t: t}
	var err error
	f.srv, err = server.New(server.Config{Store: memstore.New(), Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers,
		Authorizer: rootOnly, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f.http = httptest.NewServer(f.srv.Handler())
	defer f.http.Close()
	const policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
	for name, rule := range map[string]string{
		"endless":   strings.Repeat("(", 5000) + "true" + strings.Repeat(")", 5000),
		"no rule":   "object.spec.",
		"not true":  "'a'",
		"megabytes": "object == '" + strings.Repeat("x", 2<<20) + "'",
	} {
		body := `{"metadata":{"name":"p"},"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"]}]},
"validations":[{"expression":"` + rule + `"}]}}`
		if code, _, b := f.do("POST", policies, body); code < 400 || code >= 500 {
			t.Errorf("%s: %d %.300s", name, code, b)
			f.do("DELETE", policies+"/p", "")
		}
	}
}

// running is a server that listens, until the test ends, and a client that believes its certificate.
func running(t *testing.T, c server.Config) (addr string, hc *http.Client) {
	t.Helper()
	var err error
	if c.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	lend := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(lend.Close)
	c.Store, c.Kinds, c.TLS, c.Log = memstore.New(), api.NewTable(builtin.Kinds()...), lend.TLS, slog.New(slog.DiscardHandler)
	c.Admission, c.Extensions = &admission.Chain{}, &rest.Extensions{}
	srv, err := server.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	if err := srv.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	hc = lend.Client()
	hc.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	return c.Listener.Addr().String(), hc
}

// TestLargeHeaders: a head of a request that goes on and on is cut off, and the connection with it.
func TestLargeHeaders(t *testing.T) {
	addr, hc := running(t, server.Config{Authenticator: tokenUsers, Authorizer: rootOnly})
	ask := func(header string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+addr+"/livez", nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-Long", header)
		res, err := hc.Do(req)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	if code, err := ask(strings.Repeat("x", 2<<20)); err == nil && code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("two megabytes of a header: %d", code)
	}
	if code, err := ask(strings.Repeat("x", 64<<10)); err != nil || code != http.StatusOK {
		t.Errorf("64 KiB of a header: %d, %v", code, err)
	}
}

// TestBodiesOfTheRefused: who is refused for other reasons than the body cannot keep the connection by never sending it.
func TestBodiesOfTheRefused(t *testing.T) {
	t.Parallel()
	h := shortServer(t, time.Minute)
	for _, token := range []string{"nonsense", "eve-token"} {
		c, err := net.Dial("tcp", h.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", cm, token)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{"nonsense": 401, "eve-token": 403}[token]; res.StatusCode != want {
			t.Errorf("%s: %d", token, res.StatusCode)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection goes on: %d, %v", n, err)
		}
	}
}

// TestFloodLeavesTheSystem: a user's requests take all seats that they can get and keep them, and the cluster's own requests
// are answered all the same.
func TestFloodLeavesTheSystem(t *testing.T) {
	t.Parallel()
	groups := map[string][]string{"root": {user.AllAuthenticated}, "system:node:a": {user.NodesGroup, user.AllAuthenticated},
		"admin": {user.SystemPrivilegedGroup, user.AllAuthenticated}, "system:kube-scheduler": {user.AllAuthenticated}}
	who := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		name := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: groups[name]}}, true, nil
	})
	addr, hc := running(t, server.Config{Authenticator: who, MaxRequestsInFlight: 20, MaxMutatingInFlight: 10, AuthorizationModes: []string{"AlwaysAllow"}})
	ask := func(user, method, path, body string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, "https://"+addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+user)
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		res, err := hc.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return 0, err.Error()
		}
		return res.StatusCode, string(b)
	}
	for ready := false; !ready; { // the schemas that every cluster has are written at the start
		_, b := ask("admin", "GET", "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "")
		ready = strings.Contains(b, "system-nodes") && strings.Contains(b, "kube-scheduler")
	}
	const flood = 400 // many times what has seats
	answers := make(chan int, flood)
	for range flood {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		// A body that does not come keeps the seat.
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{", cm)
		go func() {
			if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
				answers <- res.StatusCode
			}
		}()
	}
	// The flood is there when some of it is turned away.
	select {
	case code := <-answers:
		if code != http.StatusTooManyRequests {
			t.Errorf("the flood is answered with %d", code)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody of the flood is turned away")
	}
	for _, c := range []struct{ user, method, path, body string }{
		{"system:node:a", "GET", "/api/v1/nodes", ""},
		{"system:node:a", "POST", "/api/v1/nodes", `{"metadata":{"name":"a"}}`},
		{"system:kube-scheduler", "GET", "/api/v1/pods", ""},
		{"admin", "POST", "/api/v1/namespaces", `{"metadata":{"name":"x"}}`},
		{"probe", "GET", "/livez", ""},
	} {
		if code, b := ask(c.user, c.method, c.path, c.body); code/100 != 2 {
			t.Errorf("%s %s: %d %.200s", c.user, c.path, code, b)
		}
	}
}
