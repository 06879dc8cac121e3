package rest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

// TestPlainApply lets several appliers and an updater write an object in random turns, each time both ways.
func TestPlainApply(t *testing.T) {
	table := api.NewTable(builtin.Kinds()...)
	for _, c := range []struct{ kind, body string }{
		{"ConfigMap", `"data":{%s}`},
		{"Secret", `"stringData":{%s}`},
		{"Service", `"spec":{"type":"ClusterIP","selector":{%s}}`}, // an atomic map
		{"ServiceAccount", `"automountServiceAccountToken":true`},
	} {
		t.Run(c.kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // so that both ways see the same time
				k, ok := table.Kind(corev1.SchemeGroupVersion.WithKind(c.kind))
				if !ok {
					t.Fatal("no such kind")
				}
				h := &applyHarness{t: t, k: k, r: New(Config{Kinds: table}), rand: rand.New(rand.NewPCG(1, 2)), body: c.body}
				for range 30 {
					h.old = nil
					for range 12 {
						h.step()
						time.Sleep(time.Second)
					}
				}
				known, _ := h.r.shapes.Load(managerKey{k: k, sub: "apply/"})
				if known == nil || h.hits == 0 || h.conflicts == 0 && strings.Contains(c.body, "%s") {
					t.Errorf("the test misses its point: %d of a known shape, %d conflicts", h.hits, h.conflicts)
				}
				t.Log(h.hits, "of a known shape,", h.conflicts, "conflicts")
			})
		})
	}
}

type applyHarness struct {
	t    *testing.T
	k    *api.Kind
	r    *REST
	rand *rand.Rand
	body string
	old  api.Object // nil: not created yet

	hits, conflicts int
}

// fields are random ones with random values.
func (h *applyHarness) fields() string {
	var out []string
	for _, f := range []string{"a", "b", "c"} {
		if h.rand.IntN(3) > 0 {
			out = append(out, fmt.Sprintf(`%q:"%d"`, f, h.rand.IntN(3)))
		}
	}
	return strings.Join(out, ",")
}

func (h *applyHarness) document() string {
	body := h.body
	if strings.Contains(body, "%s") {
		body = fmt.Sprintf(body, h.fields())
	}
	return fmt.Sprintf(`{"apiVersion":"v1","kind":%q,"metadata":{"name":"x","labels":{%s}},%s}`, h.k.Kind, h.fields(), body)
}

func (h *applyHarness) step() {
	if h.old != nil && h.rand.IntN(4) == 0 {
		obj := h.old.DeepCopyObject().(api.Object)
		obj.SetAnnotations(map[string]string{"n": fmt.Sprint(h.rand.IntN(3))})
		obj.SetLabels(map[string]string{"a": fmt.Sprint(h.rand.IntN(3))})
		out, err := h.r.manage(h.k, "", h.old, obj, "updater")
		if err != nil {
			h.t.Fatal(err)
		}
		h.old = out
		return
	}
	doc := []byte(h.document())
	force := h.rand.IntN(2) == 0
	o := metav1.PatchOptions{FieldManager: []string{"one", "two"}[h.rand.IntN(2)], Force: &force}
	w := &write{k: h.k, name: "x", namespace: "n"}
	plain, ok := h.r.plainApply(h.t.Context(), w, doc, o)
	if !ok {
		h.t.Fatalf("not plain: %s", doc)
	}
	general := *w
	if err := h.r.applyTree(h.t.Context(), &general, doc, o); err != nil {
		h.t.Fatal(err)
	}
	run := func(change func(api.Object) (api.Object, error), create func() (api.Object, error)) (api.Object, error) {
		if h.old == nil {
			return create()
		}
		return change(h.old)
	}
	want, wantErr := run(general.change, general.missing)
	before := h.text(h.old)
	got, err := run(plain.change, plain.create) // learns the shape, or knows it
	h.same(doc, got, err, want, wantErr)
	got, err = run(plain.change, plain.create) // knows it, or refuses it
	h.same(doc, got, err, want, wantErr)
	if h.text(h.old) != before {
		h.t.Fatalf("%s changed the old object", doc)
	}
	if wantErr != nil {
		h.conflicts++
		return
	}
	h.hits += h.known(plain)
	h.old = want
}

// known is 1 if the shape of a write is one that need not take the way of the field manager.
func (h *applyHarness) known(c *plainConfig) int {
	if h.old == nil {
		return 0
	}
	_, key, ok := c.merge(h.old)
	s, _ := h.r.shapes.Load(managerKey{k: h.k, sub: "apply/"})
	if !ok || s == nil {
		return 0
	}
	if o, ok := s.(*shapes).recall(key); !ok || o.odd {
		return 0
	}
	return 1
}

func (h *applyHarness) text(obj api.Object) string {
	if obj == nil {
		return ""
	}
	b, err := json.Marshal(obj)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

func (h *applyHarness) same(doc []byte, got api.Object, err error, want api.Object, wantErr error) {
	h.t.Helper()
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		h.t.Fatalf("%s: got error %v, want %v", doc, err, wantErr)
	}
	if wantErr != nil {
		return
	}
	if want.GetNamespace() == "" {
		want.SetNamespace("n") // as createMissing does
	}
	if g, w := h.text(got), h.text(want); g != w {
		h.t.Fatalf("%s on %s\n got %s\nwant %s", doc, h.text(h.old), g, w)
	}
}
