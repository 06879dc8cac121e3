package rest

import (
	"slices"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

func TestDefaultPropagation(t *testing.T) {
	table := api.NewTable(builtin.Kinds()...)
	background := metav1.DeletePropagationBackground
	foreground := []string{metav1.FinalizerDeleteDependents}
	orphan := []string{metav1.FinalizerOrphanDependents}
	for name, c := range map[string]struct {
		obj  api.Object
		o    metav1.DeleteOptions
		want []string
	}{
		"controller":               {&corev1.ReplicationController{}, metav1.DeleteOptions{}, orphan},
		"controller, background":   {&corev1.ReplicationController{}, metav1.DeleteOptions{PropagationPolicy: &background}, nil},
		"controller that has said": {&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Finalizers: foreground}}, metav1.DeleteOptions{}, foreground},
		"job":                      {&batchv1.Job{}, metav1.DeleteOptions{}, orphan},
		"any other":                {&corev1.ConfigMap{}, metav1.DeleteOptions{}, nil},
	} {
		k, ok := table.Of(c.obj)
		if !ok {
			t.Fatalf("%s: no row", name)
		}
		obj, gone := markDeleted(k, c.obj, &c.o, time.Now())
		if gone != (c.want == nil) || !gone && !slices.Equal(obj.GetFinalizers(), c.want) {
			t.Errorf("%s: gone %v, finalizers %q, want %q", name, gone, obj.GetFinalizers(), c.want)
		}
	}
}
