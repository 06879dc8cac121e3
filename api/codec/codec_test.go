package codec_test

import (
	"bytes"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/apitest"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/api/codec"
)

// storable takes out what validation lets nobody store.
func storable(obj api.Object) api.Object {
	if h, ok := obj.(*autoscalingv2.HorizontalPodAutoscaler); ok && h.Spec.Behavior != nil {
		for _, r := range []*autoscalingv2.HPAScalingRules{h.Spec.Behavior.ScaleUp, h.Spec.Behavior.ScaleDown} {
			if r != nil && len(r.Policies) == 0 {
				r.Policies = nil
			}
		}
	}
	return obj
}

func TestRoundTrip(t *testing.T) {
	src := apitest.New(1)
	for _, k := range builtin.Kinds() {
		if k.StoragePath == "" || k.Hub != nil {
			continue
		}
		t.Run(k.String(), func(t *testing.T) {
			c := codec.For(k)
			for range 5 {
				obj := storable(src.Object(k))
				obj.SetResourceVersion("7")
				before := obj.DeepCopyObject()
				b, err := c.Encode(obj)
				if err != nil {
					t.Fatal(err)
				}
				if !equality.Semantic.DeepEqual(before, obj) {
					t.Fatal("Encode changed its argument")
				}
				got, err := c.Decode(b, 7)
				if err != nil {
					t.Fatal(err)
				}
				if k.Default != nil {
					k.Default(obj)
				}
				if !equality.Semantic.DeepEqual(obj, got) {
					t.Fatalf("changed on its way through the store:\n%#v\n%#v", obj, got)
				}
				again, err := c.Encode(got)
				if err != nil {
					t.Fatal(err)
				}
				third, err := c.Decode(again, 7)
				if err != nil || !equality.Semantic.DeepEqual(got, third) {
					t.Fatalf("defaults are not idempotent: %v", err)
				}
			}
		})
	}
}

// What is stored is byte for byte what upstream's serializer writes.
func TestSameAsUpstream(t *testing.T) {
	s := protobuf.NewSerializer(codec.Scheme(), codec.Scheme())
	src := apitest.New(2)
	for _, k := range builtin.Kinds() {
		if k.StoragePath == "" || k.Hub != nil || k.Group == "apiextensions.k8s.io" || k.Group == "apiregistration.k8s.io" {
			continue
		}
		obj := src.Object(k)
		obj.SetResourceVersion("")
		got, err := codec.For(k).Encode(obj)
		if err != nil {
			t.Fatal(err)
		}
		want, err := runtime.Encode(s, obj)
		if err != nil {
			t.Fatal(err)
		}
		// Maps have no order on the wire, so only the length and the envelope can be compared for all kinds.
		if len(got) != len(want) || !bytes.Equal(got[:8], want[:8]) {
			t.Errorf("%s: %d bytes, upstream writes %d", k, len(got), len(want))
		}
	}
}

func byHub(t *testing.T, k *api.Kind, obj api.Object) api.Object {
	hub, err := k.ToHub(obj)
	if err != nil {
		t.Fatal(err)
	}
	back, err := k.FromHub(hub)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestHubRoundTrip(t *testing.T) {
	src := apitest.New(3)
	for _, k := range builtin.Kinds() {
		if k.Hub == nil {
			continue
		}
		for range 20 {
			obj := src.Object(k)
			if k.Kind == "HorizontalPodAutoscaler" { // its annotations are made on the first way
				obj = byHub(t, k, obj)
			}
			hub, err := k.ToHub(obj)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := builtin.Table().Of(hub); got != k.Hub {
				t.Fatalf("%s: the hub is %T", k, hub)
			}
			back, err := k.FromHub(hub)
			if err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(obj, back) {
				t.Fatalf("%s: changed by way of its hub:\n%#v\n%#v", k, obj, back)
			}
		}
	}
}

func TestCustomResource(t *testing.T) {
	k := &api.Kind{Group: "example.com", Version: "v1", Kind: "Boat", Plural: "boats", CRD: true,
		New: func() api.Object { return &unstructured.Unstructured{} }}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Boat",
		"metadata": map[string]any{"name": "a", "resourceVersion": "3"}, "spec": map[string]any{"oars": int64(2)}}}
	b, err := codec.For(k).Encode(u)
	if err != nil {
		t.Fatal(err)
	}
	if u.GetResourceVersion() != "3" || bytes.Contains(b, []byte("resourceVersion")) {
		t.Fatalf("the revision was stored, or lost from the argument: %s", b)
	}
	got, err := codec.For(k).Decode(b, 3)
	if err != nil || !equality.Semantic.DeepEqual(u, got) {
		t.Fatalf("got %v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	pods, _ := builtin.Table().Kind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	c := codec.For(pods)
	b, err := c.Encode(pods.New())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod"}`))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = c.Decode(b, 1) })
}
