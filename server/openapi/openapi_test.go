package openapi

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/validation/spec"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

// custom is one custom resource, or none.
type custom struct{ none bool }

func (c custom) Paths() map[string]string {
	if c.none {
		return nil
	}
	return map[string]string{"apis/example.com/v1": "AB"}
}

func (c custom) V3(string) ([]byte, error) {
	return []byte(`{"openapi":"3.0.0","info":{"title":"t","version":"v"},"paths":{"/apis/example.com/v1/widgets":{}}}`), nil
}

func (c custom) V2Hash() string {
	if c.none {
		return ""
	}
	return "AB"
}

func (c custom) V2Parts() (paths, definitions []byte, err error) {
	return []byte(`"/apis/example.com/v1/widgets":{"get":{"responses":{"200":{"description":"OK"}}}},`), []byte(`"com.example.v1.Widget":{"type":"object"},`), nil
}

// aggregated are extension servers with the given documents.
type aggregated []string

func (a aggregated) V3Paths() map[string]string {
	if len(a) == 0 {
		return nil
	}
	return map[string]string{"apis/far.example.com/v1": "/openapi/v3/apis/far.example.com/v1?hash=CD", "api/v1": "stolen"}
}

func (a aggregated) ServeV3(w http.ResponseWriter, _ *http.Request, path string) bool {
	if path != "apis/far.example.com/v1" {
		return false
	}
	_, _ = io.WriteString(w, "far")
	return true
}

func (a aggregated) Swaggers(context.Context) (out []Swagger) {
	for _, text := range a {
		doc := &spec.Swagger{}
		if err := json.Unmarshal([]byte(text), doc); err != nil {
			panic(err)
		}
		out = append(out, Swagger{Name: "v1.far.example.com", Hash: "1", Doc: doc})
	}
	return out
}

func get(t *testing.T, d *Documents, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	from := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		from = z
	}
	b, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type swaggerDoc struct {
	Swagger     string
	Paths       map[string]json.RawMessage
	Definitions map[string]json.RawMessage
	Parameters  map[string]json.RawMessage
}

// far shares a definition with the built-in kinds, has one that differs, and one of its own, which refers to both.
func far(t *testing.T) string {
	b, err := docs.V2()
	if err != nil {
		t.Fatal(err)
	}
	var base swaggerDoc
	if err := json.Unmarshal(b, &base); err != nil {
		t.Fatal(err)
	}
	const list, meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
	return `{"swagger":"2.0","info":{"title":"far","version":"v1"},"paths":{"/apis/far.example.com/v1/flunders":{"get":{"parameters":[{"$ref":"#/parameters/mine-1"}],
		"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/far.Flunder"}}}}}},
		"parameters":{"mine-1":{"name":"mine","in":"query","type":"string"}},
		"definitions":{"` + list + `":` + string(base.Definitions[list]) + `,"` + meta + `":{"type":"object","description":"another"},
		"io.k8s.apimachinery.pkg.apis.meta.v1.ShardInfo":` + string(base.Definitions["io.k8s.apimachinery.pkg.apis.meta.v1.ShardInfo"]) + `,
		"far.Flunder":{"type":"object","properties":{"metadata":{"$ref":"#/definitions/` + meta + `"},"list":{"$ref":"#/definitions/` + list + `"}}}}}`
}

