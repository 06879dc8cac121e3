package aggregation

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/discovery"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
)

// writer is a client that writes to the store alone.
type writer struct{ st *memstore.Store }

func (w writer) Create(ctx context.Context, k *api.Kind, o api.Object, _ metav1.CreateOptions) (api.Object, error) {
	e, err := w.st.Create(ctx, k.Key(o.GetNamespace(), o.GetName()), o, 0)
	if err != nil {
		return nil, apierrors.NewAlreadyExists(k.GroupResource(), o.GetName())
	}
	return e.Object, nil
}

func (w writer) Update(ctx context.Context, k *api.Kind, o api.Object, _ string, _ metav1.UpdateOptions) (api.Object, error) {
	rev, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return nil, err
	}
	e, err := w.st.Update(ctx, k.Key(o.GetNamespace(), o.GetName()), rev, o, 0)
	if err != nil {
		return nil, apierrors.NewConflict(k.GroupResource(), o.GetName(), err)
	}
	return e.Object, nil
}

func (w writer) Delete(_ context.Context, _ *api.Kind, _, name string, _ metav1.DeleteOptions) error {
	w.st.Remove(&apiService{ObjectMeta: metav1.ObjectMeta{Name: name}})
	return nil
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert = a.sign(tmpl, tmpl, key)
	return a
}

func (a *authority) sign(c, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func (a *authority) issue(name string, usage x509.ExtKeyUsage) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c := a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{usage}}, a.cert, key)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// extension is an extension API server for wardle.example.com/v1, which speaks to the front proxy alone.
type extension struct {
	*httptest.Server
	ca   *authority
	sick atomic.Bool // answers 500 to everything
	last atomic.Pointer[http.Request]
}

const extensionIndex = `{"paths":{"apis/wardle.example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/wardle.example.com/v1?hash=AB"},
	"version":{"serverRelativeURL":"/openapi/v3/version?hash=CD"}}}`

func (e *extension) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.sick.Load() {
		http.Error(w, "sick", http.StatusInternalServerError)
		return
	}
	switch r.URL.Path {
	case "/apis":
		w.Header().Set("Content-Type", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_ = json.NewEncoder(w).Encode(apidiscoveryv2.APIGroupDiscoveryList{Items: []apidiscoveryv2.APIGroupDiscovery{{
			ObjectMeta: metav1.ObjectMeta{Name: "wardle.example.com"},
			Versions: []apidiscoveryv2.APIVersionDiscovery{{Version: "v1", Resources: []apidiscoveryv2.APIResourceDiscovery{
				{Resource: "flunders", Scope: apidiscoveryv2.ScopeNamespace, Verbs: []string{"get"}}}}}}}})
	case "/openapi/v3":
		_, _ = io.WriteString(w, extensionIndex)
	case "/openapi/v3/apis/wardle.example.com/v1":
		_, _ = io.WriteString(w, "{}")
	case "/openapi/v2":
		_, _ = io.WriteString(w, `{"swagger":"2.0","paths":{"/apis/wardle.example.com/v1/flunders":{},"/apis/other/":{}},"definitions":{}}`)
	case "/apis/wardle.example.com/v1":
		_, _ = io.WriteString(w, `{"kind":"APIResourceList"}`)
	case "/apis/wardle.example.com/v1/elsewhere":
		http.Redirect(w, r, "https://example.org/", http.StatusFound)
	case "/apis/wardle.example.com/v1/stream":
		rc := http.NewResponseController(w)
		for i := range 3 {
			fmt.Fprintf(w, "%d\n", i)
			_ = rc.Flush()
		}
		<-r.Context().Done()
	case "/apis/wardle.example.com/v1/upgrade":
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buf.ReadString('\n')
		fmt.Fprintf(conn, "%s %s", r.Header.Get("X-Remote-User"), line)
	default:
		e.last.Store(r.Clone(context.Background()))
		_, _ = io.WriteString(w, "hello")
	}
}

