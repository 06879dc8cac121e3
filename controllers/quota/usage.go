// Package quota keeps the usage in the status of ResourceQuotas.
//
// Invariant: usage is counted afresh from the caches each time, never carried on from a former count, so that it
// cannot drift. Admission books what it lets in before the object is there, so that a count at that moment would miss
// it: a count is due when something goes or gets smaller, not when something comes. Only controllers/ may import quota.
package quota

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/internal/quota"
)

// Objects are all objects of a resource in the quota's namespace; false if they are not known yet.
type Objects func(schema.GroupResource) ([]api.Object, bool)

// Usage counts all resources that the quota limits, over the kinds that are served. What is not known keeps its figure.
func Usage(q *corev1.ResourceQuota, served []schema.GroupResource, objects Objects, now time.Time) corev1.ResourceList {
	limited := quotav1.ResourceNames(q.Spec.Hard)
	out := corev1.ResourceList{}
	for _, gr := range served {
		names := quota.Names(gr, limited)
		if len(names) == 0 {
			continue
		}
		sum := corev1.ResourceList{}
		for _, name := range names {
			sum[name] = zero.DeepCopy()
		}
		all, known := objects(gr)
		for _, o := range all {
			if quota.InScope(q, o) {
				sum = quotav1.Add(sum, quotav1.Mask(quota.Usage(gr, o, now), names))
			}
		}
		for name, n := range sum {
			if before, ok := q.Status.Used[name]; ok && !known {
				n = before
			}
			out[name] = n
		}
	}
	return out
}
