package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"testing"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"github.com/skiff-sh/skiff/api/builtin"
)

type v3 struct {
	Paths      map[string]map[string]any
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any
			GVK        []struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
		}
	}
}

// kubectl explain finds a kind's schema by its group, version and kind.
func TestEveryKindHasASchema(t *testing.T) {
	docs := map[string]*v3{}
	for _, k := range builtin.Kinds() {
		gv := k.GroupVersion().String()
		if docs[gv] == nil {
			b, err := V3(gv)
			if err != nil {
				t.Fatal(err)
			}
			docs[gv] = &v3{}
			if err := json.Unmarshal(b, docs[gv]); err != nil {
				t.Fatal(err)
			}
		}
		found := false
		for _, s := range docs[gv].Components.Schemas {
			for _, g := range s.GVK {
				found = found || g.Group == k.Group && g.Version == k.Version && g.Kind == k.Kind && s.Properties["metadata"] != nil
			}
		}
		if !found {
			t.Errorf("no schema for %s", k.GroupVersionKind())
		}
		path := "/apis/" + gv
		if k.Group == "" {
			path = "/api/v1"
		}
		if k.Namespaced {
			path += "/namespaces/{namespace}"
		}
		if docs[gv].Paths[path+"/"+k.Plural] == nil {
			t.Errorf("no path %s", path+"/"+k.Plural)
		}
		for _, s := range k.Subresources {
			if docs[gv].Paths[path+"/"+k.Plural+"/{name}/"+s.Name] == nil {
				t.Errorf("no path for %s/%s", k.Plural, s.Name)
			}
		}
	}
	paths := V3Paths()
	for _, want := range []string{"api", "api/v1", "apis", "apis/apps", "apis/apps/v1", "version", "openid/v1/jwks", ".well-known/openid-configuration"} {
		if paths[want] == "" {
			t.Errorf("no document %s", want)
		}
	}
}

func TestV2(t *testing.T) {
	b, err := V2()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Swagger     string
		Paths       map[string]any
		Definitions map[string]struct {
			Properties map[string]map[string]any
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	containers := doc.Definitions["io.k8s.api.core.v1.PodSpec"].Properties["containers"]
	if doc.Swagger != "2.0" || containers["x-kubernetes-patch-merge-key"] != "name" || containers["x-kubernetes-list-type"] != "map" {
		t.Errorf("swagger %q, containers %v", doc.Swagger, containers)
	}
	if d, ok := doc.Definitions["io.k8s.api.core.v1.Pod"].Properties["metadata"]["default"]; ok {
		t.Errorf("the 2.0 document has defaults, which its readers do not expect: %v", d)
	}
	if doc.Paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"] == nil {
		t.Error("no path for exec")
	}
}

// What goes out as gzip is what unpacking gives, in both encodings.
func TestGzip(t *testing.T) {
	get := func(d *Document, err error) *Document {
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	v2, v3 := &openapiv2.Document{}, &openapiv3.Document{}
	for _, c := range []struct {
		doc  *Document
		into proto.Message
	}{{get(V2Document(false)), nil}, {get(V2Document(true)), v2}, {get(V3Document("apis/apps/v1", false)), nil}, {get(V3Document("apis/apps/v1", true)), v3}} {
		plain, err := c.doc.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		pieces, err := c.doc.Gzip()
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(bytes.NewReader(bytes.Join(pieces, nil)))
		if err != nil {
			t.Fatal(err)
		}
		unpacked, err := io.ReadAll(z)
		if err != nil || !bytes.Equal(plain, unpacked) {
			t.Errorf("%s: %v, %d and %d bytes", c.doc.file.Name, err, len(plain), len(unpacked))
		}
		if c.into != nil {
			if err := proto.Unmarshal(plain, c.into); err != nil {
				t.Error(err)
			}
		}
	}
	if len(v2.GetDefinitions().GetAdditionalProperties()) < 300 || len(v3.GetPaths().GetPath()) < 30 {
		t.Error("the protobuf documents are empty")
	}
	if d, err := V3Document("apis/nobody/v1", false); d != nil || err != nil {
		t.Error(d, err)
	}
}
