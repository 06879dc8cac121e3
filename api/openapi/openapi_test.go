package openapi

import (
	"encoding/json"
	"testing"

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
	if len(paths) != 22 || paths["api/v1"] == "" || paths["apis/apps/v1"] == "" {
		t.Errorf("documents: %v", paths)
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