func newExtension(t *testing.T, proxies *authority) *extension {
	e := &extension{ca: newAuthority(t, "extension-ca")}
	e.Server = httptest.NewUnstartedServer(e)
	e.TLS = &tls.Config{Certificates: []tls.Certificate{*e.ca.issue("wardle.default.svc", x509.ExtKeyUsageServerAuth)},
		ClientCAs: proxies.pool(), ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"}}
	e.EnableHTTP2 = true
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *extension) slice() *discoveryv1.EndpointSlice {
	host, port, _ := net.SplitHostPort(e.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	name, p, ready := "", int32(n), true
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "wardle-1", Labels: map[string]string{discoveryv1.LabelServiceName: "wardle"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &p}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{host}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}}
}

func (e *extension) apiService() *apiService {
	port := int32(443)
	return &apiService{ObjectMeta: metav1.ObjectMeta{Name: "v1.wardle.example.com", UID: "1"},
		Spec: apiregistrationv1.APIServiceSpec{Group: "wardle.example.com", Version: "v1", GroupPriorityMinimum: 2000, VersionPriority: 10, CABundle: e.ca.pem(),
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "wardle", Port: &port}}}
}

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "wardle"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.9", Ports: []corev1.ServicePort{{Port: 443}}}}
}

// start runs a Server on a store.
func start(t *testing.T, st *memstore.Store, proxies *authority) *Server {
	cert := proxies.issue("front-proxy-client", x509.ExtKeyUsageClientAuth)
	s := New(Config{Store: st, Kinds: api.NewTable(builtin.Kinds()...), Client: writer{st}, Log: slog.New(slog.DiscardHandler),
		Certificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// until waits for something that a goroutine is about to do.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func reason(st *memstore.Store, name string) string {
	if o, ok := read.Get[*apiService](st, "", name); ok && condition(o) != nil {
		return condition(o).Reason
	}
	return ""
}

func TestAvailability(t *testing.T) {
	proxies := newAuthority(t, "front-proxy-ca")
	e := newExtension(t, proxies)
	st := memstore.New(e.apiService())
	s := start(t, st, proxies)
	is := func(want string) {
		t.Helper()
		until(t, want, func() bool { return reason(st, "v1.wardle.example.com") == want })
	}
	is("ServiceNotFound")
	if v := s.Remote("wardle.example.com", "v1").discovered(false); v.Freshness != apidiscoveryv2.DiscoveryFreshnessStale || len(v.Resources) != 0 {
		t.Errorf("before anything is known: %+v", v)
	}
	svc := service()
	svc.Spec.Ports[0].Port = 8443
	st.Put(svc)
	is("ServicePortError")
	st.Put(service())
	is("EndpointsNotFound")
	sl := e.slice()
	no := false
	sl.Endpoints[0].Conditions.Ready = &no
	st.Put(sl)
	is("MissingEndpoints")
	e.sick.Store(true)
	st.Put(e.slice())
	is("FailedDiscoveryCheck")
	o, _ := read.Get[*apiService](st, "", "v1.wardle.example.com")
	if m := condition(o).Message; !strings.Contains(m, "/apis/wardle.example.com/v1") || !strings.HasSuffix(m, ": 500") {
		t.Errorf("message %q", m)
	}
	e.sick.Store(false)
	is("Passed")
	until(t, "discovery", func() bool {
		for _, r := range s.Registrations().All {
			if r.Remote != nil && r.Remote.Freshness == apidiscoveryv2.DiscoveryFreshnessCurrent && len(r.Remote.Resources) == 1 &&
				r.Remote.Resources[0].Resource == "flunders" && r.Remote.Resources[0].ResponseKind != nil {
				return true
			}
		}
		return false
	})
	if got := s.V3Paths(); len(got) != 1 || got["apis/wardle.example.com/v1"] == "" {
		t.Errorf("version 3 documents: %v", got)
	}
	if got := s.Swaggers(t.Context()); len(got) != 1 || len(got[0].Doc.Paths.Paths) != 0 && got[0].Doc.Paths.Paths["/apis/other/"].Get != nil {
		t.Errorf("version 2 documents: %+v", got)
	}
	st.Remove(service())
	is("ServiceNotFound")
	until(t, "a stale document", func() bool {
		return slices.ContainsFunc(s.Registrations().All, func(r discovery.Registration) bool {
			return r.Remote != nil && r.Remote.Freshness == apidiscoveryv2.DiscoveryFreshnessStale && len(r.Remote.Resources) == 1
		})
	})
	st.Remove(e.apiService())
	until(t, "no remote", func() bool { return s.Remote("wardle.example.com", "v1") == nil })
}

// front is the API server before s, with one user.
func front(t *testing.T, s *Server, u user.Info) *httptest.Server {
	f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Audit-Id", "audit-1")
		w.Header().Set("Cache-Control", "no-cache, private")
		remote := s.Remote("wardle.example.com", "v1")
		if remote == nil {
			http.NotFound(w, r)
			return
		}
		s.Serve(w, r, u, remote)
	}))
	t.Cleanup(f.Close)
	return f
}

