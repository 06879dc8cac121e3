package reconcile

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// Input is one kind of change that makes keys due. What exists when the controller starts counts as a change.
type Input struct {
	start  func(enqueue func(Key)) (cancel func())
	caches *client.Caches // what must be filled before work starts; may be nil
}

// KeyOf is an object's own key.
func KeyOf(o metav1.Object) Key { return Key{o.GetNamespace(), o.GetName()} }

// Own makes every changed object's own key due.
func Own[T api.Object](cs *client.Caches, sel ...client.Selector) Input {
	return watching(cs, client.CacheOf[T](cs, sel...), func(old, new T) []Key {
		if isNil(new) {
			return []Key{KeyOf(old)}
		}
		return []Key{KeyOf(new)}
	})
}

// Owned makes the key of a changed object's controlling owner due, if that is of the given kind ("ReplicaSet"). When
// the owner changes, both are due. An owner without a namespace has a key without one only if the object has none.
func Owned[T api.Object](cs *client.Caches, ownerKind string, sel ...client.Selector) Input {
	return watching(cs, client.CacheOf[T](cs, sel...), func(old, new T) []Key {
		var keys []Key
		for _, o := range []T{old, new} {
			if isNil(o) {
				continue
			}
			ref := metav1.GetControllerOfNoCopy(o)
			if ref == nil || ref.Kind != ownerKind {
				continue
			}
			if k := (Key{o.GetNamespace(), ref.Name}); len(keys) == 0 || keys[0] != k {
				keys = append(keys, k)
			}
		}
		return keys
	})
}

// Map makes the keys due that f names for a change (old is the zero value for an addition, new for a deletion). f
// must not block.
func Map[T api.Object](cs *client.Caches, f func(old, new T) []Key, sel ...client.Selector) Input {
	return watching(cs, client.CacheOf[T](cs, sel...), f)
}

// Source makes keys due for any other reason: start is given enqueue, which never blocks, and returns what stops it.
func Source(start func(enqueue func(Key)) (cancel func())) Input { return Input{start: start} }

func watching[T api.Object](cs *client.Caches, c *client.Cache[T], f func(old, new T) []Key) Input {
	return Input{caches: cs, start: func(enqueue func(Key)) func() {
		return c.Subscribe(func(e client.Event[T]) {
			for _, k := range f(e.Old, e.New) {
				enqueue(k)
			}
		})
	}}
}

// isNil reports whether o is its type's zero value: a nil pointer, or a nil interface.
func isNil[T api.Object](o T) bool {
	var zero T
	return any(o) == any(zero)
}
