package discovery

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

const v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// ask returns the answer for a path, whose body is read into out where that is not nil.
func ask(t *testing.T, d *Documents, path, accept string, out any) (*Answer, error) {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Accept", accept)
	a, err := d.Answer(r)
	if err == nil && a != nil && out != nil {
		if err := json.Unmarshal(a.Body, out); err != nil {
			t.Fatal(err)
		}
	}
	return a, err
}

func names(l apidiscoveryv2.APIGroupDiscoveryList) (out []string) {
	for _, g := range l.Items {
		out = append(out, g.Name)
	}
	return out
}

// widget is a custom resource's row.
func widget(group, version string) *api.Kind {
	return &api.Kind{Group: group, Version: version, Kind: "Widget", Plural: "widgets", Singular: "widget", CRD: true, StoragePath: group + "/widgets"}
}

func TestOrder(t *testing.T) {
	regs := &Registrations{All: []Registration{
		{GroupVersion: schema.GroupVersion{Group: "zoo.example.com", Version: "v1"}, GroupPriority: 1000, VersionPriority: 100},
		{GroupVersion: schema.GroupVersion{Group: "zoo.example.com", Version: "v2beta1"}, GroupPriority: 1000, VersionPriority: 100},
		{GroupVersion: schema.GroupVersion{Group: "zoo.example.com", Version: "v10"}, GroupPriority: 1000, VersionPriority: 100},
		{GroupVersion: schema.GroupVersion{Group: "ant.example.com", Version: "v2"}, GroupPriority: 1000, VersionPriority: 100},
		{GroupVersion: schema.GroupVersion{Group: "far.example.com", Version: "v1"}, GroupPriority: 17900, VersionPriority: 1,
			Remote: &apidiscoveryv2.APIVersionDiscovery{Version: "v1", Freshness: apidiscoveryv2.DiscoveryFreshnessStale}},
		{GroupVersion: schema.GroupVersion{Group: "gone.example.com", Version: "v1"}, GroupPriority: 1000, VersionPriority: 100},
	}}
	table := api.NewTable(append(builtin.Kinds(), widget("zoo.example.com", "v1"), widget("zoo.example.com", "v2beta1"),
		widget("zoo.example.com", "v10"), widget("ant.example.com", "v2"))...)
	d := New(Config{Table: table, Registrations: func() *Registrations { return regs }})
	var list apidiscoveryv2.APIGroupDiscoveryList
	if _, err := ask(t, d, "/apis", v2, &list); err != nil {
		t.Fatal(err)
	}
	got := names(list)
	want := []string{"apiregistration.k8s.io", "far.example.com", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
		"certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io",
		"scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io", "discovery.k8s.io", "resource.k8s.io", "flowcontrol.apiserver.k8s.io", "ant.example.com", "zoo.example.com"}
	if !slices.Equal(got, want) {
		t.Errorf("groups:\n%v\nwant\n%v", got, want)
	}
	zoo := list.Items[len(list.Items)-1].Versions
	if len(zoo) != 3 || zoo[0].Version != "v10" || zoo[1].Version != "v1" || zoo[2].Version != "v2beta1" {
		t.Errorf("versions: %+v", zoo)
	}
	if far := list.Items[1].Versions[0]; far.Freshness != apidiscoveryv2.DiscoveryFreshnessStale {
		t.Errorf("an extension server's version: %+v", far)
	}
	// In the plain list, the name of the APIService (v1.zoo before v2.ant) decides between equals.
	var groups metav1.APIGroupList
	if _, err := ask(t, d, "/apis", "application/json", &groups); err != nil {
		t.Fatal(err)
	}
	last := groups.Groups[len(groups.Groups)-2:]
	if last[0].Name != "zoo.example.com" || last[1].Name != "ant.example.com" || last[0].PreferredVersion.Version != "v10" {
		t.Errorf("the last groups: %+v", last)
	}
}

