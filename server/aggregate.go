package server

import (
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/server/aggregation"
	"github.com/skiff-sh/skiff/server/discovery"
	"github.com/skiff-sh/skiff/server/openapi"
)

// newAggregation makes the part that knows other API servers, and the documents, which tell of them too.
func (s *Server) newAggregation() {
	s.aggregation = aggregation.New(aggregation.Config{Store: s.store, Kinds: s.kinds, Client: s.Local(self),
		Certificate: s.cfg.ProxyCertificate, Metrics: s.metrics.registry, Log: s.cfg.Log})
	s.run = append(s.run, s.aggregation.Run)
	s.discovery = discovery.New(discovery.Config{Table: s.kinds, Registrations: s.aggregation.Registrations, Address: s.cfg.ExternalAddress})
	s.openapi = openapi.New(s.custom, s.aggregation)
}

// remote is the extension server that a request is for; nil if it is for this one.
func (s *Server) remote(x *exchange) *aggregation.Remote {
	if x.info.IsResource() {
		return s.aggregation.Remote(x.info.Group, x.info.Version)
	}
	rest, ok := strings.CutPrefix(x.info.Path, "/apis/")
	if !ok {
		return nil
	}
	group, version, _ := strings.Cut(strings.TrimRight(rest, "/"), "/")
	return s.aggregation.Remote(group, version)
}

// discover answers with a discovery document.
func (s *Server) discover(x *exchange) error {
	a, err := s.discovery.Answer(x.r)
	switch {
	case err != nil:
		return err
	case a == nil:
		return x.notFound()
	case discovery.Routed(x.info.Path) && x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		return notAllowed(schema.GroupResource{}, x.info.Verb)
	}
	if a.ETag != "" {
		h := x.w.Header()
		h.Set("ETag", a.ETag)
		h.Set("Vary", "Accept")
		h.Set("Cache-Control", "public")
		if a.Code == http.StatusNotModified {
			x.code = a.Code
			x.w.WriteHeader(a.Code)
			return nil
		}
	}
	return x.send(a.Code, a.ContentType, a.Body)
}

// unserved is the answer for a resource that nobody serves: an API error where the group is a built-in one.
func (s *Server) unserved(x *exchange) error {
	if !s.discovery.Builtin(x.info.Group) {
		return x.notFound()
	}
	return discovery.NotFound()
}
