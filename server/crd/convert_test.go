package crd

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
)

// turner is a conversion webhook that renames spec.color to spec.colour on the way to v1beta1 and back.
type turner struct {
	*httptest.Server
	calls atomic.Int64
	spoil func(r *apiextensionsv1.ConversionResponse) // nil: answer well
}

func newTurner(t *testing.T) *turner {
	w := &turner{}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.calls.Add(1)
		body, _ := io.ReadAll(req.Body)
		var in apiextensionsv1.ConversionReview
		if err := json.Unmarshal(body, &in); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		out := &apiextensionsv1.ConversionResponse{UID: in.Request.UID, Result: metav1.Status{Status: metav1.StatusSuccess}}
		for _, raw := range in.Request.Objects {
			u := &unstructured.Unstructured{}
			if err := u.UnmarshalJSON(raw.Raw); err != nil {
				http.Error(rw, err.Error(), http.StatusBadRequest)
				return
			}
			u.SetAPIVersion(in.Request.DesiredAPIVersion)
			spec := u.Object["spec"].(map[string]any)
			if c, ok := spec["color"]; ok {
				spec["colour"] = c
				delete(spec, "color")
			} else if c, ok := spec["colour"]; ok {
				spec["color"] = c
				delete(spec, "colour")
			}
			u.SetGeneration(99) // which a webhook may not change
			out.ConvertedObjects = append(out.ConvertedObjects, kruntime.RawExtension{Object: u})
		}
		if w.spoil != nil {
			w.spoil(out)
		}
		in.Request, in.Response = nil, out
		_ = json.NewEncoder(rw).Encode(in)
	}))
	t.Cleanup(w.Close)
	return w
}

