package server_test

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/rest"
)

// gadgets have two versions whose schemas differ.
const gadgets = `
metadata: {name: gadgets.example.com, uid: x}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  conversion: {strategy: None}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    selectableFields: [{jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, default: 1, maximum: 10}}}
          status: {type: object, properties: {ready: {type: boolean}}}
  - name: v1beta1
    served: true
    deprecated: true
    subresources: {scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, maximum: 5}, color: {type: string, default: red}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
status:
  acceptedNames: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  storedVersions: [v1]
  conditions: [{type: NamesAccepted, status: "True", reason: NoConflicts}, {type: Established, status: "True", reason: InitialNamesAccepted}]
`

func startGadgets(t *testing.T, edit func(*apiextensionsv1.CustomResourceDefinition)) *fixture {
	t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(gadgets), crd); err != nil {
		t.Fatal(err)
	}
	edit(crd)
	srv, err := server.New(server.Config{Store: memstore.New(crd), Kinds: api.NewTable(builtin.Kinds()...), Authenticator: tokenUsers,
		Authorizer: rootOnly, Admission: &admission.Chain{}, Extensions: &rest.Extensions{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(srv.Handler())
	t.Cleanup(h.Close)
	return &fixture{t: t, srv: srv, http: h}
}

func fieldAt(m map[string]any, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(m, path...)
	return v
}

const (
	gadgetsV1   = "/apis/example.com/v1/namespaces/a/gadgets"
	gadgetsBeta = "/apis/example.com/v1beta1/namespaces/a/gadgets"
)

// A request is judged, defaulted and answered by the version that it speaks.
func TestEveryVersionHasItsSchema(t *testing.T) {
	f := startGadgets(t, func(*apiextensionsv1.CustomResourceDefinition) {})
	beta := func(name, spec string) string {
		return `{"apiVersion":"example.com/v1beta1","kind":"Gadget","metadata":{"name":"` + name + `"},"spec":` + spec + `,"status":{"size":2}}`
	}
	f.must(422, "POST", gadgetsBeta, beta("big", `{"size":7}`))
	got := f.must(201, "POST", gadgetsBeta, beta("one", `{"size":3}`))
	if fieldAt(got, "apiVersion") != "example.com/v1beta1" || fieldAt(got, "status", "size") != nil {
		t.Errorf("got %v", got) // the storage version has no status.size
	}
	got = f.must(200, "GET", gadgetsV1+"/one", "")
	if fieldAt(got, "apiVersion") != "example.com/v1" || fieldAt(got, "spec", "color") != nil || fieldAt(got, "spec", "size") != 3.0 {
		t.Errorf("got %v", got)
	}
	// Its maximum is the other version's.
	f.must(200, "PATCH", gadgetsV1+"/one", `{"spec":{"size":7}}`, "Content-Type", "application/merge-patch+json")
	items := fieldAt(f.must(200, "GET", gadgetsBeta, ""), "items").([]any)
	if item := items[0].(map[string]any); len(items) != 1 || item["apiVersion"] != "example.com/v1beta1" || item["kind"] != "Gadget" {
		t.Errorf("got %v", items)
	}
	f.must(422, "PATCH", gadgetsBeta+"/one", `{"spec":{"size":8}}`, "Content-Type", "application/merge-patch+json")
	if l := f.must(200, "GET", gadgetsV1+"?fieldSelector=spec.size%3D7", ""); len(fieldAt(l, "items").([]any)) != 1 {
		t.Errorf("got %v", l)
	}
	f.must(400, "GET", gadgetsBeta+"?fieldSelector=spec.size%3D7", "")
}

func TestSubresourcesOfVersions(t *testing.T) {
	f := startGadgets(t, func(*apiextensionsv1.CustomResourceDefinition) {})
	f.must(201, "POST", gadgetsV1, `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"one"},"spec":{"size":2}}`)
	if s := f.must(404, "GET", gadgetsV1+"/one/scale", ""); s["reason"] != "NotFound" {
		t.Errorf("got %v", s)
	}
	f.must(404, "GET", gadgetsBeta+"/one/status", "")
	if s := f.must(200, "GET", gadgetsBeta+"/one/scale", ""); fieldAt(s, "spec", "replicas") != 2.0 {
		t.Errorf("got %v", s)
	}
	merge := []string{"Content-Type", "application/merge-patch+json"}
	f.must(422, "PATCH", gadgetsBeta+"/one/scale", `{"spec":{"replicas":6}}`, merge...) // the schema's maximum is 5
	f.must(200, "PATCH", gadgetsBeta+"/one/scale", `{"spec":{"replicas":4}}`, merge...)
	got := f.must(200, "PATCH", gadgetsV1+"/one/status", `{"metadata":{"labels":{"a":"b"}},"spec":{"size":9},"status":{"ready":true}}`, merge...)
	if fieldAt(got, "spec", "size") != 4.0 || fieldAt(got, "metadata", "labels") != nil || fieldAt(got, "status", "ready") != true {
		t.Errorf("a write of the status changed more: %v", got)
	}
	_, h, _ := f.do("GET", gadgetsBeta, "")
	if w := h.Get("Warning"); !strings.Contains(w, "example.com/v1beta1 Gadget is deprecated; use example.com/v1 Gadget") {
		t.Errorf("got %q", w)
	}
}

func TestTerminatingDefinition(t *testing.T) {
	f := startGadgets(t, func(crd *apiextensionsv1.CustomResourceDefinition) {
		now := metav1.Now()
		crd.DeletionTimestamp, crd.Finalizers = &now, []string{apiextensionsv1.CustomResourceCleanupFinalizer}
	})
	s := f.must(403, "POST", gadgetsV1, `{"apiVersion":"example.com/v1","kind":"Gadget","metadata":{"name":"one"}}`)
	if !strings.Contains(s["message"].(string), "create not allowed while custom resource definition is terminating") {
		t.Errorf("got %v", s)
	}
	f.must(200, "GET", gadgetsV1, "")
}
