package crd

import (
	"encoding/json"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

const widgets = `
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations: [{rule: "self.replicas <= 10", message: too many}]
            properties:
              replicas: {type: integer, default: 1}
              color: {type: string, enum: [red, green]}
  - name: v1beta1
    served: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

func definitionFor(t testing.TB) *definitionCRD {
	t.Helper()
	crd := &definitionCRD{}
	if err := yaml.UnmarshalStrict([]byte(widgets), crd); err != nil {
		t.Fatal(err)
	}
	settle(crd, nil, metav1.Now())
	return crd
}

func define(t *testing.T) *definition {
	t.Helper()
	d, err := newDefinition(definitionFor(t), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func widget(spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "a"}, "spec": spec}}
}

func TestObjects(t *testing.T) {
	d := define(t)
	u := widget(map[string]any{"color": "red", "bogus": int64(1)})
	unknown, err := d.hub.Prune(u, true)
	if err != nil || len(unknown) != 1 || unknown[0] != "spec.bogus" {
		t.Fatalf("unknown fields %v, %v", unknown, err)
	}
	d.hub.Default(u)
	if n, _, _ := unstructured.NestedInt64(u.Object, "spec", "replicas"); n != 1 {
		t.Errorf("replicas have not got their default: %v", u.Object)
	}
	if errs := d.hub.Validate(u); len(errs) > 0 {
		t.Error(errs)
	}
	for want, spec := range map[string]map[string]any{
		"too many":            {"replicas": int64(11)},
		`supported values: "`: {"color": "blue"},
	} {
		if errs := d.hub.Validate(widget(spec)); !strings.Contains(errs.ToAggregate().Error(), want) {
			t.Errorf("%v: %v", spec, errs)
		}
	}
	// What was wrong before stays accepted while it is not touched.
	old := widget(map[string]any{"color": "blue", "replicas": int64(1)})
	if errs := d.hub.ValidateUpdate(widget(map[string]any{"color": "blue", "replicas": int64(2)}), old); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestConversionLeavesItsArgument(t *testing.T) {
	d := define(t)
	u := widget(map[string]any{"color": "red"})
	before := u.DeepCopy()
	other, err := d.rows[1].FromHub(u)
	if err != nil || other.(*unstructured.Unstructured).GetAPIVersion() != "example.com/v1beta1" {
		t.Fatal(other, err)
	}
	other.SetName("b")
	if u.GetName() != before.GetName() || u.GetAPIVersion() != before.GetAPIVersion() {
		t.Error("the argument has changed")
	}
}

// A version that is not in the definition is refused as upstream does it: field managers must not take it for one that
// nobody needs any more.
func TestConversionToAVersionThatIsGone(t *testing.T) {
	_, err := converter{define(t)}.ConvertToVersion(widget(map[string]any{"color": "red"}), schema.GroupVersion{Group: "example.com", Version: "v0"})
	if err == nil || runtime.IsNotRegisteredError(err) || !strings.Contains(err.Error(), "request to convert CR to an invalid group/version: example.com/v0") {
		t.Errorf("got %v", err)
	}
}

func TestNamesInUse(t *testing.T) {
	first := define(t).crd
	second := first.DeepCopy()
	second.Name, second.Status = "gadgets.example.com", apiextensionsv1.CustomResourceDefinitionStatus{}
	second.Spec.Names.Plural, second.Spec.Names.Singular = "gadgets", "gadget"
	settle(second, []*definitionCRD{first}, metav1.Now())
	c := find(second, apiextensionsv1.NamesAccepted)
	if c.Status != apiextensionsv1.ConditionFalse || c.Reason != "ListKindConflict" || c.Message != `"WidgetList" is already in use` {
		t.Errorf("%+v", c)
	}
	if is(second, apiextensionsv1.Established) {
		t.Error("a definition without its names is established")
	}
}

// The documents stay JSON with the custom resources in them, and name them.
func TestDocuments(t *testing.T) {
	s := &Server{docs: newDocuments([]*definition{define(t)})}
	paths, definitions, err := s.V2Parts()
	if err != nil || s.V2Hash() == "" {
		t.Fatal(err)
	}
	var swagger struct{ Paths, Definitions map[string]json.RawMessage }
	two := "{\"paths\":{" + strings.TrimSuffix(string(paths), ",") + "},\"definitions\":{" + strings.TrimSuffix(string(definitions), ",") + "}}"
	if err := json.Unmarshal([]byte(two), &swagger); err != nil {
		t.Fatal(err)
	}
	if swagger.Definitions["com.example.v1.Widget"] == nil || swagger.Paths["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/status"] == nil ||
		swagger.Paths["/apis/example.com/v1beta1/namespaces/{namespace}/widgets/{name}/status"] != nil {
		t.Error("the version 2 document is wrong")
	}
	for path := range s.Paths() {
		doc, err := s.V3(path)
		if err != nil || !json.Valid(doc) || strings.Contains(strings.ToLower(string(doc)), "skiff") {
			t.Errorf("%s: %v, or it still names what it was made after", path, err)
		}
	}
}