func TestVersion2(t *testing.T) {
	plain := New(custom{none: true}, aggregated{})
	var before, after swaggerDoc
	if err := json.Unmarshal(body(t, get(t, plain, "/openapi/v2", "Accept-Encoding", "gzip")), &before); err != nil {
		t.Fatal(err)
	}
	d := New(custom{}, aggregated{far(t)})
	resp := get(t, d, "/openapi/v2", "Accept-Encoding", "gzip")
	if err := json.Unmarshal(body(t, resp), &after); err != nil {
		t.Fatal(err)
	}
	if after.Swagger != "2.0" || len(after.Paths) != len(before.Paths)+2 || len(after.Parameters) != len(before.Parameters)+1 {
		t.Errorf("%d paths and %d parameters after %d and %d", len(after.Paths), len(after.Parameters), len(before.Paths), len(before.Parameters))
	}
	const renamed = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta_v2"
	for _, name := range []string{"com.example.v1.Widget", "far.Flunder", renamed} {
		if after.Definitions[name] == nil {
			t.Errorf("no definition %s", name)
		}
	}
	if len(after.Definitions) != len(before.Definitions)+3 || !strings.Contains(string(after.Definitions["far.Flunder"]), renamed) {
		t.Errorf("%d definitions after %d; %s", len(after.Definitions), len(before.Definitions), after.Definitions["far.Flunder"])
	}

	const proto2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
	var pb openapiv2.Document
	if err := proto.Unmarshal(body(t, get(t, d, "/openapi/v2", "Accept", proto2)), &pb); err != nil {
		t.Fatal(err)
	}
	if pb.GetSwagger() != "2.0" || pb.GetInfo().GetTitle() != "Kubernetes" || len(pb.GetPaths().GetPath()) != len(after.Paths) ||
		len(pb.GetDefinitions().GetAdditionalProperties()) != len(after.Definitions) || len(pb.GetParameters().GetAdditionalProperties()) != len(after.Parameters) {
		t.Errorf("protobuf: %q, %d paths, %d definitions", pb.GetInfo(), len(pb.GetPaths().GetPath()), len(pb.GetDefinitions().GetAdditionalProperties()))
	}

	if resp.Header.Get("ETag") == get(t, plain, "/openapi/v2").Header.Get("ETag") {
		t.Error("the tag stays when the document changes")
	}
	for _, d := range []*Documents{plain, d} {
		etag := get(t, d, "/openapi/v2").Header.Get("ETag")
		if again := get(t, d, "/openapi/v2", "If-None-Match", etag); again.StatusCode != http.StatusNotModified {
			t.Errorf("the same document again: %d", again.StatusCode)
		}
	}
	if code := get(t, plain, "/openapi/v2", "Accept", "application/yaml").StatusCode; code != http.StatusNotAcceptable {
		t.Errorf("YAML: %d", code)
	}
}

func TestVersion3(t *testing.T) {
	d := New(custom{}, aggregated{far(t)})
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(body(t, get(t, d, "/openapi/v3")), &index); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"apis/example.com/v1": "?hash=AB", "apis/far.example.com/v1": "?hash=CD", "api/v1": "/openapi/v3/api/v1?hash=", "version": "/openapi/v3/version?"} {
		if u := index.Paths[path].ServerRelativeURL; !strings.Contains(u, want) {
			t.Errorf("%s is at %q", path, u)
		}
	}
	for _, c := range []struct {
		path, accept, contentType string
		code                      int
	}{
		{index.Paths["apis/apps/v1"].ServerRelativeURL, "", jsonType, 200},
		{index.Paths["apis/apps/v1"].ServerRelativeURL, v3Type + ",application/json", v3Type, 200},
		{"/openapi/v3/apis/apps/v1", "application/json," + v3Type, jsonType, 200},
		{"/openapi/v3/apis/example.com/v1", "", jsonType, 200},
		{"/openapi/v3/apis/example.com/v1", v3Type, v3Type, 200},
		{"/openapi/v3/apis/apps/v1?hash=OLD", "", jsonType, 301},
		{"/openapi/v3/apis/example.com/v1?hash=OLD", "", jsonType, 301},
		{"/openapi/v3/apis/nobody/v1", "", "", 404},
		{"/openapi/v3/", "", "", 404},
		{"/openapi/v4", "", "text/plain; charset=utf-8", 404},
		{"/openapi/v3/api/v1", "text/html", "", 406},
	} {
		resp := get(t, d, c.path, "Accept", c.accept)
		if resp.StatusCode != c.code || resp.Header.Get("Content-Type") != c.contentType {
			t.Errorf("%s %s: %d %s", c.path, c.accept, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		hashed := strings.Contains(c.path, "?hash=") && c.code == 200
		if got := resp.Header.Get("Cache-Control"); hashed != (got == "public, immutable") {
			t.Errorf("%s: Cache-Control %q", c.path, got)
		}
	}
	if got := string(body(t, get(t, d, "/openapi/v3/apis/far.example.com/v1"))); got != "far" {
		t.Errorf("an extension server's document: %q", got)
	}
}
