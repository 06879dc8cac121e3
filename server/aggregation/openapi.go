package aggregation

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"k8s.io/kube-openapi/pkg/aggregator"
	"k8s.io/kube-openapi/pkg/openapiconv"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/server/openapi"
	"github.com/skiff-sh/skiff/server/request"
)

// swagger is an extension server's Swagger 2.0 document, as far as it is about the remote's group-version.
type swagger struct {
	doc  *spec.Swagger // nil: there is none
	etag string        // as the server gave it; "" if it gave none
	hash string        // of the content
	read time.Time
}

// swaggerAge is how long a Swagger document is served before the server is asked again.
const swaggerAge = 30 * time.Second

// fetchV3 reads where the OpenAPI 3 documents of the group-version are.
func (s *Server) fetchV3(ctx context.Context, r *Remote, d *documents) error {
	a, err := s.ask(ctx, r, "/openapi/v3", map[string]string{"Accept": "application/json"})
	if err != nil {
		return err
	}
	d.v3, d.noV3 = map[string]string{}, false
	switch a.code {
	case http.StatusOK:
	case http.StatusNotFound:
		d.noV3 = true
		sw, err := s.swagger(ctx, r)
		if err == nil && sw.doc != nil {
			d.v3[r.v3Path()] = v3URL(r.v3Path(), sw.hash)
		}
		return err
	default:
		return fmt.Errorf("%s: %d", a.url, a.code)
	}
	var index struct {
		Paths map[string]struct {
			URL string `json:"serverRelativeURL"`
		}
	}
	if err := json.Unmarshal(a.body, &index); err != nil {
		return fmt.Errorf("%s: %w", a.url, err)
	}
	for path, e := range index.Paths {
		// What the server has beyond its own group is not for this server to tell.
		if path == r.v3Path() || path == "apis/"+r.spec.Group {
			d.v3[path] = e.URL
		}
	}
	return nil
}

func (r *Remote) v3Path() string { return strings.TrimPrefix(r.root(), "/") }

func v3URL(path, hash string) string { return "/openapi/v3/" + path + "?hash=" + hash }

// V3Paths are the paths of the OpenAPI 3 documents of extension servers, and where they are.
func (s *Server) V3Paths() map[string]string {
	out := map[string]string{}
	for _, r := range s.routes.Load().remote {
		if d := r.docs.Load(); d != nil {
			for path, u := range d.v3 {
				out[path] = u
			}
		}
	}
	return out
}

// ServeV3 answers for one OpenAPI 3 document of an extension server. It reports whether there is such a document.
func (s *Server) ServeV3(w http.ResponseWriter, req *http.Request, path string) bool {
	for _, r := range s.routes.Load().remote {
		d := r.docs.Load()
		if d == nil || d.v3[path] == "" {
			continue
		}
		if !d.noV3 {
			s.Serve(w, req, request.From(req.Context()).User, r)
			return true
		}
		if err := s.serveConverted(w, req, path, r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		return true
	}
	return false
}

// serveConverted makes the document of a server that has only a Swagger one.
func (s *Server) serveConverted(w http.ResponseWriter, req *http.Request, path string, r *Remote) error {
	sw, err := s.swagger(req.Context(), r)
	if err != nil {
		return err
	}
	if sw.doc == nil {
		return fmt.Errorf("%s has no OpenAPI document any more", r.name)
	}
	if asked := req.URL.Query().Get("hash"); asked != "" && asked != sw.hash {
		http.Redirect(w, req, v3URL(path, sw.hash), http.StatusMovedPermanently)
		return nil
	}
	return openapi.Send(w, req, sw.hash, openapiconv.ConvertV2ToV3(sw.doc))
}

// Swaggers are the Swagger 2.0 documents of the extension servers that answer.
func (s *Server) Swaggers(ctx context.Context) []openapi.Swagger {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	routes := s.routes.Load()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []openapi.Swagger
	for _, r := range routes.remote {
		if !routes.available[r.name] {
			continue
		}
		wg.Go(func() {
			sw, err := s.swagger(ctx, r)
			if err != nil || sw.doc == nil {
				return // the others' documents are worth having
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, openapi.Swagger{Name: r.name, Hash: sw.hash, Doc: sw.doc})
		})
	}
	wg.Wait()
	return out
}

// swagger is the remote's Swagger document, asked for anew when it is old.
func (s *Server) swagger(ctx context.Context, r *Remote) (*swagger, error) {
	r.v2mu.Lock()
	defer r.v2mu.Unlock()
	header := map[string]string{"Accept": "application/json"}
	if r.v2 != nil {
		if time.Since(r.v2.read) < swaggerAge {
			return r.v2, nil
		}
		header["If-None-Match"] = r.v2.etag
	}
	a, err := s.ask(ctx, r, "/openapi/v2", header)
	if err != nil {
		return nil, err
	}
	next := &swagger{read: time.Now(), etag: a.header.Get("ETag")}
	switch a.code {
	case http.StatusNotModified:
		kept := *r.v2
		kept.read = next.read
		next = &kept
	case http.StatusOK:
		doc := &spec.Swagger{}
		if err := json.Unmarshal(a.body, doc); err != nil {
			return nil, fmt.Errorf("%s: %w", a.url, err)
		}
		// Copied, so that what is left out is not kept in memory.
		b, err := json.Marshal(aggregator.FilterSpecByPathsWithoutSideEffects(doc, []string{r.root() + "/"}))
		if err != nil {
			return nil, err
		}
		next.doc, next.hash = &spec.Swagger{}, fmt.Sprintf("%X", sha512.Sum512(b))
		if err := json.NewDecoder(bytes.NewReader(b)).Decode(next.doc); err != nil {
			return nil, err
		}
	case http.StatusNotFound:
	default:
		return nil, fmt.Errorf("%s: %d", a.url, a.code)
	}
	r.v2 = next
	return next, nil
}
