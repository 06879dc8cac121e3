package aggregation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// documents is what an extension server last said about its group-version. It never changes once it is published.
type documents struct {
	discovery apidiscoveryv2.APIVersionDiscovery
	etag      string            // of its aggregated discovery document
	v3        map[string]string // its OpenAPI 3 documents by path ("apis/example.com/v1"), and where they are
	noV3      bool              // it has none: they are made of its Swagger document
	failed    bool              // the last try failed; the rest is older
}

// aggregatedTypes asks for the discovery document that holds everything.
const aggregatedTypes = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList," +
	"application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"

// fetch reads the server's documents, and publishes them if they have changed. It reports whether all could be read.
func (s *Server) fetch(ctx context.Context, r *Remote) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*checkTimeout)
	defer cancel()
	old := r.docs.Load()
	if old == nil {
		old = &documents{discovery: apidiscoveryv2.APIVersionDiscovery{Version: r.spec.Version}}
	}
	next := *old
	err := s.fetchDiscovery(ctx, r, &next)
	next.failed = err != nil
	next.discovery.Freshness = apidiscoveryv2.DiscoveryFreshnessCurrent
	err = errors.Join(err, s.fetchV3(ctx, r, &next))
	if err != nil && ctx.Err() == nil {
		s.Log.Warn("reading an extension server's documents", "name", r.name, "error", err)
	}
	if r.docs.Load() != nil && reflect.DeepEqual(*old, next) {
		return err == nil
	}
	r.docs.Store(&next)
	s.publish()
	return err == nil
}

func (s *Server) fetchDiscovery(ctx context.Context, r *Remote, d *documents) error {
	a, err := s.ask(ctx, r, "/apis", map[string]string{"Accept": aggregatedTypes, "If-None-Match": d.etag})
	if err != nil {
		return err
	}
	switch {
	case a.code == http.StatusNotModified:
		return nil
	case a.code == http.StatusServiceUnavailable:
		return fmt.Errorf("%s: %d", a.url, a.code)
	case a.code != http.StatusOK || !strings.Contains(a.header.Get("Content-Type"), "as=APIGroupDiscoveryList"):
		return s.fetchLegacy(ctx, r, d)
	}
	// The two versions differ in their name alone.
	var list apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(a.body, &list); err != nil {
		return fmt.Errorf("%s: %w", a.url, err)
	}
	d.etag = a.header.Get("ETag")
	d.discovery = apidiscoveryv2.APIVersionDiscovery{Version: r.spec.Version}
	for _, g := range list.Items {
		for _, v := range g.Versions {
			if g.Name == r.spec.Group && v.Version == r.spec.Version {
				d.discovery = v
			}
		}
	}
	complete(&d.discovery)
	return nil
}

// complete fills in the kinds that older clients believe to be always there.
func complete(v *apidiscoveryv2.APIVersionDiscovery) {
	for i := range v.Resources {
		r := &v.Resources[i]
		if r.ResponseKind == nil {
			r.ResponseKind = &metav1.GroupVersionKind{}
		}
		for j := range r.Subresources {
			if sub := &r.Subresources[j]; sub.ResponseKind == nil {
				sub.ResponseKind = &metav1.GroupVersionKind{}
			}
		}
	}
}

// fetchLegacy reads the list of resources of servers that do not know aggregated discovery.
func (s *Server) fetchLegacy(ctx context.Context, r *Remote, d *documents) error {
	a, err := s.ask(ctx, r, r.root(), map[string]string{"Accept": "application/json"})
	if err != nil {
		return err
	}
	if a.code != http.StatusOK {
		return fmt.Errorf("failed to download legacy discovery for %s: %d", a.url, a.code)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(a.body, &list); err != nil {
		return fmt.Errorf("%s: %w", a.url, err)
	}
	d.etag = ""
	d.discovery = apidiscoveryv2.APIVersionDiscovery{Version: r.spec.Version, Resources: fromLegacy(list.APIResources, r)}
	return nil
}

// fromLegacy turns the list of resources into the newer form, in which subresources stand below their resource.
func fromLegacy(in []metav1.APIResource, r *Remote) []apidiscoveryv2.APIResourceDiscovery {
	var out []apidiscoveryv2.APIResourceDiscovery
	at := map[string]int{}
	find := func(name string) *apidiscoveryv2.APIResourceDiscovery {
		i, ok := at[name]
		if !ok {
			i = len(out)
			at[name] = i
			out = append(out, apidiscoveryv2.APIResourceDiscovery{Resource: name, Scope: apidiscoveryv2.ScopeCluster, ResponseKind: &metav1.GroupVersionKind{}})
		}
		return &out[i]
	}
	for _, x := range in {
		kind := &metav1.GroupVersionKind{Group: x.Group, Version: x.Version, Kind: x.Kind}
		if kind.Group == "" && kind.Version == "" {
			kind.Group, kind.Version = r.spec.Group, r.spec.Version
		}
		name, sub, isSub := strings.Cut(x.Name, "/")
		res := find(name)
		if x.Namespaced {
			res.Scope = apidiscoveryv2.ScopeNamespace
		}
		if isSub {
			res.Subresources = append(res.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: x.Verbs})
			continue
		}
		res.ResponseKind, res.SingularResource, res.Verbs, res.ShortNames, res.Categories = kind, x.SingularName, x.Verbs, x.ShortNames, x.Categories
	}
	return out
}
