package quota

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// resync recounts kinds whose changes are not watched for quotas.
const resync = 5 * time.Minute

// New is the quota controller.
func New(d reconcile.Deps, kinds func() []*api.Kind) reconcile.Controller {
	cs := d.Caches
	quotas := client.CacheOf[*corev1.ResourceQuota](cs)
	pods, services, claims := client.CacheOf[*corev1.Pod](cs), client.CacheOf[*corev1.Service](cs), client.CacheOf[*corev1.PersistentVolumeClaim](cs)
	inputs := []reconcile.Input{reconcile.Own[*corev1.ResourceQuota](cs)}
	for _, k := range kinds() {
		if countable(k) && !k.CRD && k.Plural != "resourcequotas" {
			inputs = append(inputs, reconcile.MapKind(cs, k, changed(k, quotas)))
		}
	}
	counter := func(namespace string) func(string) (int, bool) {
		return func(name string) (int, bool) {
			for _, k := range kinds() {
				if countable(k) && k.GroupResource().String() == name {
					c := client.CacheOfKind(cs, k)
					return len(c.List(namespace)), c.Synced()
				}
			}
			return 0, false
		}
	}
	return reconcile.Controller{
		Name: "resourcequota-controller", Inputs: inputs, Writes: []string{"resourcequotas/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			q, ok := quotas.Get(key.Namespace, key.Name)
			if !ok || q.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			w := World{Pods: pods.List(q.Namespace), Services: services.List(q.Namespace), Claims: claims.List(q.Namespace), Count: counter(q.Namespace)}
			return reconcile.Result{After: resync}, plan.Apply(ctx, d, Plan(q, w)...)
		},
	}
}

func countable(k *api.Kind) bool {
	return k.Hub == nil && k.Namespaced && k.StoragePath != "" && k.Plural != "events" && k.Serves("list") && k.Serves("watch")
}

// changed makes the namespace's quotas due when an object comes or goes, or changes in what quotas measure.
func changed(k *api.Kind, quotas client.Reader[*corev1.ResourceQuota]) func(old, new api.Object) []reconcile.Key {
	return func(old, new api.Object) (keys []reconcile.Key) {
		o := new
		if o == nil {
			o = old
		}
		if old != nil && new != nil && !measured(old, new) {
			return nil
		}
		for _, q := range quotas.List(o.GetNamespace()) {
			keys = append(keys, plan.KeyOf(q))
		}
		return keys
	}
}

func measured(old, new api.Object) bool {
	switch n := new.(type) {
	case *corev1.Pod:
		return n.Status.Phase != old.(*corev1.Pod).Status.Phase || n.Generation != old.GetGeneration()
	case *corev1.Service:
		return !equality.Semantic.DeepEqual(n.Spec, old.(*corev1.Service).Spec)
	case *corev1.PersistentVolumeClaim:
		return !equality.Semantic.DeepEqual(n.Spec, old.(*corev1.PersistentVolumeClaim).Spec)
	}
	return false
}

// Plan brings the quota's status up to date.
func Plan(q *corev1.ResourceQuota, w World) []plan.Action {
	next := q.DeepCopy()
	next.Status = corev1.ResourceQuotaStatus{Hard: next.Spec.Hard, Used: Usage(q, w)}
	if next.Status.Hard == nil {
		next.Status.Hard = corev1.ResourceList{}
	}
	if equality.Semantic.DeepEqual(q.Status, next.Status) {
		return nil
	}
	return []plan.Action{plan.Status(next)}
}
