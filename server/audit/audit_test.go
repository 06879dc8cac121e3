package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api/builtin"
	apicodec "github.com/skiff-sh/skiff/api/codec"
	"github.com/skiff-sh/skiff/server/request"
)

const policy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
- level: None
  userGroups: ["system:nodes"]
  resources: [{group: "", resources: [nodes, "nodes/status"]}]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: RequestResponse
  resources: [{group: "", resources: ["pods/*"]}]
- level: Metadata
  resources: [{group: "", resources: [secrets, configmaps]}, {group: "*", resources: ["*/scale"]}]
  omitStages: []
- level: Request
  namespaces: ["kube-system"]
- level: RequestResponse
  resources: [{group: "", resources: [pods], resourceNames: [special]}]
  omitManagedFields: true
- level: Metadata
  verbs: [get]
`

func info(method, path string, u user.Info) *request.Info {
	i := request.Parse(builtin.Table(), method, path, func() url.Values { return nil })
	i.User = u
	return i
}

func TestDecide(t *testing.T) {
	p, err := parsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	node := &user.DefaultInfo{Name: "system:node:a", Groups: []string{"system:nodes"}}
	jane := &user.DefaultInfo{Name: "jane"}
	for _, c := range []struct {
		method, path string
		user         user.Info
		want         string
	}{
		{"GET", "/api/v1/watch/services", &user.DefaultInfo{Name: "system:kube-proxy"}, "None"},
		{"PATCH", "/api/v1/nodes/a/status", node, "None"},
		{"PATCH", "/api/v1/nodes/a/status", jane, "None"},
		{"GET", "/healthz/etcd", nil, "None"},
		{"GET", "/versions", nil, "Metadata"},
		{"GET", "/api/v1/namespaces/a/pods/b/log", jane, "RequestResponse"},
		{"GET", "/api/v1/namespaces/a/pods/b", jane, "Metadata"},
		{"DELETE", "/api/v1/namespaces/a/pods/b", jane, "None"},
		{"PUT", "/api/v1/namespaces/a/pods/special", jane, "RequestResponse"},
		{"POST", "/api/v1/namespaces/kube-system/configmaps", jane, "Metadata"},
		{"POST", "/api/v1/namespaces/kube-system/services", jane, "Request"},
		{"PUT", "/apis/apps/v1/namespaces/a/deployments/d/scale", jane, "Metadata"},
	} {
		if d := decide(p, info(c.method, c.path, c.user), c.user); string(d.level) != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, d.level, c.want)
		}
	}
}

func TestPolicyErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []", "there are no rules"},
		{"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]", `Unsupported value: "Loud"`},
		{"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, colour: red}]", "unknown field"},
		{"apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]", "v1beta1"},
		{"rules: [{level: None}]", "audit.k8s.io/v1"},
	} {
		if _, err := parsePolicy([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// serve audits one request to a handler that reads the body and answers.
func serve(t *testing.T, level, contentType string, body []byte, answer string) []auditv1.Event {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	p, err := parsePolicy([]byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules: [{level: " + level + "}]"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Config{Policy: p, File: &FileConfig{Path: path}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/api/v1/namespaces/a/pods?dryRun=All", bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Forwarded-For", "10.1.1.1, 10.1.1.2")
	i := info("POST", "/api/v1/namespaces/a/pods", &user.DefaultInfo{Name: "jane", Groups: []string{"dev"}})
	i.SourceIP, i.UserAgent = "127.0.0.1", "kubectl"
	out := httptest.NewRecorder()
	rec, w, r := a.Begin(out, r, i, "id-1", time.Now(), false)
	if _, err := io.ReadAll(r.Body); err != nil {
		t.Fatal(err)
	}
	Annotate(r.Context(), "a", "1")
	Annotate(r.Context(), "a", "2")
	rec.Impersonated(&user.DefaultInfo{Name: "joe"})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(201)
	if _, err := io.WriteString(w, answer); err != nil {
		t.Fatal(err)
	}
	rec.Done(201, nil, false)
	if out.Body.String() != answer {
		t.Errorf("the client got %q", out.Body)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []auditv1.Event
	for line := range strings.Lines(string(data)) {
		var ev auditv1.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, ev)
	}
	return events
}

func TestEvents(t *testing.T) {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u",
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}}}}
	asJSON, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	scheme := apicodec.Scheme()
	var asProtobuf bytes.Buffer
	if err := protobuf.NewSerializer(scheme, scheme).Encode(pod, &asProtobuf); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		level, contentType string
		body               []byte
		request, response  bool
	}{
		{"Metadata", "application/json", asJSON, false, false},
		{"Request", "application/json", asJSON, true, false},
		{"RequestResponse", "application/vnd.kubernetes.protobuf", asProtobuf.Bytes(), true, true},
		{"RequestResponse", "application/yaml", []byte("metadata: {name: p, uid: u}"), true, true},
	} {
		t.Run(c.level+" "+c.contentType, func(t *testing.T) {
			events := serve(t, c.level, c.contentType, c.body, `{"metadata":{"name":"p","managedFields":[{}]}}`)
			if len(events) != 2 || events[0].Stage != "RequestReceived" || events[1].Stage != "ResponseComplete" {
				t.Fatalf("events %+v", events)
			}
			ev := events[1]
			if ev.Verb != "create" || ev.User.Username != "jane" || ev.ImpersonatedUser.Username != "joe" || ev.Annotations["a"] != "1" || ev.AuditID != "id-1" ||
				ev.RequestURI != "/api/v1/namespaces/a/pods?dryRun=All" || fmt.Sprint(ev.SourceIPs) != "[10.1.1.1 10.1.1.2 127.0.0.1]" || ev.ResponseStatus.Code != 201 {
				t.Errorf("event %+v", ev)
			}
			if ref := ev.ObjectRef; ref.Name != "p" || ref.UID != "u" || ref.Namespace != "a" || ref.Resource != "pods" {
				t.Errorf("object %+v", ref)
			}
			if (ev.RequestObject != nil) != c.request || (ev.ResponseObject != nil) != c.response {
				t.Fatalf("request %v, response %v", ev.RequestObject, ev.ResponseObject)
			}
			if c.request && !bytes.Contains(ev.RequestObject.Raw, []byte(`"name":"p"`)) {
				t.Errorf("request %s", ev.RequestObject.Raw)
			}
			if c.request && bytes.Contains(ev.RequestObject.Raw, []byte("managedFields")) || c.response && bytes.Contains(ev.ResponseObject.Raw, []byte("managedFields")) {
				t.Error("managed fields are told")
			}
		})
	}
}

func TestNobodyAsks(t *testing.T) {
	var a *Auditor
	r := httptest.NewRequest("GET", "/x", nil)
	w := httptest.NewRecorder()
	rec, w2, r2 := a.Begin(w, r, &request.Info{}, "", time.Time{}, false)
	if rec != nil || w2 != w || r2 != r {
		t.Error("without an auditor a request is changed")
	}
	rec.Annotate("a", "b")
	rec.Started(200)
	rec.Done(200, nil, false)
	if n := testing.AllocsPerRun(100, func() { a.Begin(w, r, nil, "", time.Time{}, false) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// hook answers as told and remembers the batches.
type hook struct {
	answers []int
	batches []int
	times   []time.Duration
	start   time.Time
}

func (h *hook) RoundTrip(r *http.Request) (*http.Response, error) {
	var list auditv1.EventList
	if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
		return nil, err
	}
	h.batches = append(h.batches, len(list.Items))
	h.times = append(h.times, time.Since(h.start))
	code := 200
	if len(h.answers) > 0 {
		code, h.answers = h.answers[0], h.answers[1:]
	}
	if code == 0 {
		return nil, errors.New("nobody there")
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: http.NoBody}, nil
}

func TestWebhook(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []int
		events  int
		batches string
		lost    int
	}{
		{"one batch after its wait", nil, 3, "[3]", 0},
		{"a full batch goes at once", nil, 13, "[10 3]", 0},
		{"tried again", []int{500, 0, 429}, 2, "[2 2 2 2]", 0},
		{"refused", []int{400}, 2, "[2]", 2},
		{"given up", []int{500, 500, 500, 500, 500}, 2, "[2 2 2 2 2]", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hook{answers: c.answers, start: time.Now()}
				lost := 0
				w, err := openWebhook(WebhookConfig{URL: "http://x", Client: &http.Client{Transport: h}, MaxBatchSize: 10}, func(_ string, n int, _ error) { lost += n })
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); w.run(ctx) }()
				for range c.events {
					if err := w.write(&auditv1.Event{}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(10 * time.Minute)
				cancel()
				<-done
				if got := fmt.Sprint(h.batches); got != c.batches || lost != c.lost {
					t.Errorf("batches %s, %d lost; want %s, %d", got, lost, c.batches, c.lost)
				}
			})
		})
	}
}

func TestWebhookEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hook{start: time.Now()}
		w, err := openWebhook(WebhookConfig{URL: "http://x", Client: &http.Client{Transport: h}, BufferSize: 3}, func(string, int, error) {})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := w.write(&auditv1.Event{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.write(&auditv1.Event{}); !errors.Is(err, errFull) {
			t.Errorf("a fourth event: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.run(ctx)
		if fmt.Sprint(h.batches) != "[3]" {
			t.Errorf("at the end %v are sent, want the three that waited", h.batches)
		}
	})
}
