package plan

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

const (
	byController = "controller" // value: the controlling owner's UID
	byOrphan     = "orphan"     // value: the namespace of an object without a controller
)

// Dependents is the cache of T with the indexes that Candidates asks.
func Dependents[T api.Object](cs *client.Caches) *client.Cache[T] {
	c := client.CacheOf[T](cs)
	c.AddIndex(byController, func(o T) []string {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}
		}
		return nil
	})
	c.AddIndex(byOrphan, func(o T) []string {
		if metav1.GetControllerOfNoCopy(o) == nil {
			return []string{o.GetNamespace()}
		}
		return nil
	})
	return c
}

// Controlled returns the objects that name owner as their controller, in no order.
func Controlled[T api.Object](c client.Reader[T], owner metav1.Object) []T {
	return c.By(byController, string(owner.GetUID()))
}

// Candidates returns the objects that owner controls and those of its namespace that nobody controls.
func Candidates[T api.Object](c client.Reader[T], owner metav1.Object) []T {
	owned, orphans := c.By(byController, string(owner.GetUID())), c.By(byOrphan, owner.GetNamespace())
	if len(orphans) == 0 {
		return owned
	}
	return append(append(make([]T, 0, len(owned)+len(orphans)), owned...), orphans...)
}

// Claim decides which candidates belong to owner. Mine are those that it controls and selects, plus the ones that
// the actions adopt; what it controls but no longer selects is released. An owner that is being deleted claims
// nothing new.
func Claim[T api.Object](owner api.Object, selector labels.Selector, candidates []T) (mine []T, actions []Action) {
	return ClaimIf(owner, selector, candidates, func(T) bool { return true })
}

// ClaimIf is Claim with a further rule that an object must satisfy to be adopted or kept.
func ClaimIf[T api.Object](owner api.Object, selector labels.Selector, candidates []T, also func(T) bool) (mine []T, actions []Action) {
	going := owner.GetDeletionTimestamp() != nil
	for _, c := range candidates {
		ref := metav1.GetControllerOfNoCopy(c)
		matches := selector.Matches(labels.Set(c.GetLabels())) && also(c)
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			mine = append(mine, c)
		case ref != nil && !going:
			actions = append(actions, Release{Obj: c, Owner: owner})
		case ref == nil && matches && !going && c.GetDeletionTimestamp() == nil:
			actions = append(actions, Adopt{Obj: c, Owner: owner})
			mine = append(mine, c)
		}
	}
	return mine, actions
}
