package aggregation

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/transport"
)

// Handler passes requests of one user on to an extension server.
func (s *Server) Handler(r *Remote, u user.Info) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { s.Serve(w, req, u, r) })
}

// Serve passes a request on to an extension server in the name of the user who made it. The answer streams: watches and
// upgraded connections last as long as both sides, and the request's context, want.
func (s *Server) Serve(w http.ResponseWriter, req *http.Request, u user.Info, r *Remote) {
	if !s.routes.Load().available[r.name] {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if r.broken != nil {
		http.Error(w, r.broken.Error(), http.StatusInternalServerError)
		return
	}
	host, err := s.place(r.spec.Service).host(r.spec.Service, rand.IntN)
	if err != nil {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if discovers(req.URL.Path) {
		// A slow server must not hold up clients that ask all servers what they have.
		ctx, cancel := context.WithTimeout(req.Context(), checkTimeout)
		defer cancel()
		req = req.WithContext(ctx)
	}
	rt := r.plain
	if upgrades(req) {
		rt = r.upgrade
	}
	p := &httputil.ReverseProxy{
		Transport: rt,
		Rewrite:   func(pr *httputil.ProxyRequest) { rewrite(pr, host, u, w.Header().Get("Audit-Id")) },
		ModifyResponse: func(res *http.Response) error {
			refuseRedirect(res)
			for _, h := range []string{"Audit-Id", "Cache-Control"} {
				if res.Header.Get(h) != "" {
					w.Header().Del(h) // the extension server's stands
				}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			if req.Context().Err() == nil {
				tell(r.changed)
			}
			http.Error(w, "error trying to reach service: "+err.Error(), http.StatusServiceUnavailable)
		},
		ErrorLog: log.New(io.Discard, "", 0), // a client that goes away in the middle of an answer is no news
	}
	p.ServeHTTP(w, req)
}

func upgrades(req *http.Request) bool {
	return strings.Contains(strings.ToLower(req.Header.Get("Connection")), "upgrade")
}

// discovers reports whether a path is that of a group-version's list of resources.
func discovers(path string) bool {
	return strings.HasPrefix(path, "/apis/") && strings.Count(strings.Trim(path, "/"), "/") == 2
}

func rewrite(pr *httputil.ProxyRequest, host string, u user.Info, auditID string) {
	in, out := pr.In, pr.Out
	out.URL = &url.URL{Scheme: "https", Host: host, Path: in.URL.Path, RawPath: in.URL.RawPath, RawQuery: in.URL.RawQuery}
	out.Host = host
	out.Header["X-Forwarded-For"] = slices.Clone(in.Header["X-Forwarded-For"])
	pr.SetXForwarded()
	out.Header.Del("Authorization")
	if auditID != "" {
		out.Header.Set("Audit-ID", auditID)
	}
	transport.SetAuthProxyHeaders(out, u.GetName(), u.GetUID(), u.GetGroups(), u.GetExtra())
}

// refuseRedirect keeps an extension server from sending the user's credentials elsewhere.
func refuseRedirect(res *http.Response) {
	if res.StatusCode < 300 || res.StatusCode > 399 || res.Header.Get("Location") == "" {
		return
	}
	res.Body.Close()
	const text = "the backend attempted to redirect this request, which is not permitted"
	res.StatusCode, res.Status, res.Header = http.StatusBadGateway, "", http.Header{}
	res.Body, res.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
}
