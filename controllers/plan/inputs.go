package plan

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// KeyOf is the object's own key.
func KeyOf(o metav1.Object) reconcile.Key {
	return reconcile.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Orphans makes the owners due that select an object without a controller, when it appears, is let go, or changes
// its labels.
func Orphans[C, O api.Object](cs *client.Caches, owners client.Reader[O], selector func(O) labels.Selector) reconcile.Input {
	return reconcile.Map(cs, func(old, new C) []reconcile.Key {
		if isNil(new) || metav1.GetControllerOfNoCopy(new) != nil || new.GetDeletionTimestamp() != nil {
			return nil
		}
		if !isNil(old) && metav1.GetControllerOfNoCopy(old) == nil && maps.Equal(old.GetLabels(), new.GetLabels()) {
			return nil
		}
		var keys []reconcile.Key
		for _, o := range owners.List(new.GetNamespace()) {
			if selector(o).Matches(labels.Set(new.GetLabels())) {
				keys = append(keys, KeyOf(o))
			}
		}
		return keys
	})
}

func isNil[T api.Object](o T) bool {
	var zero T
	return any(o) == any(zero)
}

// Selector parses a label selector; one that is missing, empty or malformed selects nothing, so that a bad object
// cannot claim the whole namespace.
func Selector(s *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || parsed.Empty() {
		return labels.Nothing()
	}
	return parsed
}
