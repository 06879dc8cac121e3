package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

// TestManifestsAreStrictlyValid decodes every manifest with unknown and repeated fields being errors.
func TestManifestsAreStrictlyValid(t *testing.T) {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("manifests: %v, %v", files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range strings.Split(string(raw), "\n---\n") {
			object, _, err := strict.Decode([]byte(document), nil, nil)
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			checkCatalog(t, object)
		}
	}
}

func checkCatalog(t *testing.T, object runtime.Object) {
	config, ok := object.(*corev1.ConfigMap)
	if !ok || config.Name != "catalog" {
		return
	}
	var products []product
	if err := json.Unmarshal([]byte(config.Data["products.json"]), &products); err != nil || len(products) == 0 {
		t.Errorf("catalog: %d products, %v", len(products), err)
	}
}
