package codec_test

import (
	"encoding/json"
	"testing"

	admissionregistrationv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	discoveryv1beta1 "k8s.io/api/discovery/v1beta1"
	flowcontrolv1beta2 "k8s.io/api/flowcontrol/v1beta2"
	flowcontrolv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/api/codec"
)

// What an earlier release stored is read as upstream reads it: each fragment of an older version's object is found as the
// fragment of the row's.
func TestOlderVersions(t *testing.T) {
	for _, c := range []struct {
		name      string
		old       runtime.Object
		gv        string
		resource  schema.GroupResource
		say, want string
	}{
		{"same fields", &admissionregistrationv1beta1.MutatingAdmissionPolicyBinding{}, "admissionregistration.k8s.io/v1beta1",
			schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "mutatingadmissionpolicybindings"},
			`{"policyName":"p"}`, `{"policyName":"p"}`},
		{"ingress backends", &networkingv1beta1.Ingress{}, "extensions/v1beta1", schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"},
			`{"backend":{"serviceName":"s","servicePort":80},"rules":[{"host":"h","http":{"paths":[
				{"path":"/a","backend":{"serviceName":"t","servicePort":"web"}},
				{"path":"/b","pathType":"Prefix","backend":{"resource":{"apiGroup":"g","kind":"K","name":"n"}}}]}},{"host":"i"}]}`,
			`{"defaultBackend":{"service":{"name":"s","port":{"number":80}}},"rules":[{"host":"h","http":{"paths":[
				{"path":"/a","pathType":"ImplementationSpecific","backend":{"service":{"name":"t","port":{"name":"web"}}}},
				{"path":"/b","pathType":"Prefix","backend":{"resource":{"apiGroup":"g","kind":"K","name":"n"}}}]}},{"host":"i"}]}`},
		{"a budget for no pod", &policyv1beta1.PodDisruptionBudget{}, "policy/v1beta1", schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"},
			`{"selector":{}}`, `{"selector":{"matchExpressions":[{"key":"pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match","operator":"Exists"}]}}`},
		{"a budget for all pods", &policyv1beta1.PodDisruptionBudget{}, "policy/v1beta1", schema.GroupResource{Group: "policy", Resource: "poddisruptionbudgets"},
			`{"selector":{"matchExpressions":[{"key":"pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match","operator":"DoesNotExist"}]}}`, `{"selector":{}}`},
		{"shares by their old name", &flowcontrolv1beta2.PriorityLevelConfiguration{}, "flowcontrol.apiserver.k8s.io/v1beta2",
			schema.GroupResource{Group: "flowcontrol.apiserver.k8s.io", Resource: "prioritylevelconfigurations"},
			`{"type":"Limited","limited":{"assuredConcurrencyShares":7,"limitResponse":{"type":"Reject"}}}`,
			`{"type":"Limited","limited":{"nominalConcurrencyShares":7,"limitResponse":{"type":"Reject"},"lendablePercent":0}}`},
		{"shares that were not told", &flowcontrolv1beta3.PriorityLevelConfiguration{}, "flowcontrol.apiserver.k8s.io/v1beta3",
			schema.GroupResource{Group: "flowcontrol.apiserver.k8s.io", Resource: "prioritylevelconfigurations"},
			`{"type":"Limited","limited":{"limitResponse":{"type":"Reject"}}}`,
			`{"type":"Limited","limited":{"nominalConcurrencyShares":30,"limitResponse":{"type":"Reject"},"lendablePercent":0}}`},
		{"requests for devices", &resourcev1beta1.ResourceClaim{}, "resource.k8s.io/v1beta1", schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"},
			`{"devices":{"requests":[{"name":"r","deviceClassName":"c","allocationMode":"ExactCount","count":2}]}}`,
			`{"devices":{"requests":[{"name":"r","exactly":{"deviceClassName":"c","allocationMode":"ExactCount","count":2}}]}}`},
		{"devices", &resourcev1beta1.ResourceSlice{}, "resource.k8s.io/v1beta1", schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"},
			`{"driver":"d","nodeName":"n","pool":{"name":"p","generation":0,"resourceSliceCount":1},"devices":[{"name":"x","basic":{"attributes":{"a":{"string":"b"}}}}]}`,
			`{"driver":"d","nodeName":"n","pool":{"name":"p","generation":0,"resourceSliceCount":1},"devices":[{"name":"x","attributes":{"a":{"string":"b"}}}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			gv, err := schema.ParseGroupVersion(c.gv)
			if err != nil {
				t.Fatal(err)
			}
			row, ok := builtin.Table().Resource(c.resource.WithVersion("v1"))
			if !ok {
				t.Fatalf("no row for %s", c.resource)
			}
			gvk := gv.WithKind(row.Kind)
			if err := json.Unmarshal([]byte(`{"metadata":{"name":"x"},"spec":`+c.say+`}`), c.old); err != nil {
				t.Fatal(err)
			}
			stored, err := codec.Envelope(c.old, gvk)
			if err != nil {
				t.Fatal(err)
			}
			got, err := codec.For(row).Decode(stored, 5)
			if err != nil {
				t.Fatal(err)
			}
			if have := got.GetObjectKind().GroupVersionKind(); have != row.GroupVersionKind() || got.GetName() != "x" || got.GetResourceVersion() != "5" {
				t.Errorf("it is %s %q at %s", have, got.GetName(), got.GetResourceVersion())
			}
			sameFields(t, got, "spec", c.want)
		})
	}
}

// sameFields compares a field of obj with JSON text.
func sameFields(t *testing.T, obj any, name, want string) {
	t.Helper()
	b, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	have, expected := map[string]json.RawMessage{}, any(nil)
	if err := json.Unmarshal(b, &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	var field any
	if err := json.Unmarshal(have[name], &field); err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(field)
	y, _ := json.Marshal(expected)
	if string(x) != string(y) {
		t.Errorf("%s is\n%s, want\n%s", name, x, y)
	}
}

// Upstream keeps custom resource definitions as v1beta1 still.
func TestOlderDefinition(t *testing.T) {
	row, _ := builtin.Table().Kind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	old := `{"apiVersion":"apiextensions.k8s.io/v1beta1","kind":"CustomResourceDefinition","metadata":{"name":"boats.example.com"},
		"spec":{"group":"example.com","version":"v1","names":{"plural":"boats","kind":"Boat"},"scope":"Cluster","preserveUnknownFields":false,
		"validation":{"openAPIV3Schema":{"type":"object","properties":{"oars":{"type":"integer","default":2}}}},
		"additionalPrinterColumns":[{"name":"Oars","type":"integer","JSONPath":".oars"}]}}`
	got, err := codec.For(row).Decode([]byte(old), 5)
	if err != nil {
		t.Fatal(err)
	}
	sameFields(t, got, "spec", `{"group":"example.com","names":{"plural":"boats","singular":"boat","kind":"Boat","listKind":"BoatList"},
		"scope":"Cluster","conversion":{"strategy":"None"},"versions":[{"name":"v1","served":true,"storage":true,
		"schema":{"openAPIV3Schema":{"type":"object","properties":{"oars":{"type":"integer","default":2}}}},
		"additionalPrinterColumns":[{"name":"Oars","type":"integer","jsonPath":".oars"}]}]}`)
	wild := &apiextensionsv1beta1.CustomResourceDefinition{}
	if err := json.Unmarshal([]byte(old), wild); err != nil {
		t.Fatal(err)
	}
	wild.Spec.Group, wild.APIVersion = "", "apiextensions.k8s.io/v1beta9"
	b, err := json.Marshal(wild)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := codec.For(row).Decode(b, 5); err == nil {
		t.Error("a version that nobody knows was read")
	}
}

func TestOlderTopology(t *testing.T) {
	row, _ := builtin.Table().Resource(schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"})
	node := "n"
	old := &discoveryv1beta1.EndpointSlice{Endpoints: []discoveryv1beta1.Endpoint{
		{Addresses: []string{"192.0.2.1"}, NodeName: &node, Topology: map[string]string{"kubernetes.io/hostname": "n", "topology.kubernetes.io/zone": "z"}},
		{Addresses: []string{"192.0.2.2"}, Topology: map[string]string{"kubernetes.io/hostname": "m"}}}}
	stored, err := codec.Envelope(old, discoveryv1beta1.SchemeGroupVersion.WithKind("EndpointSlice"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := codec.For(row).Decode(stored, 5)
	if err != nil {
		t.Fatal(err)
	}
	sameFields(t, got, "endpoints", `[{"addresses":["192.0.2.1"],"conditions":{},"nodeName":"n","zone":"z"},
		{"addresses":["192.0.2.2"],"conditions":{},"deprecatedTopology":{"kubernetes.io/hostname":"m"}}]`)
}
