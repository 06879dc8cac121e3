package cronjob

import (
	"context"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the CronJob controller.
func New(d reconcile.Deps) reconcile.Controller {
	crons, jobs := client.CacheOf[*batchv1.CronJob](d.Caches), plan.Dependents[*batchv1.Job](d.Caches)
	return reconcile.Controller{
		Name:   "cronjob-controller",
		Inputs: []reconcile.Input{reconcile.Own[*batchv1.CronJob](d.Caches), reconcile.Owned[*batchv1.Job](d.Caches, "CronJob")},
		Writes: []string{"batch/jobs", "batch/cronjobs/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			cj, ok := crons.Get(key.Namespace, key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			decision := Plan(cj, plan.Controlled(jobs, cj), d.Clock.Now())
			for _, a := range decision.Actions {
				err := plan.Apply(ctx, d, a)
				if _, create := a.(plan.Create); create && err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
					d.Events.Eventf(cj, corev1.EventTypeWarning, "FailedCreate", "Error creating job: %v", err)
				}
				if err != nil {
					return reconcile.Result{}, err
				}
			}
			return reconcile.Result{After: decision.Again}, nil
		},
	}
}
