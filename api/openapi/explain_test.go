package openapi

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	clientopenapi "k8s.io/client-go/openapi"
	explain "k8s.io/kubectl/pkg/explain/v2"
)

type local struct{}

func (local) Paths() (map[string]clientopenapi.GroupVersion, error) {
	out := map[string]clientopenapi.GroupVersion{}
	for path := range V3Paths() {
		if strings.Count(path, "/") == 0 || strings.HasPrefix(path, "apis/") && strings.Count(path, "/") == 1 {
			continue // not of a group-version
		}
		out[path] = document(strings.TrimPrefix(strings.TrimPrefix(path, "apis/"), "api/"))
	}
	return out, nil
}

type document string

func (d document) Schema(string) ([]byte, error) { return V3(string(d)) }
func (d document) ServerRelativeURL() string     { return "" }

// kubectl's own explain reads the documents.
func TestExplain(t *testing.T) {
	for want, c := range map[string]struct {
		fields []string
		gvr    schema.GroupVersionResource
	}{
		"List of containers belonging to the pod.":  {[]string{"spec", "containers"}, schema.GroupVersionResource{Version: "v1", Resource: "pods"}},
		"Number of desired pods.":                   {[]string{"spec", "replicas"}, schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}},
		"names specify the resource and kind names": {[]string{"spec", "names"}, schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}},
	} {
		var out bytes.Buffer
		if err := explain.PrintModelDescription(c.fields, &out, local{}, c.gvr, false, "plaintext"); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%v: %s", c.fields, out.String())
		}
	}
}
