package quota

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/controllers/served"
	"github.com/skiff-sh/skiff/reconcile"
)

// resync recounts kinds whose changes are not watched for quotas.
const resync = 5 * time.Minute

// unsynced is how soon to ask again whether the caches are filled.
const unsynced = 100 * time.Millisecond

// settle is when a quota that has just begun to count is counted again: what came in before admission knew of it was
// not booked.
const settle = 3 * time.Second

var zero = *resource.NewQuantity(0, resource.DecimalSI)

// New is the quota controller over all kinds that are served.
func New(d reconcile.Deps, kinds *served.Kinds) reconcile.Controller {
	quotas := client.CacheOf[*corev1.ResourceQuota](d.Caches)
	watch := kinds.Watch(d.Caches, countable, changed(quotas))
	return reconcile.Controller{
		Name: "resourcequota-controller", Inputs: []reconcile.Input{reconcile.Map(d.Caches, limits), watch.Input()},
		Writes: []string{"resourcequotas/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			q, ok := quotas.Get(key.Namespace, key.Name)
			if !ok || q.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			if watch.Missing(false) {
				return reconcile.Result{After: unsynced}, nil
			}
			again := resync
			if !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
				again = settle
			}
			var resources []schema.GroupResource
			for _, k := range kinds.All() {
				if countable(k) {
					resources = append(resources, k.GroupResource())
				}
			}
			used := Usage(q, resources, func(r schema.GroupResource) ([]api.Object, bool) {
				objects, ok := watch.List(r, q.Namespace)
				if !ok {
					again = settle
				}
				return objects, ok
			}, d.Clock.Now())
			return reconcile.Result{After: again}, plan.Apply(ctx, d, Plan(q, used)...)
		},
	}
}

// limits makes a quota due when it is new or limits something else; its status is what admission books in.
func limits(old, new *corev1.ResourceQuota) []reconcile.Key {
	if new == nil || old != nil && equality.Semantic.DeepEqual(old.Spec, new.Spec) && equality.Semantic.DeepEqual(new.Spec.Hard, new.Status.Hard) {
		return nil
	}
	return []reconcile.Key{plan.KeyOf(new)}
}

func countable(k *api.Kind) bool {
	return k.Namespaced && k.Plural != "events" && k.Serves("list") && k.Serves("watch")
}

// changed makes the namespace's quotas due when an object goes, or changes in what quotas measure.
func changed(quotas client.Reader[*corev1.ResourceQuota]) func(k *api.Kind, old, new api.Object) []reconcile.Key {
	return func(_ *api.Kind, old, new api.Object) (keys []reconcile.Key) {
		if old == nil || new != nil && !measured(old, new) {
			return nil
		}
		for _, q := range quotas.List(old.GetNamespace()) {
			keys = append(keys, plan.KeyOf(q))
		}
		return keys
	}
}

func measured(old, new api.Object) bool {
	switch n := new.(type) {
	case *corev1.Pod:
		return pods.Finished(n) != pods.Finished(old.(*corev1.Pod)) || n.Generation != old.GetGeneration()
	case *corev1.Service:
		return !equality.Semantic.DeepEqual(n.Spec, old.(*corev1.Service).Spec)
	case *corev1.PersistentVolumeClaim:
		o := old.(*corev1.PersistentVolumeClaim)
		return !equality.Semantic.DeepEqual(n.Spec, o.Spec) || !equality.Semantic.DeepEqual(n.Status.AllocatedResources, o.Status.AllocatedResources)
	}
	return false
}

// Plan brings the quota's status up to date.
func Plan(q *corev1.ResourceQuota, used corev1.ResourceList) []plan.Action {
	next := q.DeepCopy()
	next.Status = corev1.ResourceQuotaStatus{Hard: next.Spec.Hard, Used: used}
	if next.Status.Hard == nil {
		next.Status.Hard = corev1.ResourceList{}
	}
	if equality.Semantic.DeepEqual(q.Status, next.Status) {
		return nil
	}
	return []plan.Action{plan.Status(next)}
}
