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
	"github.com/skiff-sh/skiff/reconcile"
)

// resync recounts kinds whose changes are not watched for quotas.
const resync = 5 * time.Minute

// settle is when a quota that has just begun to count is counted again: what came in before admission knew of it was
// not booked.
const settle = 3 * time.Second

var zero = *resource.NewQuantity(0, resource.DecimalSI)

// New is the quota controller.
func New(d reconcile.Deps, kinds func() []*api.Kind) reconcile.Controller {
	cs := d.Caches
	quotas := client.CacheOf[*corev1.ResourceQuota](cs)
	inputs := []reconcile.Input{reconcile.Map(cs, limits)}
	for _, k := range kinds() {
		if countable(k) && !k.CRD {
			inputs = append(inputs, reconcile.MapKind(cs, k, changed(quotas)))
		}
	}
	return reconcile.Controller{
		Name: "resourcequota-controller", Inputs: inputs, Writes: []string{"resourcequotas/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			q, ok := quotas.Get(key.Namespace, key.Name)
			if !ok || q.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			byResource := map[schema.GroupResource]*api.Kind{}
			var served []schema.GroupResource
			for _, k := range kinds() {
				if countable(k) && byResource[k.GroupResource()] == nil {
					byResource[k.GroupResource()] = k
					served = append(served, k.GroupResource())
				}
			}
			objects := func(gr schema.GroupResource) []api.Object {
				return client.CacheOfKind(cs, byResource[gr]).List(q.Namespace)
			}
			again := resync
			if !equality.Semantic.DeepEqual(q.Spec.Hard, q.Status.Hard) {
				again = settle
			}
			return reconcile.Result{After: again}, plan.Apply(ctx, d, Plan(q, Usage(q, served, objects, d.Clock.Now()))...)
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
	return (k.Hub == nil || k.CRD) && k.Namespaced && k.StoragePath != "" && k.Plural != "events" && k.Serves("list") && k.Serves("watch")
}

// changed makes the namespace's quotas due when an object goes, or changes in what quotas measure.
func changed(quotas client.Reader[*corev1.ResourceQuota]) func(old, new api.Object) []reconcile.Key {
	return func(old, new api.Object) (keys []reconcile.Key) {
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
