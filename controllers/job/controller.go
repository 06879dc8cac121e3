package job

import (
	"context"
	"slices"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

type controller struct {
	reconcile.Deps
	jobs *client.Cache[*batchv1.Job]
	pods *client.Cache[*corev1.Pod]

	mu       sync.Mutex
	backoffs map[reconcile.Key]backoffOf
}

type backoffOf struct {
	uid types.UID
	*Backoff
}

// New is the Job controller.
func New(d reconcile.Deps) reconcile.Controller {
	c := &controller{Deps: d, jobs: client.CacheOf[*batchv1.Job](d.Caches), pods: plan.Dependents[*corev1.Pod](d.Caches), backoffs: map[reconcile.Key]backoffOf{}}
	return reconcile.Controller{
		Name: "job-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*batchv1.Job](d.Caches),
			reconcile.Owned[*corev1.Pod](d.Caches, "Job"),
			plan.Orphans[*corev1.Pod](d.Caches, c.jobs, selector),
			reconcile.Map(d.Caches, c.orphanTracked),
		},
		Writes:    []string{"pods", "batch/jobs/status"},
		Reconcile: c.reconcile,
	}
}

func selector(j *batchv1.Job) labels.Selector { return plan.Selector(j.Spec.Selector) }

// orphanTracked makes the former owner of a pod due that still has the tracking finalizer: the job may be gone.
func (c *controller) orphanTracked(_, new *corev1.Pod) []reconcile.Key {
	if new == nil || !tracked(new) {
		return nil
	}
	if name := new.Labels[batchv1.JobNameLabel]; name != "" {
		if _, ok := c.jobs.Get(new.Namespace, name); !ok || new.DeletionTimestamp != nil {
			return []reconcile.Key{{Namespace: new.Namespace, Name: name}}
		}
	}
	return nil
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	j, ok := c.jobs.Get(key.Namespace, key.Name)
	if !ok {
		c.mu.Lock()
		delete(c.backoffs, key)
		c.mu.Unlock()
		return reconcile.Result{}, c.release(ctx, key)
	}
	if m := j.Spec.ManagedBy; m != nil && *m != batchv1.JobControllerName {
		return reconcile.Result{}, nil
	}
	mine, claims := plan.Claim(j, selector(j), plan.Candidates(c.pods, j))
	if err := plan.Apply(ctx, c.Deps, slices.Concat(leaving(claims), claims)...); err != nil {
		return reconcile.Result{}, err
	}
	d := Plan(Input{Job: j, Pods: mine, Backoff: c.backoff(key, j.UID), Now: c.Clock.Now()})
	first := plan.Apply(ctx, c.Deps, d.Pods...)
	if err := plan.Apply(ctx, c.Deps, d.Status...); err != nil {
		return reconcile.Result{}, err
	}
	if err := plan.Apply(ctx, c.Deps, d.Finalizers...); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{After: d.Again}, first
}

// leaving takes the finalizer off the pods that claims release: nobody would do so afterwards.
func leaving(claims []plan.Action) (out []plan.Action) {
	for _, a := range claims {
		if r, ok := a.(plan.Release); ok {
			if p, ok := r.Obj.(*corev1.Pod); ok && tracked(p) {
				out = append(out, untrack(p))
			}
		}
	}
	return out
}

// release lets the pods of a job go that is not there any more.
func (c *controller) release(ctx context.Context, key reconcile.Key) error {
	for _, p := range c.pods.List(key.Namespace) {
		if tracked(p) && p.Labels[batchv1.JobNameLabel] == key.Name {
			if err := plan.Apply(ctx, c.Deps, untrack(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *controller) backoff(key reconcile.Key, uid types.UID) *Backoff {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.backoffs[key]
	if !ok || b.uid != uid {
		b = backoffOf{uid, &Backoff{}}
		c.backoffs[key] = b
	}
	return b.Backoff
}
