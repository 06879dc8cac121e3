package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store/etcd"
)

// bigPod is of the size that a plain Deployment's pod has, 2.9 KB as JSON.
const bigPod = `{"metadata":{"labels":{"app":"web","tier":"backend","pod-template-hash":"5d4f8c7b9"},"annotations":{"example.com/build":"1","example.com/owner":"a"},
"managedFields":[{"manager":"controller","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:tier":{}}},
"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"A\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:name":{},"f:resources":{".":{},"f:limits":{},"f:requests":{}}}}}}},
{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","subresource":"status","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{},"f:type":{}}},"f:phase":{},"f:podIP":{}}}}]},
"spec":{"nodeName":"n1","containers":[{"name":"web","image":"registry.example/web:1.2.3","env":[{"name":"A","value":"1"},{"name":"B","value":"2"}],"ports":[{"containerPort":8080,"name":"http"}],
"resources":{"requests":{"cpu":"1m","memory":"1Mi"},"limits":{"cpu":"100m","memory":"64Mi"}},"volumeMounts":[{"name":"token","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}]}],
"volumes":[{"name":"token","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}]}}],
"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]},
"status":{"phase":"Running","podIP":"10.1.2.3","conditions":[{"type":"Initialized","status":"True"},{"type":"Ready","status":"True"},{"type":"PodScheduled","status":"True"}],
"containerStatuses":[{"name":"web","ready":true,"restartCount":0,"image":"registry.example/web:1.2.3","imageID":"registry.example/web@sha256:0123456789abcdef","containerID":"containerd://0123456789abcdef"}]}}`

// BenchmarkTenListsOfFiftyThousand lets ten clients list 50,000 pods at once, and fails where the process grows by more than
// 100 MB for it. It reports by how much it did.
func BenchmarkTenListsOfFiftyThousand(b *testing.B) {
	const pods, clients, most = 50_000, 10, 100 << 20
	log := slog.New(slog.DiscardHandler)
	st, err := etcd.Open(b.Context(), etcd.Config{DataDir: filepath.Join(b.TempDir(), "etcd"), Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	srv, err := server.New(server.Config{Store: st, Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers,
		Authorizer: rootOnly, Admission: &admission.Chain{}, Extensions: &rest.Extensions{}, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	h := httptest.NewServer(srv.Handler())
	defer h.Close()
	fill(b, st, pods)
	for b.Loop() {
		b.StopTimer()
		st.Forget()
		debug.FreeOSMemory()
		before := resident(b)
		b.StartTimer()
		peak, size := before, atomic.Int64{}
		var listing sync.WaitGroup
		for range clients {
			listing.Go(func() { size.Store(list(b, h.URL+"/api/v1/pods")) })
		}
		done := make(chan struct{})
		go func() { listing.Wait(); close(done) }()
		for look := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-look.C:
				peak = max(peak, resident(b))
				continue
			case <-done:
				look.Stop()
			}
			break
		}
		b.ReportMetric(float64(peak-before)/1e6, "MB-growth")
		b.ReportMetric(float64(before)/1e6, "MB-before")
		b.ReportMetric(float64(size.Load())/1e6, "MB-each")
		if peak-before > most {
			b.Errorf("grew from %d to %d MB", before>>20, peak>>20)
		}
	}
}

func fill(b *testing.B, st *etcd.Store, n int) {
	b.Helper()
	k, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("Pod"))
	var text bytes.Buffer
	var pod corev1.Pod
	if err := json.Compact(&text, []byte(bigPod)); err != nil { // as a client would have sent its managed fields
		b.Fatal(err)
	}
	if err := json.Unmarshal(text.Bytes(), &pod); err != nil {
		b.Fatal(err)
	}
	const workers = 16
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				p := pod.DeepCopy()
				p.Namespace, p.Name = "default", fmt.Sprintf("web-5d4f8c7b9-%05d", i)
				if _, err := st.Create(b.Context(), k.Key(p.Namespace, p.Name), p, 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// list reads a list to its end, and returns how many bytes it had.
func list(b *testing.B, url string) int64 {
	req, err := http.NewRequestWithContext(b.Context(), "GET", url, nil)
	if err != nil {
		b.Error(err)
		return 0
	}
	req.Header.Set("Authorization", "Bearer root-token")
	req.Header.Set("Accept-Encoding", "identity")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Error(err)
		return 0
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || res.StatusCode != http.StatusOK || n < 50<<20 {
		b.Errorf("%s: %d, %d bytes: %v", url, res.StatusCode, n, err)
	}
	return n
}

// resident is the process's memory in bytes.
func resident(b *testing.B) int64 {
	s, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(s))
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
