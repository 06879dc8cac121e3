package rest

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// meddler is a mutator that does f to every object.
type meddler struct{ f func(*corev1.ConfigMap) }

func (meddler) Name() string                                        { return "Meddler" }
func (meddler) Handles(admission.Operation, *api.Kind, string) bool { return true }
func (m meddler) Admit(_ context.Context, r *admission.Request) error {
	m.f(r.Object.(*corev1.ConfigMap))
	return nil
}

func TestWhatAdmissionSpoils(t *testing.T) {
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: "a", UID: "u"}
	good := []metav1.ManagedFieldsEntry{{Manager: "m", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:data":{}}`)}}}
	var warnings []string
	ctx := WithWarnings(context.Background(), func(s string) { warnings = append(warnings, s) })
	r := &REST{Config: Config{Admission: admission.NewChain(nil, meddler{func(c *corev1.ConfigMap) {
		c.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Nonsense", FieldsType: "FieldsV9"}}
		c.OwnerReferences = append(c.OwnerReferences, owner, owner)
	}})}}
	obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{ManagedFields: good}}
	if err := r.admit(ctx, &admission.Request{Object: obj}); err != nil {
		t.Fatal(err)
	}
	if len(obj.ManagedFields) != 1 || obj.ManagedFields[0].FieldsV1 != good[0].FieldsV1 || len(obj.OwnerReferences) != 1 {
		t.Errorf("got %+v", obj.ObjectMeta)
	}
	if len(warnings) != 2 || !strings.Contains(warnings[0], "invalid state after admission") ||
		!strings.HasSuffix(warnings[1], "duplicate UID(s) observed: u") || !slices.ContainsFunc(warnings, func(s string) bool { return strings.Contains(s, "after mutating admission happens") }) {
		t.Errorf("got %q", warnings)
	}
}
