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

// A pod that is given no time is answered as one that was given none.
func TestNoGrace(t *testing.T) {
	k, ok := api.NewTable(builtin.Kinds()...).Of(&corev1.Pod{})
	if !ok {
		t.Fatal("no row")
	}
	var none int64
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Spec: corev1.PodSpec{NodeName: "n"}}
	obj, gone := markDeleted(k, pod, &metav1.DeleteOptions{GracePeriodSeconds: &none}, time.Now())
	grace := obj.GetDeletionGracePeriodSeconds()
	if !gone || obj.GetDeletionTimestamp() == nil || grace == nil || *grace != 0 || obj.GetGeneration() != 2 {
		t.Errorf("gone %v, %+v", gone, obj)
	}
}

func TestStampPhase(t *testing.T) {
	was, now := metav1.NewTime(time.Unix(1, 0)), metav1.NewTime(time.Unix(9, 0))
	own := metav1.NewTime(time.Unix(5, 0))
	for name, c := range map[string]struct {
		phase corev1.PersistentVolumePhase
		sent  *metav1.Time
		want  metav1.Time
	}{
		"changed":             {corev1.VolumeBound, &was, now},
		"changed, time unset": {corev1.VolumeBound, nil, now},
		"changed, own time":   {corev1.VolumeBound, &own, own},
		"the same":            {corev1.VolumeAvailable, nil, was},
	} {
		old := &corev1.PersistentVolume{Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable, LastPhaseTransitionTime: &was}}
		pv := &corev1.PersistentVolume{Status: corev1.PersistentVolumeStatus{Phase: c.phase, LastPhaseTransitionTime: c.sent}}
		if stampPhase(pv, old, now); !pv.Status.LastPhaseTransitionTime.Equal(&c.want) {
			t.Errorf("%s: %v, want %v", name, pv.Status.LastPhaseTransitionTime, c.want)
		}
	}
}
