package crd

import (
	"encoding/json"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// FuzzSchema takes any schema through everything that a definition is used for, whether or not validation would have
// taken it: what was stored by another server must not bring this one down.
func FuzzSchema(f *testing.F) {
	for _, s := range []string{
		`{"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":[{"rule":"self.a > 1"}],"properties":{"a":{"type":"integer","default":1}}}}}`,
		`{"type":"object","properties":{"a":{"type":"array","items":{"type":"object","properties":{"k":{"type":"string"}}},"x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"]}}}`,
		`{"type":"array","items":{"oneOf":[{"x-kubernetes-int-or-string":true}]}}`,
		`{"type":"object","additionalProperties":{"nullable":true,"default":{"x":[null]}},"x-kubernetes-embedded-resource":true}`,
		`{"type":"object","properties":{"a":{"type":"string","pattern":"(((","format":"nope","x-kubernetes-validations":[{"rule":"((","messageExpression":"1"}]}}}`,
		`{"type":"object","properties":{"metadata":{"type":"object","properties":{"name":{"maxLength":-1}}}}}`,
		`{}`, `null`, `{"not":{"anyOf":[{"not":{}}]}}`,
	} {
		f.Add([]byte(s), []byte(`{"spec":{"a":2},"a":[{"k":"x"},{"k":"x"}]}`))
	}
	crd := definitionFor(f)
	f.Fuzz(func(t *testing.T, schema, object []byte) {
		props := &apiextensionsv1.JSONSchemaProps{}
		if len(schema) > 4<<10 || json.Unmarshal(schema, props) != nil {
			return
		}
		u := &unstructured.Unstructured{Object: map[string]any{}}
		if json.Unmarshal(object, &u.Object) != nil || u.Object == nil {
			return
		}
		u.Object["apiVersion"], u.Object["kind"] = "example.com/v1", "Widget"
		crd := crd.DeepCopy()
		crd.Spec.Versions = crd.Spec.Versions[:1]
		crd.Spec.Versions[0].Schema = &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: props}
		nonStructural(crd)
		d, err := newDefinition(crd, nil, nil)
		if err != nil {
			return
		}
		defer d.close()
		if _, err := d.hub.Prune(u, true); err != nil {
			return
		}
		d.hub.Default(u)
		d.hub.Validate(u)
		d.hub.ValidateUpdate(u, u.DeepCopy())
		d.types()
		d.versions["v1"].schema(publication{})
		d.versions["v1"].schema(publication{v2: true})
	})
}