func defineTurned(t *testing.T, w *turner) *definition {
	t.Helper()
	crd := define(t).crd.DeepCopy()
	crd.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter,
		Webhook: &apiextensionsv1.WebhookConversion{ConversionReviewVersions: []string{"v7", "v1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{
			URL: &w.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})}}}
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDefinition(crd, nil, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func stored(t *testing.T, d *definition, name string) api.Object {
	t.Helper()
	o, err := d.Decode([]byte(fmt.Sprintf(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":%q,"uid":"u-%s","generation":3},"spec":{"color":"red"}}`, name, name)), 7)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func row(d *definition, version string) *api.Kind {
	for _, k := range d.rows {
		if k.Version == version {
			return k
		}
	}
	return nil
}

func TestWebhookIsAskedOnce(t *testing.T) {
	w := newTurner(t)
	d := defineTurned(t, w)
	beta := row(d, "v1beta1")
	objs := []api.Object{stored(t, d, "a"), stored(t, d, "b")}
	for range 3 {
		if err := beta.Ready(context.Background(), objs); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range objs {
		got, err := beta.FromHub(o)
		if err != nil {
			t.Fatal(err)
		}
		u := got.(*unstructured.Unstructured)
		if c, _, _ := unstructured.NestedString(u.Object, "spec", "colour"); c != "red" || u.GetGeneration() != 3 || u.GetAPIVersion() != "example.com/v1beta1" {
			t.Errorf("got %v", u.Object)
		}
		if same, err := row(d, "v1").FromHub(o); err != nil || same != o {
			t.Errorf("the stored version was converted: %v, %v", same, err)
		}
	}
	if n := w.calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1 for all", n)
	}
	// What goes to the store comes back by the webhook too, and is not kept.
	u := objs[0].DeepCopyObject().(*unstructured.Unstructured)
	for range 2 {
		if _, err := beta.FromHub(u); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.calls.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

func TestConversionsGoWithTheirObjects(t *testing.T) {
	d := defineTurned(t, newTurner(t))
	func() {
		if err := row(d, "v1beta1").Ready(context.Background(), []api.Object{stored(t, d, "a")}); err != nil {
			t.Fatal(err)
		}
	}()
	left := func() int {
		d.converted.mu.Lock()
		defer d.converted.mu.Unlock()
		return len(d.converted.values)
	}
	if left() != 1 {
		t.Fatalf("%d conversions are kept, want 1", left())
	}
	for deadline := time.Now().Add(20 * time.Second); left() > 0; {
		if time.Now().After(deadline) {
			t.Fatal("a conversion outlives its object")
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

func TestWebhookFailures(t *testing.T) {
	const head = "conversion webhook for example.com/v1, Kind=Widget "
	edit := func(f func(u *unstructured.Unstructured)) func(*apiextensionsv1.ConversionResponse) {
		return func(r *apiextensionsv1.ConversionResponse) {
			f(r.ConvertedObjects[0].Object.(*unstructured.Unstructured))
		}
	}
	for name, c := range map[string]struct {
		spoil func(*apiextensionsv1.ConversionResponse)
		want  string
	}{
		"uid": {func(r *apiextensionsv1.ConversionResponse) { r.UID = "x" }, `failed: expected response.uid="`},
		"refused": {func(r *apiextensionsv1.ConversionResponse) {
			r.Result = metav1.Status{Status: "Failure", Message: "no way"}
		}, "failed: no way"},
		"status":  {func(r *apiextensionsv1.ConversionResponse) { r.Result.Status = "" }, "failed: response.result.status was '', not 'Success'"},
		"missing": {func(r *apiextensionsv1.ConversionResponse) { r.ConvertedObjects = nil }, "returned 0 objects, expected 1"},
		"version": {edit(func(u *unstructured.Unstructured) { u.SetAPIVersion("example.com/v9") }), "returned invalid object at index 0: invalid groupVersion (expected example.com/v1beta1, received example.com/v9)"},
		"kind":    {edit(func(u *unstructured.Unstructured) { u.SetKind("Gadget") }), "returned invalid object at index 0: invalid kind (expected Widget, received Gadget)"},
		"name":    {edit(func(u *unstructured.Unstructured) { u.SetName("z") }), "returned invalid object: must have the same name: a != z"},
		"metadata": {edit(func(u *unstructured.Unstructured) {
			u.Object["metadata"] = map[string]any{"name": "a", "uid": "u-a", "labels": 1}
		}), "returned invalid metadata: invalid metadata.labels of type"},
		"bad label": {edit(func(u *unstructured.Unstructured) { u.SetLabels(map[string]string{"a b": "c"}) }), "returned invalid metadata: metadata.labels: Invalid value"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTurner(t)
			w.spoil = c.spoil
			d := defineTurned(t, w)
			o := stored(t, d, "a")
			err := row(d, "v1beta1").Ready(context.Background(), []api.Object{o})
			if err == nil || !strings.HasPrefix(err.Error(), head+c.want) {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			// A failure is not kept.
			w.spoil = nil
			if err := row(d, "v1beta1").Ready(context.Background(), []api.Object{o}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStoredInAnotherVersion(t *testing.T) {
	const value = `{"apiVersion":"example.com/v1beta1","kind":"Widget","metadata":{"name":"a"},"spec":{"color":"red","extra":1}}`
	d := define(t)
	o, err := d.Decode([]byte(value), 3)
	if err != nil {
		t.Fatal(err)
	}
	u := o.(*unstructured.Unstructured)
	if _, ok, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "extra"); ok || u.GetAPIVersion() != "example.com/v1" || u.GetGeneration() != 1 {
		t.Errorf("got %v", u.Object)
	}
	if !d.hub.Outdated(o) {
		t.Error("a write that changes nothing would not migrate the object")
	}
	if fresh, err := d.Decode(d.mustEncode(t, u), 4); err != nil || d.hub.Outdated(fresh) {
		t.Error("the object is migrated again and again", err)
	}
	turned := defineTurned(t, newTurner(t))
	if o, err = turned.Decode([]byte(value), 3); err != nil || o.GetObjectKind().GroupVersionKind().Version != "v1beta1" || !turned.hub.Outdated(o) {
		t.Errorf("a webhook was asked to decode: %v, %v", o, err)
	}
}

func (d *definition) mustEncode(t *testing.T, u *unstructured.Unstructured) []byte {
	t.Helper()
	b, err := d.Encode(u)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