func TestChanges(t *testing.T) {
	table := api.NewTable(builtin.Kinds()...)
	regs := &Registrations{}
	d := New(Config{Table: table, Registrations: func() *Registrations { return regs }})
	etag := func() string {
		a, err := ask(t, d, "/apis", v2, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/apis", nil)
		r.Header.Set("Accept", v2)
		r.Header.Set("If-None-Match", a.ETag)
		if again, err := d.Answer(r); err != nil || again.Code != http.StatusNotModified || len(again.Body) != 0 {
			t.Fatalf("the same document again: %+v %v", again, err)
		}
		return a.ETag
	}
	first := etag()
	if first != etag() {
		t.Error("the tag changes by itself")
	}
	if err := table.Add(widget("example.com", "v1")); err != nil {
		t.Fatal(err)
	}
	second := etag()
	regs = &Registrations{All: []Registration{{GroupVersion: schema.GroupVersion{Group: "far.example.com", Version: "v1"}, GroupPriority: 2000, VersionPriority: 1,
		Remote: &apidiscoveryv2.APIVersionDiscovery{Version: "v1"}}}}
	if third := etag(); first == second || second == third {
		t.Error("the tag stays after a change")
	}
}

func TestAnswers(t *testing.T) {
	d := New(Config{Table: api.NewTable(append(builtin.Kinds(), widget("example.com", "v1"))...), Address: "192.0.2.1:6443"})
	const protobuf, yaml = "application/vnd.kubernetes.protobuf", "application/yaml"
	for _, c := range []struct {
		path, accept string
		code         int    // 0: nobody serves the path
		contentType  string // of an answer
		has          string // in its body
	}{
		{"/api", "", 200, "application/json", `"serverAddress":"192.0.2.1:6443"`},
		{"/api/", yaml, 200, yaml, "kind: APIVersions"},
		{"/api", protobuf, 200, protobuf, "APIVersions"},
		{"/api/v1", "*/*", 200, "application/json", `"name":"pods/log"`},
		{"/api/v2", "", 404, "", "the server could not find the requested resource"},
		{"/apis/apps", "", 200, "application/json", `"kind":"APIGroup"`},
		{"/apis/apps/v1/", protobuf + ",application/json", 200, protobuf, "deployments"},
		{"/apis/apps/v1", "text/plain", 406, "", "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml"},
		{"/apis/apps/v9", "", 404, "", "the server could not find the requested resource"},
		{"/apis/example.com/v1", "", 200, "application/json", `"verbs":["delete","deletecollection","get","list","patch","create","update","watch"]`},
		{"/apis/example.com/v9", "", 0, "", ""},
		{"/apis/nobody", "", 0, "", ""},
		{"/apis/nobody/v1", "", 0, "", ""},
		{"/apis", v2, 200, v2, `"apiVersion":"apidiscovery.k8s.io/v2"`},
		{"/apis", v2 + ",application/json", 200, v2, "apps"},
		{"/apis", "application/json," + v2, 200, "application/json", "APIGroupList"},
		{"/apis", v2 + ";profile=nopeer", 200, v2, "apps"},
		{"/api", strings.Replace(v2, "json", "vnd.kubernetes.protobuf", 1), 200, strings.Replace(v2, "json", "vnd.kubernetes.protobuf", 1), "k8s\x00"},
		{"/apis", strings.Replace(v2, "json", "yaml", 1), 200, strings.Replace(v2, "json", "yaml", 1), "\nitems:\n"},
		{"/apis", strings.Replace(v2, "v=v2", "v=v2beta1", 1), 406, "", "only the following media types"},
		{"/apis", strings.Replace(v2, "v=v2", "v=v3", 1) + ",application/json", 200, "application/json", "APIGroupList"},
		{"/apis/apps", v2, 406, "", "only the following media types"},
		{"/apis", "text/plain", 406, "", "only the following media types"},
	} {
		a, err := ask(t, d, c.path, c.accept, nil)
		switch {
		case err != nil:
			status, ok := err.(apierrors.APIStatus)
			if !ok || int(status.Status().Code) != c.code || !strings.Contains(err.Error(), c.has) {
				t.Errorf("%s %q: %v", c.path, c.accept, err)
			}
		case a == nil:
			if c.code != 0 {
				t.Errorf("%s %q: nothing", c.path, c.accept)
			}
		case a.Code != c.code || a.ContentType != c.contentType || !strings.Contains(string(a.Body), c.has):
			t.Errorf("%s %q: %d %s %.200s", c.path, c.accept, a.Code, a.ContentType, a.Body)
		}
	}
}
