// Package serve is the node's own HTTP API: logs, exec, attach, port-forward, the list of pods, statistics, metrics.
//
// Invariant: every request goes through the guard first; nothing here changes a pod.
//
// Only node imports serve.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/client"
)

// Pods is what the server needs to know of the node's pods.
type Pods interface {
	// List gives all pods of the node with their newest status.
	List() []*corev1.Pod
	// Log finds the log of a container, or of its last one that ended. running tells whether more may come.
	Log(ctx context.Context, namespace, pod, container string, previous bool) (path string, running func() bool, err error)
	// Container finds the running container of a name; Sandbox the ready sandbox of a pod.
	Container(namespace, pod, uid, container string) (id string, err error)
	Sandbox(namespace, pod, uid string) (id string, err error)
}

// Config is what a Server is made from; all fields but Metrics and Anonymous are required.
type Config struct {
	Node      string
	Client    client.Interface
	Runtime   runtimeapi.RuntimeServiceClient
	Pods      Pods
	Stats     *Stats
	Metrics   *prometheus.Registry
	Configz   any
	LogDir    string // of the machine, served under /logs/
	Anonymous bool
	Healthy   func() error
	Log       *slog.Logger
}

// Handler serves the node API.
func Handler(cfg Config) http.Handler {
	s := &server{Config: cfg, guard: &guard{c: cfg.Client, node: cfg.Node}}
	m := http.NewServeMux()
	m.HandleFunc("GET /healthz", s.healthz)
	m.HandleFunc("GET /healthz/{check}", s.healthz)
	m.HandleFunc("GET /pods", s.pods)
	m.HandleFunc("GET /runningpods/", s.pods)
	m.HandleFunc("GET /containerLogs/{ns}/{pod}/{container}", s.logs)
	for _, p := range []string{"/{ns}/{pod}/{container}", "/{ns}/{pod}/{uid}/{container}"} {
		m.HandleFunc("/exec"+p, s.exec)
		m.HandleFunc("/attach"+p, s.attach)
		m.HandleFunc("POST /run"+p, s.run)
	}
	m.HandleFunc("/portForward/{ns}/{pod}", s.portForward)
	m.HandleFunc("/portForward/{ns}/{pod}/{uid}", s.portForward)
	m.HandleFunc("GET /stats/summary", s.summary)
	m.HandleFunc("GET /metrics/resource", s.resourceMetrics)
	m.HandleFunc("GET /metrics/probes", s.empty)
	m.HandleFunc("GET /metrics/cadvisor", s.empty)
	if cfg.Metrics != nil {
		m.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{}))
	}
	m.HandleFunc("GET /configz", func(w http.ResponseWriter, _ *http.Request) {
		s.json(w, map[string]any{"kubeletconfig": cfg.Configz})
	})
	if cfg.LogDir != "" {
		m.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServer(http.Dir(cfg.LogDir))))
	}
	return s.guarded(m)
}

type server struct {
	Config
	guard *guard
}

// guarded lets pass who may.
func (s *server) guarded(next http.Handler) http.Handler {
	if s.Anonymous {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, ok, err := s.guard.user(r)
		if err != nil {
			s.Log.Warn("cannot authenticate a caller of the node API", "error", err)
		}
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		ok, why, err := s.guard.allowed(r.Context(), u, r.Method, r.URL.Path)
		switch {
		case err != nil:
			http.Error(w, fmt.Sprintf("Authorization error (user=%s): %v", u.Username, err), http.StatusInternalServerError)
		case !ok:
			http.Error(w, why, http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := s.Healthy(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, "ok")
}

func (s *server) empty(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
}

func (s *server) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.Log.Debug("answer cut short", "error", err)
	}
}

func (s *server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, p := range s.Pods.List() {
		list.Items = append(list.Items, *p)
	}
	s.json(w, &list)
}

// Error is a failure with the HTTP status that it is answered with.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return e.Text }

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	if e := (*Error)(nil); errors.As(err, &e) {
		code = e.Code
	}
	http.Error(w, err.Error(), code)
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	o, previous, err := logOptions(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path, running, err := s.Pods.Log(r.Context(), r.PathValue("ns"), r.PathValue("pod"), r.PathValue("container"), previous)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	flush := func() {
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
	err = CopyLog(r.Context(), path, o, w, flush, running)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// The container has not written anything yet, or its log is gone; upstream answers with the path.
		fmt.Fprintf(w, "failed to try resolving symlinks in path %q: %v", path, err)
	case err != nil && r.Context().Err() == nil:
		s.Log.Debug("log not sent to its end", "log", path, "error", err)
	}
}

func logOptions(q url.Values, now time.Time) (o LogOptions, previous bool, err error) {
	o = LogOptions{Tail: -1, Limit: -1, Stdout: true, Stderr: true}
	isTrue := func(name string) bool {
		b, err := strconv.ParseBool(q.Get(name))
		return err == nil && b
	}
	o.Follow, o.Timestamps, previous = isTrue("follow"), isTrue("timestamps"), isTrue("previous")
	if v := q.Get("tailLines"); v != "" && v != "all" {
		if o.Tail, err = strconv.ParseInt(v, 10, 64); err != nil || o.Tail < 0 {
			return o, previous, fmt.Errorf("invalid tailLines %q", v)
		}
	}
	if v := q.Get("limitBytes"); v != "" {
		if o.Limit, err = strconv.ParseInt(v, 10, 64); err != nil || o.Limit < 1 {
			return o, previous, fmt.Errorf("invalid limitBytes %q", v)
		}
	}
	if v := q.Get("sinceSeconds"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			return o, previous, fmt.Errorf("invalid sinceSeconds %q", v)
		}
		o.Since = now.Add(-time.Duration(n) * time.Second)
	}
	if v := q.Get("sinceTime"); v != "" {
		if o.Since, err = time.Parse(time.RFC3339, v); err != nil {
			return o, previous, fmt.Errorf("invalid sinceTime %q", v)
		}
	}
	switch v := q.Get("stream"); v {
	case "", "All":
	case "Stdout":
		o.Stderr = false
	case "Stderr":
		o.Stdout = false
	default:
		return o, previous, fmt.Errorf("invalid stream %q", v)
	}
	return o, previous, nil
}

// run executes a command and answers with its output.
func (s *server) run(w http.ResponseWriter, r *http.Request) {
	id, err := s.Pods.Container(r.PathValue("ns"), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"))
	if err != nil {
		fail(w, err)
		return
	}
	out, err := s.Runtime.ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: strings.Split(r.FormValue("cmd"), " ")})
	if err != nil {
		fail(w, err)
		return
	}
	_, _ = w.Write(append(out.Stdout, out.Stderr...))
}
