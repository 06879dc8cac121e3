// Package ttl deletes Jobs some time after they have finished (ttlSecondsAfterFinished).
//
// Invariant: the delete carries the resourceVersion from which the Job was judged, so that a TTL that was raised in
// between saves it. Only controllers/ may import ttl.
package ttl

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the TTL controller.
func New(d reconcile.Deps) reconcile.Controller {
	jobs := client.CacheOf[*batchv1.Job](d.Caches)
	return reconcile.Controller{
		Name:   "ttl-after-finished-controller",
		Inputs: []reconcile.Input{reconcile.Own[*batchv1.Job](d.Caches)},
		Writes: []string{"batch/jobs"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			j, ok := jobs.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			actions, again := Plan(j, d.Clock.Now())
			return reconcile.Result{After: again}, plan.Apply(ctx, d, actions...)
		},
	}
}

// Plan deletes the Job if its time has come, or says how long that is.
func Plan(j *batchv1.Job, now time.Time) (actions []plan.Action, again time.Duration) {
	if j.Spec.TTLSecondsAfterFinished == nil || j.DeletionTimestamp != nil {
		return nil, 0
	}
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			left := c.LastTransitionTime.Add(time.Duration(*j.Spec.TTLSecondsAfterFinished) * time.Second).Sub(now)
			if left > 0 {
				return nil, left
			}
			return []plan.Action{plan.Delete{Obj: j, Exact: true, Propagation: ptr.To(metav1.DeletePropagationForeground)}}, 0
		}
	}
	return nil, 0
}