func available503(t *testing.T, base string) bool {
	resp, err := http.Get(base + "/apis/wardle.example.com/v1/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusServiceUnavailable
}

func TestProxy(t *testing.T) {
	proxies := newAuthority(t, "front-proxy-ca")
	e := newExtension(t, proxies)
	old := e.apiService() // it was available when the server stopped
	old.Status.Conditions = []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue}}
	st := memstore.New(old, service(), e.slice())
	loaded := New(Config{Store: st, Kinds: api.NewTable(), Client: writer{st}, Log: slog.New(slog.DiscardHandler)})
	if err := loaded.Load(t.Context()); err != nil || loaded.Discovered(t.Context()) == nil {
		t.Error("ready before anybody looked:", err)
	}
	s := start(t, st, proxies)
	f := front(t, s, &user.DefaultInfo{Name: "ann", UID: "u1", Groups: []string{"g1", "g2"}, Extra: map[string][]string{"example.org/scope": {"a", "b"}}})
	until(t, "Passed", func() bool { return reason(st, "v1.wardle.example.com") == "Passed" && !available503(t, f.URL) })

	if err := s.Discovered(t.Context()); err != nil {
		t.Error(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/apis/wardle.example.com/v1/namespaces/a%2Fb/flunders?x=1&y=%20", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"X-Remote-User", "X-Remote-Group", "X-Remote-Uid", "X-Remote-Extra-Scopes", "Authorization"} {
		req.Header.Set(h, "forged")
	}
	req.Header.Set("X-Forwarded-For", "192.0.2.7")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || string(body) != "hello" || len(resp.Header.Values("Audit-Id")) != 1 {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	got := e.last.Load()
	want := http.Header{"X-Remote-User": {"ann"}, "X-Remote-Uid": {"u1"}, "X-Remote-Group": {"g1", "g2"}, "X-Remote-Extra-Example.org%2fscope": {"a", "b"},
		"Audit-Id": {"audit-1"}}
	for k, v := range want {
		if !slices.Equal(got.Header[k], v) {
			t.Errorf("%s: %q, want %q", k, got.Header[k], v)
		}
	}
	for k, v := range got.Header {
		if slices.Contains(v, "forged") {
			t.Errorf("%s got through", k)
		}
	}
	if x := got.Header.Get("X-Forwarded-For"); x != "192.0.2.7, 127.0.0.1" {
		t.Errorf("X-Forwarded-For: %q", x)
	}
	if got.TLS.PeerCertificates[0].Subject.CommonName != "front-proxy-client" || got.ProtoMajor != 2 {
		t.Errorf("%v %s", got.TLS.PeerCertificates[0].Subject, got.Proto)
	}
	if got.URL.EscapedPath() != "/apis/wardle.example.com/v1/namespaces/a%2Fb/flunders" || got.URL.RawQuery != "x=1&y=%20" {
		t.Errorf("asked for %s", got.URL)
	}

	resp, err = http.Get(f.URL + "/apis/wardle.example.com/v1/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway || resp.Header.Get("Location") != "" {
		t.Errorf("a redirect got through: %d %v", resp.StatusCode, resp.Header)
	}
}

// What streams arrives as it is sent, and ends with the client.
func TestStreams(t *testing.T) {
	proxies := newAuthority(t, "front-proxy-ca")
	e := newExtension(t, proxies)
	st := memstore.New(e.apiService(), service(), e.slice())
	s := start(t, st, proxies)
	f := front(t, s, &user.DefaultInfo{Name: "ann"})
	until(t, "Passed", func() bool { return reason(st, "v1.wardle.example.com") == "Passed" && !available503(t, f.URL) })

	resp, err := http.Get(f.URL + "/apis/wardle.example.com/v1/stream")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != strconv.Itoa(i) {
			t.Fatalf("line %d: %q %v", i, lines.Text(), lines.Err())
		}
	}
	resp.Body.Close()

	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /apis/wardle.example.com/v1/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Remote-User: forged\r\n\r\n")
	buf := bufio.NewReader(conn)
	up, err := http.ReadResponse(buf, nil)
	if err != nil || up.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(up, err)
	}
	fmt.Fprintln(conn, "ping")
	if line, err := buf.ReadString('\n'); line != "ann ping\n" {
		t.Errorf("%q %v", line, err)
	}
}

