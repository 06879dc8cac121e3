package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	clientrest "k8s.io/client-go/rest"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store"
)

var root = &user.DefaultInfo{Name: "root", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// tokenUsers authenticates the bearer token "X-token" as user X.
var tokenUsers = authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
	t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, false, nil
	}
	name, ok := strings.CutSuffix(t, "-token")
	if !ok {
		return nil, false, io.ErrUnexpectedEOF
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: []string{user.AllAuthenticated}}}, true, nil
})

// rootOnly lets root do everything, and nobody else anything.
var rootOnly = authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "root" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
})

type fixture struct {
	t    testing.TB
	srv  *server.Server
	http *httptest.Server
}

// openStore makes the store under test.
var openStore = func(testing.TB) store.Store { return memstore.New() }

func start(t testing.TB) *fixture {
	t.Helper()
	srv, err := server.New(server.Config{Store: openStore(t), Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers,
		Authorizer: rootOnly, Admission: &admission.Chain{}, Extensions: &rest.Extensions{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(srv.Handler())
	t.Cleanup(h.Close)
	f := &fixture{t: t, srv: srv, http: h}
	f.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"default"}}`)
	return f
}

func (f *fixture) client() *kubernetes.Clientset {
	f.t.Helper()
	c, err := kubernetes.NewForConfig(&clientrest.Config{Host: f.http.URL, BearerToken: "root-token", QPS: -1})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// do sends a request as root; headers are given in pairs.
func (f *fixture) do(method, path, body string, headers ...string) (int, http.Header, []byte) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.http.URL+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer root-token")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res.StatusCode, res.Header, b
}

// must is do with an expected status; it returns the body as a tree.
func (f *fixture) must(code int, method, path, body string, headers ...string) map[string]any {
	f.t.Helper()
	got, _, b := f.do(method, path, body, headers...)
	if got != code {
		f.t.Fatalf("%s %s: got %d, want %d: %s", method, path, got, code, b)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		f.t.Fatalf("%s %s: %v: %s", method, path, err, b)
	}
	return out
}

func (f *fixture) status(b []byte) metav1.Status {
	f.t.Helper()
	var s metav1.Status
	if err := json.Unmarshal(b, &s); err != nil {
		f.t.Fatalf("%v: %s", err, b)
	}
	return s
}

const cm = "/api/v1/namespaces/default/configmaps"

func TestBadInput(t *testing.T) {
	f := start(t)
	f.must(201, "POST", cm, `{"metadata":{"name":"there"},"data":{"a":"1"}}`)
	big := `{"metadata":{"name":"big"},"data":{"a":"` + strings.Repeat("x", 4<<20) + `"}}`
	merge := []string{"Content-Type", "application/merge-patch+json"}
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		reason                   metav1.StatusReason
		message                  string // a part of it
	}{
		{"malformed JSON", "POST", cm, `{"metadata":`, nil, 400, "BadRequest", "unexpected end of JSON input"},
		{"malformed YAML", "POST", cm, "a: [", []string{"Content-Type", "application/yaml"}, 400, "BadRequest", "yaml: line 1"},
		{"empty body", "POST", cm, "", []string{"Content-Type", "application/json"}, 400, "BadRequest", "(<empty>)"},
		{"unknown field, strict", "POST", cm + "?fieldValidation=Strict", `{"metadata":{"name":"x"},"dataa":{}}`, nil, 400, "BadRequest",
			`ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dataa"`},
		{"duplicate field, strict", "POST", cm + "?fieldValidation=Strict", `{"metadata":{"name":"x"},"data":{},"data":{}}`, nil, 400, "BadRequest",
			`strict decoding error: duplicate field "data"`},
		{"wrong type", "POST", cm, `{"metadata":{"name":"x"},"data":{"a":1}}`, nil, 400, "BadRequest",
			`ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
		{"wrong kind", "POST", cm, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`, nil, 400, "BadRequest", "cannot be handled as a ConfigMap"},
		{"wrong version", "POST", "/apis/apps/v1/namespaces/default/deployments", `{"apiVersion":"apps/v2","kind":"Deployment","metadata":{"name":"x"}}`, nil, 400, "BadRequest", "Deployment in version"},
		{"invalid name", "POST", cm, `{"metadata":{"name":"Not_Good"}}`, nil, 422, "Invalid", `ConfigMap "Not_Good" is invalid: metadata.name: Invalid value: "Not_Good": a lowercase RFC 1123 subdomain`},
		{"no name", "POST", cm, `{"metadata":{}}`, nil, 422, "Invalid", "metadata.name: Required value: name or generateName is required"},
		{"wrong namespace", "POST", cm, `{"metadata":{"name":"x","namespace":"other"}}`, nil, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		{"already there", "POST", cm, `{"metadata":{"name":"there"}}`, nil, 409, "AlreadyExists", `configmaps "there" already exists`},
		{"stale update", "PUT", cm + "/there", `{"metadata":{"name":"there","resourceVersion":"1"}}`, nil, 409, "Conflict",
			`Operation cannot be fulfilled on configmaps "there": the object has been modified; please apply your changes to the latest version and try again`},
		{"other uid", "PUT", cm + "/there", `{"metadata":{"name":"there","uid":"x"}}`, nil, 409, "Conflict", "Precondition failed: UID in precondition: x"},
		{"name mismatch", "PUT", cm + "/there", `{"metadata":{"name":"elsewhere"}}`, nil, 400, "BadRequest", "the name of the object (elsewhere) does not match the name on the URL (there)"},
		{"too large", "POST", cm, big, nil, 413, "RequestEntityTooLarge", "limit is 3145728"},
		{"missing", "GET", cm + "/nowhere", "", nil, 404, "NotFound", `configmaps "nowhere" not found`},
		{"wrong token", "GET", cm, "", []string{"Authorization", "Bearer nonsense"}, 401, "Unauthorized", "Unauthorized"},
		{"no token", "GET", cm, "", []string{"Authorization", ""}, 403, "Forbidden", `User "system:anonymous" cannot list`},
		{"not allowed", "GET", cm, "", []string{"Authorization", "Bearer eve-token"}, 403, "Forbidden",
			`configmaps is forbidden: User "eve" cannot list resource "configmaps" in API group "" in the namespace "default"`},
		{"not allowed by name", "DELETE", "/apis/apps/v1/namespaces/a/deployments/b", "", []string{"Authorization", "Bearer eve-token"}, 403, "Forbidden",
			`deployments.apps "b" is forbidden: User "eve" cannot delete resource "deployments" in API group "apps" in the namespace "a"`},
		{"path not allowed", "GET", "/metrics", "", []string{"Authorization", "Bearer eve-token"}, 403, "Forbidden", `forbidden: User "eve" cannot get path "/metrics"`},
		{"not acceptable", "GET", cm, "", []string{"Accept", "text/html"}, 406, "NotAcceptable", "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"unsupported media", "POST", cm, "x", []string{"Content-Type", "text/csv"}, 415, "UnsupportedMediaType", "the body of the request was in an unknown format"},
		{"unsupported patch", "PATCH", cm + "/there", "{}", nil, 415, "UnsupportedMediaType", "415: Unsupported Media Type"},
		{"patched name", "PATCH", cm + "/there", `{"metadata":{"name":"z"}}`, merge, 400, "BadRequest", "the name of the object (z) does not match the name on the URL (there)"},
		{"patch without name", "PATCH", cm + "/there", `{"metadata":{"name":null}}`, merge, 400, "BadRequest", "the name of the object (there based on URL) was undeterminable: name must be provided"},
		{"patched namespace", "PATCH", cm + "/there", `{"metadata":{"namespace":"z"}}`, merge, 400, "BadRequest", "the namespace of the provided object does not match the namespace sent on the request"},
		{"patched type", "PATCH", cm + "/there", `{"data":5}`, merge, 422, "Invalid", `\"data\":5,\"kind\":\"ConfigMap\"`},
		{"version that is none", "PATCH", cm + "/there", `{"metadata":{"resourceVersion":"x"}}`, merge, 500, "", `parsing "x": invalid syntax`},
		{"precondition", "DELETE", cm + "/there", `{"preconditions":{"uid":"x"}}`, nil, 409, "Conflict", `Operation cannot be fulfilled on ConfigMap "there": the UID in the precondition (x) does not match the UID in record (`},
		{"bad continue at a version", "GET", cm + "?limit=1&continue=zzz&resourceVersion=5", "", nil, 400, "BadRequest", "continue key is not valid"},
		{"bad selector", "GET", cm + "?labelSelector=,,", "", nil, 400, "BadRequest", "found ',', expected: !, identifier"},
		{"bad field selector", "GET", cm + "?fieldSelector=spec.x=1", "", nil, 400, "BadRequest", `"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"bad continue", "GET", cm + "?limit=1&continue=zzz", "", nil, 400, "BadRequest", "continue key is not valid"},
		{"bad revision", "GET", cm + "?resourceVersion=abc", "", nil, 400, "BadRequest", "invalid resource version"},
		{"method of one object", "PUT", cm, "{}", nil, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"method", "DELETE", "/api/v1/namespaces", "", nil, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"JSON patch test", "PATCH", cm + "/there", `[{"op":"test","path":"/data/a","value":"2"}]`, []string{"Content-Type", "application/json-patch+json"}, 422, "Invalid", ""},
		{"apply without manager", "PATCH", cm + "/there", `{}`, []string{"Content-Type", "application/apply-patch+yaml"}, 422, "Invalid", "is required for apply patch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, b := f.do(c.method, c.path, c.body, c.headers...)
			st := f.status(b)
			if code != c.code || st.Reason != c.reason || !strings.Contains(st.Message, c.message) || st.Kind != "Status" {
				t.Errorf("got %d %s %q\nwant %d %s %q", code, st.Reason, st.Message, c.code, c.reason, c.message)
			}
		})
	}
}

func TestBodyCutShort(t *testing.T) {
	f := start(t)
	c, err := net.Dial("tcp", f.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root-token\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", cm)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if st := f.status(b); res.StatusCode != 500 || st.Message != "unexpected EOF" || st.Reason != "" {
		t.Errorf("got %d %s", res.StatusCode, b)
	}
}

// fullStore refuses to store configmaps with err.
type fullStore struct {
	store.Store
	err error
}

func (s fullStore) Create(ctx context.Context, key string, obj api.Object, ttl int64) (*store.Entry, error) {
	if _, ok := obj.(*corev1.ConfigMap); ok {
		return nil, s.err
	}
	return s.Store.Create(ctx, key, obj, ttl)
}

func TestStoreRefuses(t *testing.T) {
	was := openStore
	t.Cleanup(func() { openStore = was })
	for err, want := range map[error]string{store.ErrTooLarge: "etcdserver: request is too large", store.ErrNoSpace: "etcdserver: mvcc: database space exceeded"} {
		openStore = func(t testing.TB) store.Store { return fullStore{was(t), fmt.Errorf("put: %w", err)} }
		f := start(t)
		code, _, b := f.do("POST", cm, `{"metadata":{"name":"x"}}`)
		if st := f.status(b); code != 500 || st.Message != want || st.Reason != "" {
			t.Errorf("got %d %s, want 500 %q", code, b, want)
		}
	}
}

// damagedStore cannot read one config map.
type damagedStore struct{ store.Store }

func (s damagedStore) Unreadable(place string) error {
	const key = "/registry/configmaps/default/lost"
	if key == place || strings.HasSuffix(place, "/") && strings.HasPrefix(key, place) {
		return errors.New("unable to read it")
	}
	return nil
}

// TestUnreadableObjects: nobody may take what cannot be read for gone, or delete what depends on it.
func TestUnreadableObjects(t *testing.T) {
	was := openStore
	t.Cleanup(func() { openStore = was })
	openStore = func(t testing.TB) store.Store { return damagedStore{was(t)} }
	f := start(t)
	f.must(201, "POST", cm, `{"metadata":{"name":"lost"}}`)
	f.must(201, "POST", cm, `{"metadata":{"name":"found"}}`)
	for _, r := range [][3]string{{"GET", cm + "/lost"}, {"PUT", cm + "/lost", `{"metadata":{"name":"lost"}}`}, {"DELETE", cm + "/lost"}, {"GET", cm},
		{"GET", cm + "?limit=1"}, {"GET", "/api/v1/configmaps"}, {"GET", cm + "?watch=1&resourceVersion=0"}} {
		code, _, b := f.do(r[0], r[1], r[2])
		if st := f.status(b); code != 500 || st.Reason != metav1.StatusReasonInternalError || !strings.Contains(st.Message, "unable to read it") {
			t.Errorf("%s %s: %d %s", r[0], r[1], code, b)
		}
	}
	f.must(200, "GET", cm+"/found", "")
	f.must(200, "GET", "/api/v1/namespaces/other/configmaps", "")
}

func TestCertificateRequest(t *testing.T) {
	f := start(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	csrs := f.client().CertificatesV1().CertificateSigningRequests()
	csr := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: "example.com/s",
		Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature}, Username: "somebody", Groups: []string{"else"}}}
	if csr, err = csrs.Create(t.Context(), csr, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if csr.Spec.Username != "root" || len(csr.Spec.Groups) != 1 || csr.Spec.Groups[0] != user.AllAuthenticated {
		t.Errorf("the requester is %q %q", csr.Spec.Username, csr.Spec.Groups)
	}
	csr.Annotations = map[string]string{"a": "b"}
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue}}
	if csr, err = csrs.UpdateApproval(t.Context(), "c", csr, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := csr.Status.Conditions; csr.Annotations["a"] != "b" || len(c) != 1 || c[0].LastUpdateTime.IsZero() || c[0].LastTransitionTime.IsZero() {
		t.Errorf("approved: %v %v", csr.Annotations, c)
	}
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateDenied, Status: corev1.ConditionTrue})
	if _, err = csrs.UpdateApproval(t.Context(), "c", csr, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("approved and denied: %v", err)
	}
}

func TestUnknownFieldWarns(t *testing.T) {
	f := start(t)
	code, h, b := f.do("POST", cm, `{"metadata":{"name":"x"},"dataa":{}}`)
	if code != 201 || h.Get("Warning") != `299 - "unknown field \"dataa\""` {
		t.Errorf("got %d %q %s", code, h.Get("Warning"), b)
	}
}

// Bad options are all that is told of a request.
func TestBadOptionsDoNotWarn(t *testing.T) {
	f := start(t)
	code, h, _ := f.do("POST", cm+"?dryRun=Some", `{"metadata":{"name":"x"},"dataa":{}}`)
	if w := h.Values("Warning"); code != 422 || len(w) > 0 {
		t.Errorf("got %d with warnings %q, want 422 and none", code, w)
	}
}

// Where upstream's router ends, every method reads.
func TestMethodsOfPaths(t *testing.T) {
	f := start(t)
	for path, want := range map[string]int{"/apis": 200, "/apis/apps": 200, "/apis/apps/v1": 405, "/api": 405, "/version": 405, "/healthz": 200,
		"/nowhere": 404, "/apis/apps/v1/watch": 500} {
		if code, _, b := f.do("POST", path, "{}"); code != want {
			t.Errorf("POST %s: %d %s, want %d", path, code, b, want)
		}
	}
}

func TestDeprecatedKindWarns(t *testing.T) {
	f := start(t)
	for path, want := range map[string]string{"/api/v1/endpoints": `299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"`,
		"/api/v1/componentstatuses": `299 - "v1 ComponentStatus is deprecated in v1.19+"`, "/api/v1/pods": ""} {
		if _, h, _ := f.do("GET", path, ""); h.Get("Warning") != want {
			t.Errorf("%s warns %q, want %q", path, h.Get("Warning"), want)
		}
	}
}

func TestObjects(t *testing.T) {
	f, ctx := start(t), t.Context()
	c := f.client().CoreV1().ConfigMaps("default")
	made, err := c.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "x-", Labels: map[string]string{"a": "b"}}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Name) != 7 || made.UID == "" || made.CreationTimestamp.IsZero() || made.ResourceVersion == "" || len(made.ManagedFields) != 1 {
		t.Errorf("created %+v", made)
	}
	if m := made.ManagedFields[0]; m.Operation != "Update" || m.APIVersion != "v1" || !strings.Contains(m.FieldsV1.GetRawString(), `"f:k":{}`) {
		t.Errorf("managed fields %+v %s", m, m.FieldsV1.GetRawString())
	}
	same, err := c.Update(ctx, made, metav1.UpdateOptions{})
	if err != nil || same.ResourceVersion != made.ResourceVersion {
		t.Errorf("an update that changes nothing: %v, revision %s after %s", err, same.ResourceVersion, made.ResourceVersion)
	}
	made.Data["k"] = "w"
	next, err := c.Update(ctx, made, metav1.UpdateOptions{})
	if err != nil || next.Data["k"] != "w" || next.ResourceVersion == made.ResourceVersion {
		t.Fatalf("update: %v %+v", err, next)
	}
	for _, p := range []struct{ t, body, want string }{
		{"application/merge-patch+json", `{"data":{"k":"m"}}`, "m"},
		{"application/json-patch+json", `[{"op":"replace","path":"/data/k","value":"j"}]`, "j"},
		{"application/strategic-merge-patch+json", `{"data":{"k":"s"}}`, "s"},
	} {
		got := f.must(200, "PATCH", cm+"/"+made.Name, p.body, "Content-Type", p.t)
		if v := got["data"].(map[string]any)["k"]; v != p.want {
			t.Errorf("%s: got %v", p.t, v)
		}
	}
	l, err := c.List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
	if err != nil || len(l.Items) != 1 || l.ResourceVersion == "" {
		t.Errorf("list: %v %+v", err, l)
	}
	if err := c.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.Get(ctx, made.Name, metav1.GetOptions{}); err == nil {
		t.Error("still there after delete")
	}
}

func TestFinalizersAndGrace(t *testing.T) {
	f := start(t)
	f.must(201, "POST", cm, `{"metadata":{"name":"x","finalizers":["example.com/a"]}}`)
	got := f.must(200, "DELETE", cm+"/x", "")
	if got["metadata"].(map[string]any)["deletionTimestamp"] == nil {
		t.Fatalf("not marked: %v", got)
	}
	f.must(200, "GET", cm+"/x", "")
	f.must(200, "PATCH", cm+"/x", `{"metadata":{"finalizers":null}}`, "Content-Type", "application/merge-patch+json")
	f.must(404, "GET", cm+"/x", "")

	f.must(201, "POST", cm, `{"metadata":{"name":"y"}}`)
	got = f.must(200, "DELETE", cm+"/y", `{"propagationPolicy":"Foreground"}`)
	if fin := got["metadata"].(map[string]any)["finalizers"]; len(fin.([]any)) != 1 || fin.([]any)[0] != "foregroundDeletion" {
		t.Errorf("finalizers %v", fin)
	}
	f.must(409, "DELETE", cm+"/y", `{"preconditions":{"uid":"other"}}`)
}

func TestDryRun(t *testing.T) {
	f := start(t)
	f.must(201, "POST", cm+"?dryRun=All", `{"metadata":{"name":"x"}}`)
	f.must(404, "GET", cm+"/x", "")
	f.must(201, "POST", cm, `{"metadata":{"name":"x"}}`)
	f.must(200, "DELETE", cm+"/x?dryRun=All", "")
	f.must(200, "GET", cm+"/x", "")
}

func TestListPages(t *testing.T) {
	f := start(t)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		f.must(201, "POST", cm, `{"metadata":{"name":"`+n+`"}}`)
	}
	first := f.must(200, "GET", cm+"?limit=2", "")
	meta := first["metadata"].(map[string]any)
	if meta["remainingItemCount"] != 3.0 {
		t.Errorf("remaining %v", meta)
	}
	f.must(201, "POST", cm, `{"metadata":{"name":"bb"}}`) // not in the list's revision
	var names []string
	for cont := meta["continue"]; cont != nil; {
		page := f.must(200, "GET", cm+"?limit=2&continue="+cont.(string), "")
		for _, it := range page["items"].([]any) {
			if it.(map[string]any)["kind"] != nil {
				t.Error("an item has a kind")
			}
			names = append(names, it.(map[string]any)["metadata"].(map[string]any)["name"].(string))
		}
		pm := page["metadata"].(map[string]any)
		if pm["resourceVersion"] != meta["resourceVersion"] {
			t.Errorf("revision %v, want %v", pm["resourceVersion"], meta["resourceVersion"])
		}
		cont = pm["continue"]
	}
	if got := strings.Join(names, ""); got != "cde" && got != "bbcde" {
		t.Errorf("pages gave %s", got)
	}
}

func TestRepresentations(t *testing.T) {
	f := start(t)
	f.must(201, "POST", cm, `{"metadata":{"name":"x"},"data":{"a":"b"}}`)
	for _, c := range []struct{ path, accept, kind, contentType string }{
		{cm + "/x", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "Table", "application/json"},
		{cm, "application/json;as=Table;v=v1;g=meta.k8s.io", "Table", "application/json"},
		{cm + "/x", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "PartialObjectMetadata", "application/json"},
		{cm, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "PartialObjectMetadataList", "application/json"},
		{cm, "", "ConfigMapList", "application/json"},
		{cm + "/x", "application/vnd.kubernetes.protobuf;q=0.5,application/json;q=0.9", "ConfigMap", "application/json"},
	} {
		code, h, b := f.do("GET", c.path, "", "Accept", c.accept)
		var m metav1.TypeMeta
		if err := json.Unmarshal(b, &m); err != nil || code != 200 || m.Kind != c.kind || h.Get("Content-Type") != c.contentType {
			t.Errorf("%s: %d %s %v %s", c.accept, code, h.Get("Content-Type"), err, b)
		}
	}
	_, h, b := f.do("GET", cm, "", "Accept", "application/yaml")
	if h.Get("Content-Type") != "application/yaml" || !bytes.Contains(b, []byte("kind: ConfigMapList")) {
		t.Errorf("yaml: %s", b)
	}
	_, h, b = f.do("GET", cm, "", "Accept", "application/vnd.kubernetes.protobuf")
	if h.Get("Content-Type") != "application/vnd.kubernetes.protobuf" || !bytes.HasPrefix(b, []byte("k8s\x00")) {
		t.Errorf("protobuf: %q", b)
	}
	// client-go reads the protobuf list.
	cfg := &clientrest.Config{Host: f.http.URL, BearerToken: "root-token"}
	cfg.ContentType, cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(l.Items) != 1 || l.Items[0].Data["a"] != "b" || l.ResourceVersion == "" {
		t.Errorf("protobuf list: %v %+v", err, l)
	}
}

func TestWatch(t *testing.T) {
	for _, contentType := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		t.Run(contentType, func(t *testing.T) {
			f, ctx := start(t), t.Context()
			cfg := &clientrest.Config{Host: f.http.URL, BearerToken: "root-token", QPS: -1}
			cfg.ContentType, cfg.AcceptContentTypes = contentType, contentType
			cs, err := kubernetes.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			c := cs.CoreV1().ConfigMaps("default")
			obj, err := c.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"a": "b"}}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			yes := true
			w, err := c.Watch(ctx, metav1.ListOptions{LabelSelector: "a=b", SendInitialEvents: &yes, AllowWatchBookmarks: true,
				ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			next := func() (string, *corev1.ConfigMap) {
				ev, ok := <-w.ResultChan()
				if !ok {
					t.Fatal("the watch ended")
				}
				cm, ok := ev.Object.(*corev1.ConfigMap)
				if !ok {
					t.Fatalf("%s of %+v", ev.Type, ev.Object)
				}
				return string(ev.Type), cm
			}
			if typ, got := next(); typ != "ADDED" || got.Name != "x" {
				t.Errorf("%s %s", typ, got.Name)
			}
			if typ, got := next(); typ != "BOOKMARK" || got.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
				t.Errorf("%s %+v", typ, got)
			}
			change := func(l string) {
				obj.Labels = map[string]string{"a": l}
				if obj, err = c.Update(ctx, obj, metav1.UpdateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			change("c")
			if typ, got := next(); typ != "DELETED" || got.Labels["a"] != "b" || got.ResourceVersion != obj.ResourceVersion {
				t.Errorf("%s %+v", typ, got)
			}
			change("b")
			if typ, got := next(); typ != "ADDED" || got.Labels["a"] != "b" {
				t.Errorf("%s %+v", typ, got)
			}
			if err := c.Delete(ctx, "x", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if typ, got := next(); typ != "DELETED" || got.Name != "x" {
				t.Errorf("%s %+v", typ, got)
			}
		})
	}
}

func TestApply(t *testing.T) {
	f := start(t)
	apply := func(code int, manager, query, body string) map[string]any {
		t.Helper()
		return f.must(code, "PATCH", "/apis/apps/v1/namespaces/default/deployments/d?fieldManager="+manager+query, body, "Content-Type", "application/apply-patch+yaml")
	}
	const d = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":%s,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
	apply(201, "one", "", strings.Replace(d, "%s", "2", 1))
	got := apply(409, "two", "", strings.Replace(d, "%s", "3", 1))
	if got["reason"] != "Conflict" || got["details"].(map[string]any)["causes"].([]any)[0].(map[string]any)["reason"] != "FieldManagerConflict" {
		t.Errorf("conflict: %v", got)
	}
	got = apply(200, "two", "&force=true", strings.Replace(d, "%s", "3", 1))
	if got["spec"].(map[string]any)["replicas"] != 3.0 || got["metadata"].(map[string]any)["generation"] != 2.0 {
		t.Errorf("forced: %v", got)
	}
	sc := f.must(200, "PATCH", "/apis/apps/v1/namespaces/default/deployments/d/scale", `{"spec":{"replicas":5}}`, "Content-Type", "application/merge-patch+json")
	if sc["kind"] != "Scale" || sc["spec"].(map[string]any)["replicas"] != 5.0 {
		t.Errorf("scale: %v", sc)
	}
	st := f.must(200, "PATCH", "/apis/apps/v1/namespaces/default/deployments/d/status", `{"status":{"replicas":4},"spec":{"replicas":9}}`, "Content-Type", "application/merge-patch+json")
	if st["spec"].(map[string]any)["replicas"] != 5.0 || st["status"].(map[string]any)["replicas"] != 4.0 {
		t.Errorf("status: %v", st)
	}
}

func TestDiscovery(t *testing.T) {
	f := start(t)
	groups, err := f.client().Discovery().ServerGroups()
	if err != nil || len(groups.Groups) < 15 {
		t.Fatalf("groups: %v %v", err, groups)
	}
	_, lists, err := f.client().Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	n, hashes := 0, map[string]string{}
	for _, l := range lists {
		n += len(l.APIResources)
	}
	for _, path := range []string{"/api/v1", "/apis/events.k8s.io/v1", "/apis/apiextensions.k8s.io/v1"} {
		var l metav1.APIResourceList // aggregated discovery, which the client prefers, has no hashes
		_, _, b := f.do("GET", path, "")
		if err := json.Unmarshal(b, &l); err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			hashes[l.GroupVersion+" "+r.Name] = r.StorageVersionHash
		}
	}
	for name, want := range map[string]string{"v1 pods": "xPOwRZ+Yhw8=", "v1 events": "r2yiGXH7wu8=", "events.k8s.io/v1 events": "r2yiGXH7wu8=",
		"apiextensions.k8s.io/v1 customresourcedefinitions": "jfWCUB31mvA=", "v1 pods/log": "", "v1 bindings": ""} {
		if got := hashes[name]; got != want {
			t.Errorf("the storage version hash of %s is %q, want %q", name, got, want)
		}
	}
	want := 0
	for _, k := range builtin.Kinds() {
		want += 1 + len(k.Subresources)
	}
	if n != want {
		t.Errorf("%d resources in discovery, %d in the table", n, want)
	}
	v, err := f.client().Discovery().ServerVersion()
	if err != nil || v.Major != "1" || v.Minor != "36" {
		t.Errorf("version: %v %v", err, v)
	}
	_, h, _ := f.do("GET", "/apis", "", "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	etag := h.Get("ETag")
	if code, _, _ := f.do("GET", "/apis", "", "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "If-None-Match", etag); code != 304 {
		t.Errorf("with ETag %q: %d", etag, code)
	}
	for _, p := range []string{"/livez", "/readyz", "/healthz", "/livez/ping"} {
		if code, _, b := f.do("GET", p, "", "Authorization", ""); code != 200 || string(b) != "ok" {
			t.Errorf("%s: %d %s", p, code, b)
		}
	}
}

func TestPods(t *testing.T) {
	f := start(t)
	pods := "/api/v1/namespaces/default/pods"
	f.must(201, "POST", pods, `{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
	f.must(201, "POST", pods+"/p/binding", `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`)
	if got := f.must(409, "POST", pods+"/p/binding", `{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n"}}`); !strings.Contains(got["message"].(string), `pod p is already assigned to node "n"`) {
		t.Errorf("second binding: %v", got)
	}
	got := f.must(200, "GET", pods+"?fieldSelector=spec.nodeName=n", "")
	if len(got["items"].([]any)) != 1 {
		t.Errorf("by node: %v", got)
	}
	got = f.must(200, "DELETE", pods+"/p", "")
	if got["metadata"].(map[string]any)["deletionGracePeriodSeconds"] != 30.0 {
		t.Errorf("delete: %v", got["metadata"])
	}
	f.must(200, "DELETE", pods+"/p", `{"gracePeriodSeconds":0}`)
	f.must(404, "GET", pods+"/p", "")
}

func TestNamespaceFinalize(t *testing.T) {
	f := start(t)
	f.must(201, "POST", "/api/v1/namespaces", `{"metadata":{"name":"n"}}`)
	got := f.must(200, "DELETE", "/api/v1/namespaces/n", "")
	if got["status"].(map[string]any)["phase"] != "Terminating" {
		t.Fatalf("deleted: %v", got)
	}
	f.must(200, "PUT", "/api/v1/namespaces/n/finalize", `{"metadata":{"name":"n"},"spec":{"finalizers":[]}}`)
	f.must(404, "GET", "/api/v1/namespaces/n", "")
}

func TestLocal(t *testing.T) {
	f, ctx := start(t), t.Context()
	k, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	l := f.srv.Local(root)
	w, err := l.Watch(ctx, k, "", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	in := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "default"}}
	out, err := l.Create(ctx, k, in, metav1.CreateOptions{})
	if err != nil || out.GetUID() == "" || in.UID != "" {
		t.Fatalf("create: %v %+v", err, out)
	}
	if ev := <-w.ResultChan(); ev.Type != "ADDED" || ev.Object != any(out) {
		t.Errorf("the watch gave %+v, not the shared object", ev)
	}
	if _, err := f.srv.Local(&user.DefaultInfo{Name: "eve"}).Get(ctx, k, "default", "x", metav1.GetOptions{}); err == nil {
		t.Error("eve may read")
	}
}

func TestOpenAPI(t *testing.T) {
	f := start(t)
	c := f.client().Discovery()
	paths, err := c.OpenAPIV3().Paths()
	if err != nil || len(paths) < 20 {
		t.Fatalf("paths: %v %v", err, paths)
	}
	for _, typ := range []string{"application/json", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"} {
		b, err := paths["apis/apps/v1"].Schema(typ)
		if err != nil || !bytes.Contains(b, []byte("io.k8s.api.apps.v1.Deployment")) {
			t.Errorf("%s: %v, %d bytes", typ, err, len(b))
		}
	}
	doc, err := c.OpenAPISchema()
	if err != nil || len(doc.GetDefinitions().GetAdditionalProperties()) < 300 {
		t.Errorf("v2: %v", err)
	}
}
