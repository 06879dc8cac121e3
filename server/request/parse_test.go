package request_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/request"
)

func parse(table *api.Table, method, target string) *request.Info {
	path, query, _ := strings.Cut(target, "?")
	return request.Parse(table, method, path, func() url.Values {
		q, err := url.ParseQuery(query)
		if err != nil {
			return url.Values{}
		}
		return q
	})
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/", "get - - - - - -"},
		{"GET", "/api", "get - - - - - -"},
		{"GET", "/api/v1", "get - - - - - -"},
		{"GET", "/apis/apps/v1", "get - - - - - -"},
		{"GET", "/api/v1/pods", "list - v1 pods - - -"},
		{"GET", "/api/v1/pods?watch=true", "watch - v1 pods - - -"},
		{"GET", "/api/v1/pods?watch=1", "watch - v1 pods - - -"},
		{"GET", "/api/v1/pods?watch=false", "list - v1 pods - - -"},
		{"GET", "/api/v1/watch/pods", "watch - v1 pods - - -"},
		{"GET", "/api/v1/watch/namespaces/a/pods/b", "watch - v1 pods a b -"},
		{"GET", "/api/v1/namespaces", "list - v1 namespaces - - -"},
		{"GET", "/api/v1/namespaces/a", "get - v1 namespaces a a -"},
		{"PUT", "/api/v1/namespaces/a/finalize", "update - v1 namespaces a a finalize"},
		{"PATCH", "/api/v1/namespaces/a/status", "patch - v1 namespaces a a status"},
		{"GET", "/api/v1/namespaces/a/pods/b", "get - v1 pods a b -"},
		{"GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Db", "list - v1 pods a b -"},
		{"POST", "/api/v1/namespaces/a/pods/b/binding", "create - v1 pods a b binding"},
		{"DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps v1 deployments a - -"},
		{"DELETE", "/apis/apps/v1/namespaces/a/deployments/d", "delete apps v1 deployments a d -"},
		{"HEAD", "/apis/apps/v1/namespaces/a/deployments/d", "get apps v1 deployments a d -"},
		{"GET", "/api/v1/namespaces/a/services/http:s:80/proxy/x/y/", "get - v1 services a http:s:80 proxy /x/y/"},
		{"GET", "/metrics", "get - - - - - -"},
	} {
		i := parse(builtin.Table(), c.method, c.target)
		f := []string{i.Verb, i.Group, i.Version, i.Resource, i.Namespace, i.Name, i.Subresource, i.Rest}
		for j := range f[:7] {
			if f[j] == "" {
				f[j] = "-"
			}
		}
		if got := strings.TrimSpace(strings.Join(f, " ")); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.method, c.target, got, c.want)
		}
		if i.IsResource() && i.Kind == nil {
			t.Errorf("%s: no row", c.target)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/api/v1/pods", "/apis/a/b/namespaces/c/d/e/f/g", "/api/v1/watch/", "//", "/api/v1/namespaces//pods", "/apis///namespaces/"} {
		f.Add("GET", s)
	}
	table := builtin.Table()
	f.Fuzz(func(t *testing.T, method, target string) {
		i := parse(table, method, target)
		if strings.Contains(i.Namespace+i.Name+i.Subresource+i.Resource, "/") {
			t.Errorf("%q: a slash in %+v", target, i)
		}
		if i.Kind != nil && i.Kind.Plural != i.Resource {
			t.Errorf("%q: the row %s for %s", target, i.Kind, i.Resource)
		}
	})
}