// A server whose certificate is not the bundle's is not talked to.
func TestWrongAuthority(t *testing.T) {
	proxies := newAuthority(t, "front-proxy-ca")
	e := newExtension(t, proxies)
	o := e.apiService()
	o.Spec.CABundle = newAuthority(t, "another").pem()
	st := memstore.New(o, service(), e.slice())
	s := start(t, st, proxies)
	until(t, "FailedDiscoveryCheck", func() bool { return reason(st, o.Name) == "FailedDiscoveryCheck" })
	if !available503(t, front(t, s, &user.DefaultInfo{Name: "ann"}).URL) {
		t.Error("requests get through")
	}
	// Repaired, it is served.
	cur, _ := read.Get[*apiService](st, "", o.Name)
	cur = cur.DeepCopy()
	cur.Spec.CABundle, cur.Spec.InsecureSkipTLSVerify = nil, true
	st.Put(cur)
	until(t, "Passed", func() bool { return reason(st, o.Name) == "Passed" })
}

func TestRegister(t *testing.T) {
	crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "example.com", Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
			{Name: "v1", Served: true}, {Name: "v1alpha1"}}}}
	old := localService(read.Kind[*apiService]().GroupVersion(), customPriority, managedStart)
	old.Name, old.UID = "v1beta1.gone.example.com", "2"
	mine := localService(read.Kind[*corev1.Service]().GroupVersion(), customPriority, managedStart)
	mine.Labels = nil
	st := memstore.New(old, mine)
	s := start(t, st, newAuthority(t, "ca"))
	<-s.Registered()
	get := func(name string) *apiService {
		o, _ := read.Get[*apiService](st, "", name)
		return o
	}
	apps := get("v1.apps")
	if apps == nil || apps.Labels[managed] != managedStart || apps.Spec.GroupPriorityMinimum != 17800 || apps.Spec.VersionPriority != 15 {
		t.Errorf("%+v", apps)
	}
	if get("v1.apiregistration.k8s.io") != nil || get("v2.autoscaling").Spec.VersionPriority != 30 {
		t.Error("the built-in registrations are wrong")
	}
	if get(old.Name) != nil {
		t.Error("a group-version that is no more is still registered")
	}
	if get("v1.").Spec.GroupPriorityMinimum != 1000 {
		t.Error("what a user has taken over was changed")
	}
	until(t, "Local", func() bool { return reason(st, "v1.apps") == "Local" })
	st.Put(crd)
	until(t, "the custom resource's registration", func() bool { return reason(st, "v1.example.com") == "Local" })
	if get("v1alpha1.example.com") != nil || get("v1.example.com").Labels[managed] != managedOn {
		t.Error("the custom registrations are wrong")
	}
	st.Remove(get("v1.example.com"))
	st.Remove(get("v1.apps"))
	until(t, "its return", func() bool { return get("v1.example.com") != nil })
	if get("v1.apps") != nil {
		t.Error("a built-in registration is the user's between two starts")
	}
	st.Remove(crd)
	until(t, "its end", func() bool { return get("v1.example.com") == nil })
}
