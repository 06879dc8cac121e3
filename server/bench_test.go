package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api/builtin"
)

// call runs one request through the handler without a socket.
func call(b *testing.B, h http.Handler, method, path, body string) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer root-token")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	w := &discard{h: http.Header{}}
	h.ServeHTTP(w, req)
	if w.code >= 300 {
		b.Fatalf("%s %s: %d", method, path, w.code)
	}
}

type discard struct {
	h    http.Header
	code int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(code int)        { d.code = code }
func (d *discard) Write(p []byte) (int, error) { return io.Discard.Write(p) }

const benchPod = `{"metadata":{"name":"p-%d","labels":{"app":"x"}},"spec":{"containers":[{"name":"c","image":"registry/x:1","env":[{"name":"A","value":"b"}],"resources":{"requests":{"cpu":"10m"}}}]}}`

func BenchmarkServer(b *testing.B) {
	f := start(b)
	h := f.srv.Handler()
	const pods = "/api/v1/namespaces/default/pods"
	for i := range 1000 {
		call(b, h, "POST", pods, fmt.Sprintf(benchPod, i))
	}
	n := 1000
	b.Run("create", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n++
			call(b, h, "POST", "/api/v1/namespaces/bench/pods", fmt.Sprintf(benchPod, n))
		}
	})
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(b, h, "GET", pods+"/p-1", "")
		}
	})
	b.Run("patch", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n++
			req := httptest.NewRequest("PATCH", pods+"/p-1/status", strings.NewReader(fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","message":"m%d"}],"phase":"Running"}}`, n)))
			req.Header.Set("Authorization", "Bearer root-token")
			req.Header.Set("Content-Type", "application/strategic-merge-patch+json")
			w := &discard{h: http.Header{}}
			if h.ServeHTTP(w, req); w.code != 200 {
				b.Fatal(w.code)
			}
		}
	})
	b.Run("list1000", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			call(b, h, "GET", pods, "")
		}
	})
	b.Run("watch", func(b *testing.B) {
		b.ReportAllocs()
		k, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
		l := f.srv.Local(root)
		w, err := l.Watch(b.Context(), k, "default", metav1.ListOptions{})
		if err != nil {
			b.Fatal(err)
		}
		defer w.Stop()
		for b.Loop() {
			n++
			call(b, h, "POST", cm, fmt.Sprintf(`{"metadata":{"name":"c-%d"},"data":{"a":"b"}}`, n))
			<-w.ResultChan()
		}
	})
}
