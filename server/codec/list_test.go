package codec

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/store"
)

// TestKeptCellsAge: cells are kept beside the object, but what they say of time goes on.
func TestKeptCellsAge(t *testing.T) {
	k, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("Pod"))
	budget := store.NewBudget(1 << 20)
	start := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	pod := func(restarts int32) *store.Entry {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: start}}
		p.Spec.Containers = []corev1.Container{{Name: "c"}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: restarts, LastTerminationState: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{FinishedAt: start}}}}
		return &store.Entry{Object: p, Budget: budget}
	}
	entries := []*store.Entry{pod(0), pod(3)}
	for _, c := range []struct {
		after         time.Duration
		age, restarts string
	}{{90 * time.Second, "90s", "3 (90s ago)"}, {5 * time.Minute, "5m", "3 (5m ago)"}} {
		table := Table{Kind: k, Version: "v1", Include: metav1.IncludeNone, Now: start.Add(c.after)}
		b, err := table.Whole(entries, metav1.ListMeta{}, true)
		if err != nil {
			t.Fatal(err)
		}
		var got metav1.Table
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for i, restarts := range []string{"0", c.restarts} {
			if cells := got.Rows[i].Cells; cells[3] != restarts || cells[4] != c.age {
				t.Errorf("after %v: row %d has %v", c.after, i, cells)
			}
			if _, kept := entries[i].Kept(store.Cells); !kept {
				t.Error("the cells of row", i, "are not kept")
			}
		}
	}
}

// TestMetadataIsCutOut: what is cut out of kept JSON is what would be written.
func TestMetadataIsCutOut(t *testing.T) {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b",
		Labels: map[string]string{"x": `q"}{\`}, Annotations: map[string]string{"metadata": `{"metadata":{}}`, "é<": "\u2028\n"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{"k:{\"name\":\"}\"}":{}}}`)}}}}}
	config := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}}
	for _, obj := range []api.Object{pod, config} {
		fresh := &store.Entry{Object: obj, Budget: store.NewBudget(0)}
		want, err := AppendMetadata(nil, fresh)
		if err != nil {
			t.Fatal(err)
		}
		e := &store.Entry{Object: obj, Budget: store.NewBudget(1 << 20)}
		whole, err := JSON(e)
		if err != nil {
			t.Fatal(err)
		}
		if metadataIn(whole, obj) == nil {
			t.Errorf("nothing is found in %s", whole)
		}
		if got, err := AppendMetadata(nil, e); err != nil || string(got) != string(want) {
			t.Errorf("cut out: %s, %v\\nwritten: %s", got, err, want)
		}
		for i := range whole { // damage is an error of somebody else's, never a panic
			metadataIn(whole[:i], obj)
		}
	}
}
