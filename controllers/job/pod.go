package job

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

const indexEnv = "JOB_COMPLETION_INDEX"

var kind = batchv1.SchemeGroupVersion.WithKind("Job")

// newPod makes the next pod; index is -1 for a job without indexes.
func newPod(j *batchv1.Job, index int, failures, ignored *int) *corev1.Pod {
	p := pods.FromTemplate(&j.Spec.Template, j, kind)
	p.Finalizers = append(p.Finalizers, batchv1.JobTrackingFinalizer)
	if index < 0 {
		return p
	}
	s := strconv.Itoa(index)
	p.Labels, p.Annotations = with(p.Labels, batchv1.JobCompletionIndexAnnotation, s), with(p.Annotations, batchv1.JobCompletionIndexAnnotation, s)
	if failures != nil {
		p.Annotations[batchv1.JobIndexFailureCountAnnotation] = strconv.Itoa(*failures)
		if *ignored > 0 {
			p.Annotations[batchv1.JobIndexIgnoredFailureCountAnnotation] = strconv.Itoa(*ignored)
		}
	}
	name := fmt.Sprintf("%s-%d", j.Name, index)
	p.GenerateName = pods.GenerateName(name)
	if p.Spec.Hostname == "" && len(validation.IsDNS1123Label(name)) == 0 {
		p.Spec.Hostname = name
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			addIndexEnv(&list[i])
		}
	}
	return p
}

func addIndexEnv(c *corev1.Container) {
	if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == indexEnv }) {
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: indexEnv, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
		APIVersion: "v1", FieldPath: fmt.Sprintf("metadata.labels['%s']", batchv1.JobCompletionIndexAnnotation)}}})
}

func with(m map[string]string, k, v string) map[string]string {
	out := make(map[string]string, len(m)+1)
	maps.Copy(out, m)
	out[k] = v
	return out
}

// tracked reports whether the pod is still to be counted.
func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

// untrack lets the pod go.
func untrack(p *corev1.Pod) plan.Action {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID,
		"$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer}}})
	if err != nil {
		panic(err)
	}
	return plan.Patch{Obj: p, Type: types.StrategicMergePatchType, Data: data}
}

// finishedAt is when the pod's last container ended, as far as that is known.
func finishedAt(p *corev1.Pod, now time.Time) time.Time {
	var last time.Time
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	if last.IsZero() {
		if c := pods.Condition(p, corev1.PodReady); c != nil && !c.LastTransitionTime.IsZero() {
			last = c.LastTransitionTime.Time
		}
	}
	if last.IsZero() && p.DeletionTimestamp != nil {
		last = p.DeletionTimestamp.Time
	}
	if last.IsZero() {
		return now
	}
	return last
}

func annotationInt(p *corev1.Pod, key string) int {
	n, err := strconv.Atoi(p.Annotations[key])
	if err != nil || n < 0 {
		return 0
	}
	return n
}
