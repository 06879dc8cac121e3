package plan_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utiljson "sigs.k8s.io/json"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/codec/plan"
)

// filler makes random values of any API type.
type filler struct{ *rand.Rand }

var words = []string{"", "a", "web", "<b>&", "ü", "line\nbreak", `quo"te`, "\u2028", "back\\slash", "10.0.0.1", "x/y"}

func (f filler) fill(v reflect.Value, depth int) {
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		if f.IntN(3) > 0 {
			p.Time = time.Unix(f.Int64N(4e9), 0)
		}
		return
	case *metav1.MicroTime:
		p.Time = time.UnixMicro(f.Int64N(4e15))
		return
	case *resource.Quantity:
		*p = resource.MustParse([]string{"0", "100m", "1Gi", "1500M", "2e3", "0.5"}[f.IntN(6)])
		return
	case *intstr.IntOrString:
		*p = []intstr.IntOrString{intstr.FromInt32(f.Int32N(100)), intstr.FromString("http")}[f.IntN(2)]
		return
	case *metav1.FieldsV1:
		p.Raw = []byte([]string{`{"f:a":{}}`, `{"f:a": {"k:{\"x\":\"<\"}":{}}}`, `{}`}[f.IntN(3)])
		return
	case *runtime.RawExtension:
		p.Raw = []byte(`{"a":1}`)
		return
	}
	if depth > 9 {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && (f.IntN(3) > 0 || depth < 2) {
				f.fill(v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		if f.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(words[f.IntN(len(words))]))
			return
		}
		n := f.IntN(4)
		if n == 3 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		if f.IntN(3) == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range f.IntN(3) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(k, depth+1)
			f.fill(e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(words[f.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(f.Int64N(1<<31) - 1<<30)
	case reflect.Float64:
		v.SetFloat(f.Float64())
	}
}

func (f filler) object(of any) any {
	v := reflect.New(reflect.TypeOf(of).Elem())
	f.fill(v.Elem(), 0)
	return v.Interface()
}

// TestAllKinds holds writing, reading and comparing against the general ways for random objects of every kind.
func TestAllKinds(t *testing.T) {
	f := filler{rand.New(rand.NewPCG(1, 2))}
	for _, k := range builtin.Kinds() {
		read := 0
		for range 20 {
			obj := f.object(k.New())
			want, err := json.Marshal(obj)
			if err != nil {
				t.Fatal(k, err)
			}
			got, err := plan.Marshal(obj)
			if err != nil || string(got) != string(want) {
				t.Fatalf("%s:\n got %s\nwant %s\n%v", k, got, want, err)
			}
			general, fast := k.New(), k.New()
			strict, err := utiljson.UnmarshalStrict(want, general)
			if !plan.Decode(want, fast) {
				if !reflect.ValueOf(fast).Elem().IsZero() {
					t.Fatalf("%s: refused, but not left zero", k)
				}
				continue
			}
			read++
			if err != nil || len(strict) > 0 {
				t.Fatalf("%s: the general way refuses %v %v: %s", k, strict, err, want)
			}
			if !reflect.DeepEqual(general, fast) {
				again, _ := json.Marshal(fast)
				t.Fatalf("%s read differently:\n%s\n%s", k, want, again)
			}
			if !plan.Equal(general, fast) {
				t.Fatalf("%s is not equal to itself", k)
			}
			other := f.object(k.New())
			if plan.Equal(general, other) != apiequality.Semantic.DeepEqual(general, other) {
				t.Fatalf("%s compared differently", k)
			}
		}
		if read == 0 && !strings.Contains(k.String(), "customresourcedefinitions") {
			t.Errorf("%s was never read by its plan", k)
		}
	}
}

// TestEqualDetails changes one leaf at a time.
func TestEqualDetails(t *testing.T) {
	f := filler{rand.New(rand.NewPCG(3, 4))}
	differ := 0
	for range 300 {
		a := f.object(&corev1.Pod{}).(*corev1.Pod)
		b := a.DeepCopy()
		f.fill(reflect.ValueOf(&b.Spec).Elem().Field(f.IntN(reflect.TypeFor[corev1.PodSpec]().NumField())), 3)
		want := apiequality.Semantic.DeepEqual(a, b)
		if plan.Equal(a, b) != want {
			t.Fatal("compared differently")
		}
		if !want {
			differ++
		}
	}
	if differ < 50 {
		t.Errorf("only %d differed", differ)
	}
}

// TestOddDocuments are documents that must be refused, or be read as the general way reads them.
func TestOddDocuments(t *testing.T) {
	for _, doc := range []string{
		`{}`, ` { "metadata" : { "name" : "a" } } `, `{"metadata":{"name":"a","name":"b"}}`, `{"metadata":{"Name":"a"}}`, `{"x":1}`,
		`{"metadata":null,"spec":null}`, `{"spec":{"containers":null}}`, `{"spec":{"containers":[null]}}`, `{"spec":{"containers":[]}}`,
		`{"metadata":{"labels":{"a":null}}}`, `{"metadata":{"labels":{"a":"b","a":"c"}}}`, `{"metadata":{"labels":{"a":1}}}`,
		`{"spec":{"priority":1.0}}`, `{"spec":{"priority":1e3}}`, `{"spec":{"priority":99999999999}}`, `{"spec":{"priority":-0}}`, `{"spec":{"priority":01}}`,
		`{"spec":{"priority":"1"}}`, `{"spec":{"hostNetwork":tru}}`, `{"spec":{"hostNetwork":true}}`, `{"metadata":{"name":"\u00e9\ud83d\ude00\ud800"}}`,
		`{"metadata":{"name":"\u00e9\ud83d\ude00"}}`, "{\"metadata\":{\"name\":\"\xff\"}}", "{\"metadata\":{\"name\":\"a\nb\"}}",
		`{"metadata":{"name":"a"}} x`, `{"metadata":{"name":"a"}}{}`, `{"metadata":{"name":"a"`, `[]`, `null`, ``, `{"metadata":{"name":"a",}}`,
		`{"metadata":{"creationTimestamp":null}}`, `{"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z"}}`, `{"metadata":{"creationTimestamp":"x"}}`,
		`{"metadata":{"creationTimestamp":5}}`, `{"spec":{"containers":[{"resources":{"limits":{"cpu":1.5,"memory":"1Gi"}}}]}}`,
		`{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}`, `{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":80}}}]}}`,
		`{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":"http"}}}]}}`, `{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":null}}}]}}`,
		`{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":99999999999}}}]}}`, `{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}, "f:a":{}}}]}}`,
		`{"metadata":{"managedFields":[{"fieldsV1":null}]}}`, `{"\u006detadata":{}}`, strings.Repeat(`{"spec":`, 600) + strings.Repeat(`}`, 600),
	} {
		agree(t, []byte(doc), true)
	}
}

// agree checks that the plan reads what the general way reads, or refuses.
func agree(t *testing.T, doc []byte, say bool) {
	var general, fast corev1.Pod
	if !plan.Decode(doc, &fast) {
		if !reflect.ValueOf(fast).IsZero() {
			t.Errorf("%q: refused, but not left zero", doc)
		}
		return
	}
	strict, err := utiljson.UnmarshalStrict(doc, &general)
	if err != nil || len(strict) > 0 {
		t.Errorf("%q: read, but the general way says %v %v", doc, strict, err)
	} else if !reflect.DeepEqual(general, fast) {
		t.Errorf("%q: read differently: %v and %v", doc, fast, general)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","labels":{"x":"y"}},"spec":{"containers":[{"name":"c","ports":[{"containerPort":80}]}]}}`))
	f.Fuzz(func(t *testing.T, doc []byte) { agree(t, doc, false) })
}

// generally patches in the general way.
func generally(old, out runtime.Object, patch []byte, strategic bool) error {
	if !strategic {
		data, err := json.Marshal(old)
		if err != nil {
			return err
		}
		if data, err = jsonpatch.MergePatch(data, patch); err != nil {
			return err
		}
		strict, err := utiljson.UnmarshalStrict(data, out)
		if err == nil && len(strict) > 0 {
			err = strict[0]
		}
		return err
	}
	var tree map[string]any
	if strict, err := utiljson.UnmarshalStrict(patch, &tree); err != nil || len(strict) > 0 {
		return fmt.Errorf("%v %w", strict, err)
	}
	from, err := runtime.DefaultUnstructuredConverter.ToUnstructured(old)
	if err != nil {
		return err
	}
	if from, err = strategicpatch.StrategicMergeMapPatch(from, tree, out); err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(from, out, true)
}

// randomPatch is what is left of a random object's JSON, with some nulls.
func (f filler) randomPatch(v any, depth int) any {
	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range x {
			switch n := f.IntN(12); {
			case depth == 0 && k != "status" && k != "spec" && k != "metadata":
			case n == 0 && depth > 0:
				out[k] = nil
			case n < 7:
				out[k] = f.randomPatch(e, depth+1)
			}
		}
		return out
	case []any:
		for i := range x {
			if m, ok := x[i].(map[string]any); ok && f.IntN(4) > 0 { // keep the keys that lists are merged by
				patched := f.randomPatch(m, depth+1).(map[string]any)
				for _, key := range []string{"name", "type", "uid", "containerPort", "ip", "key", "mountPath", "devicePath", "topologyKey"} {
					if m[key] != nil {
						patched[key] = m[key]
					}
				}
				x[i] = patched
			}
		}
	}
	return v
}

func TestMerge(t *testing.T) {
	f := filler{rand.New(rand.NewPCG(55, 66))}
	done := map[bool]int{}
	for n := range 1000 {
		strategic := n%2 == 0
		old := &corev1.Pod{}
		b, err := json.Marshal(f.object(&corev1.Pod{}))
		if err == nil {
			err = json.Unmarshal(b, old) // as objects come in: without pointers to zero times
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err = json.Marshal(f.object(&corev1.Pod{}))
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(b, &tree); err != nil {
			t.Fatal(err)
		}
		patch, err := json.Marshal(f.randomPatch(tree, 0))
		if err != nil {
			t.Fatal(err)
		}
		if holdMerge(t, old, patch, strategic) {
			done[strategic]++
		}
	}
	if done[true] < 150 || done[false] < 150 {
		t.Errorf("too few patches went the fast way: %v", done)
	}
	t.Log(done)
}

// holdMerge compares one patch both ways, and that old is left alone; it tells whether the fast way was taken.
func holdMerge(t *testing.T, old *corev1.Pod, patch []byte, strategic bool) bool {
	t.Helper()
	before := old.DeepCopy()
	var fast, general corev1.Pod
	ok := plan.Merge(old, &fast, patch, strategic)
	if !reflect.DeepEqual(before, old) {
		t.Fatalf("the old object was changed by %s", patch)
	}
	if !ok {
		if !reflect.ValueOf(fast).IsZero() {
			t.Fatal("refused, but not left zero")
		}
		return false
	}
	if err := generally(old, &general, patch, strategic); err != nil {
		t.Fatalf("strategic %v: done, but the general way says %v: %s", strategic, err, patch)
	}
	got, _ := json.Marshal(&fast)
	want, _ := json.Marshal(&general)
	if string(got) != string(want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		at = max(0, at-200)
		t.Fatalf("strategic %v: %s\n got %.400s\nwant %.400s", strategic, patch, got[at:], want[at:])
	}
	return true
}

func TestMergeLists(t *testing.T) {
	c := func(names ...string) (out []corev1.PodCondition) {
		for _, n := range names {
			out = append(out, corev1.PodCondition{Type: corev1.PodConditionType(n), Message: "old " + n})
		}
		return out
	}
	names := []string{"a", "b", "c", "d", "e"}
	f := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		p := func() []string {
			out := append([]string(nil), names...)
			f.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
			return out[:f.IntN(len(out)+1)]
		}
		old := &corev1.Pod{Status: corev1.PodStatus{Conditions: c(p()...)}}
		var items []string
		for _, n := range p() {
			items = append(items, fmt.Sprintf(`{"reason":"r","type":%q}`, n))
		}
		patch := fmt.Appendf(nil, `{"status":{"conditions":[%s]}}`, strings.Join(items, ","))
		if !holdMerge(t, old, patch, true) && len(items) > 0 {
			t.Fatalf("refused: %s", patch)
		}
	}
}

var benchPod = []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p-1","labels":{"app":"kbench","tier":"backend","pod-template-hash":"5d4f8c7b9"},"annotations":{"example.com/build":"2026-11-20","example.com/owner":"team-a"}},"spec":{"nodeName":"none","automountServiceAccountToken":false,"terminationGracePeriodSeconds":0,"containers":[{"name":"web","image":"registry.example/web:1.2.3","env":[{"name":"A","value":"1"},{"name":"B","value":"2"},{"name":"POD_IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}}],"ports":[{"containerPort":8080,"name":"http"}],"resources":{"requests":{"cpu":"1m","memory":"1Mi"},"limits":{"cpu":"100m","memory":"64Mi"}},"readinessProbe":{"httpGet":{"path":"/healthz","port":"http"},"periodSeconds":10}}]}}`)

func BenchmarkPlan(b *testing.B) {
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !plan.Decode(benchPod, &corev1.Pod{}) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("decode-general", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := utiljson.UnmarshalStrict(benchPod, &corev1.Pod{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	var pod corev1.Pod
	if err := json.Unmarshal(benchPod, &pod); err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := plan.Marshal(&pod); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode-general", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&pod); err != nil {
				b.Fatal(err)
			}
		}
	})
	patch := []byte(`{"status":{"phase":"Running","podIP":"10.1.2.3","podIPs":[{"ip":"10.1.2.3"}],"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-11-20T00:00:00Z"}]}}`)
	b.Run("merge", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !plan.Merge(&pod, &corev1.Pod{}, patch, true) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("equal", func(b *testing.B) {
		other := pod.DeepCopy()
		b.ReportAllocs()
		for b.Loop() {
			if !plan.Equal(&pod, other) {
				b.Fatal("differs")
			}
		}
	})
}
