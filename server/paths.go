package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/server/codec"
)

// servePath answers for the paths that are no resources.
func (s *Server) servePath(x *exchange) error {
	path := x.info.Path
	if path == "/api" || path == "/apis" || strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/apis/") {
		return s.discover(x)
	}
	// As upstream's, most of these paths answer to every method.
	read := x.r.Method == http.MethodGet || x.r.Method == http.MethodHead
	switch path {
	case "/version", "/version/", "/.well-known/openid-configuration", "/openid/v1/jwks":
		if !read {
			return notAllowed(schema.GroupResource{}, x.info.Verb)
		}
	}
	switch path {
	case "/version", "/version/":
		return s.version(x)
	case "/metrics":
		x.w.Header().Set("Process-Start-Time-Unix", strconv.FormatInt(s.metrics.started.Unix(), 10))
		return s.foreign(x, s.metrics.handler)
	case "/metrics/slis":
		x.w.Header().Set("Process-Start-Time-Unix", strconv.FormatInt(s.metrics.started.Unix(), 10))
		return s.slis(x)
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
	if root, name, ok := healthPath(path); ok {
		return s.health(x, root, name)
	}
	if h, ok := s.debug(path); ok && read {
		return s.foreign(x, h)
	}
	if strings.HasPrefix(path, "/openapi/") {
		return s.foreign(x, s.openapi)
	}
	return x.notFound()
}

// recorder remembers the status code.
type recorder struct {
	http.ResponseWriter
	code int
	size int // bytes written
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.size += n
	return n, err
}

func (s *Server) version(x *exchange) error {
	b, err := json.MarshalIndent(s.cfg.version(), "", "  ")
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, codec.TypeJSON, b)
}

func (s *Server) index(x *exchange) error {
	paths := append(s.discovery.Paths(), "/.well-known/openid-configuration", "/flagz", "/healthz", "/livez", "/metrics", "/metrics/slis",
		"/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/readyz", "/statusz", "/version")
	for _, root := range []string{"healthz", "livez", "readyz"} {
		for _, c := range s.checksOf(root) {
			paths = append(paths, "/"+root+"/"+c.name)
		}
	}
	slices.Sort(paths)
	b, err := json.MarshalIndent(map[string][]string{"paths": slices.Compact(paths)}, "", "  ")
	if err != nil {
		return err
	}
	return x.send(http.StatusOK, codec.TypeJSON, b)
}
