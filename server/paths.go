package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/version"

	"github.com/skiff-sh/skiff/server/codec"
)

// servePath answers for the paths that are no resources.
func (s *Server) servePath(x *exchange) error {
	path := x.info.Path
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return x.notFound()
	}
	switch path {
	case "/version", "/version/":
		return s.version(x)
	case "/metrics":
		x.code = http.StatusOK
		s.metrics.handler.ServeHTTP(x.w, x.r)
		return nil
	case "/.well-known/openid-configuration":
		if s.issuer != nil {
			x.w.Header().Set("Cache-Control", "public, max-age=3600")
			return x.send(http.StatusOK, codec.TypeJSON, s.issuer.OpenIDConfiguration())
		}
	case "/openid/v1/jwks":
		if s.issuer != nil {
			x.w.Header().Set("Cache-Control", "public, max-age=3600")
			return x.send(http.StatusOK, "application/jwk-set+json", s.issuer.JWKS())
		}
	case "/", "":
		return s.index(x)
	}
	if name, ok := health(path); ok {
		return s.health(x, name)
	}
	var h http.Handler
	switch {
	case path == "/api" || path == "/apis" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/"):
		h = s.discovery
	case strings.HasPrefix(path, "/openapi/"):
		h = s.openapi
	default:
		return x.notFound()
	}
	rec := &recorder{ResponseWriter: x.w}
	h.ServeHTTP(rec, x.r)
	x.code = rec.code
	return nil
}

// recorder remembers the status code.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

func (s *Server) version(x *exchange) error {
	v := s.cfg.GitVersion
	major, rest, _ := strings.Cut(strings.TrimPrefix(v, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	b, err := json.MarshalIndent(version.Info{Major: major, Minor: minor, GitVersion: v, GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH}, "", "  ")
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, codec.TypeJSON, b)
}

func (s *Server) index(x *exchange) error {
	paths := []string{"/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics",
		"/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/readyz", "/version"}
	for _, gv := range s.discovery.GroupVersions() {
		if gv.Group != "" {
			paths = append(paths, "/apis/"+gv.Group, "/apis/"+gv.String())
		}
	}
	slices.Sort(paths)
	b, err := json.MarshalIndent(map[string][]string{"paths": slices.Compact(paths)}, "", "  ")
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, codec.TypeJSON, b)
}

// health splits a path of the health checks: which check is asked for, "" for all.
func health(path string) (check string, ok bool) {
	for _, root := range []string{"/healthz", "/livez", "/readyz"} {
		if rest, found := strings.CutPrefix(path, root); found && (rest == "" || rest[0] == '/') {
			return strings.Trim(rest, "/"), true
		}
	}
	return "", false
}

// checks are the named health checks. The store is asked for its revision, which needs etcd's agreement.
func (s *Server) checks(path string) map[string]func(context.Context) error {
	m := map[string]func(context.Context) error{
		"ping": func(context.Context) error { return nil },
		"log":  func(context.Context) error { return nil }, // of klog's flushing, which nobody does here
		"etcd": func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := s.store.Revision(ctx)
			return err
		},
	}
	if strings.HasPrefix(path, "/readyz") {
		m["informer-sync"] = func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return s.store.WaitFor(ctx, 0)
		}
	}
	return m
}

func (s *Server) health(x *exchange, only string) error {
	checks := s.checks(x.info.Path)
	const text = "text/plain; charset=utf-8"
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	if only != "" {
		f, ok := checks[only]
		if !ok {
			return x.notFound()
		}
		if err := f(x.r.Context()); err != nil {
			return x.send(http.StatusInternalServerError, text, fmt.Appendf(nil, "internal server error: %v\n", err))
		}
		return x.send(http.StatusOK, text, []byte("ok"))
	}
	names := make([]string, 0, len(checks))
	for n := range checks {
		if !slices.Contains(x.q()["exclude"], n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out strings.Builder
	failed := false
	for _, n := range names {
		if checks[n](x.r.Context()) != nil {
			failed = true
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", n)
		} else {
			fmt.Fprintf(&out, "[+]%s ok\n", n)
		}
	}
	root := strings.Trim(x.info.Path, "/")
	switch {
	case failed:
		fmt.Fprintf(&out, "%s check failed\n", root)
		return x.send(http.StatusInternalServerError, text, []byte(out.String()))
	case x.q().Has("verbose"):
		fmt.Fprintf(&out, "%s check passed\n", root)
		return x.send(http.StatusOK, text, []byte(out.String()))
	}
	return x.send(http.StatusOK, text, []byte("ok"))
}
