// Package read finds built-in objects in the store's cache by their Go type.
//
// Invariant: what it returns is shared and read-only; it takes no lock and, but for Fresh, never waits. Only server's
// folders import read.
package read

import (
	"context"
	"fmt"
	"iter"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/store"
)

// Kind is the row of a Go type. It panics for a type that is no built-in kind.
func Kind[T api.Object]() *api.Kind {
	var zero T
	k, ok := builtin.Table().Of(zero)
	if !ok {
		panic(fmt.Sprintf("%T is no built-in kind", zero))
	}
	return k
}

// Get is the object as the cache knows it.
func Get[T api.Object](st store.Store, namespace, name string) (T, bool) {
	e, ok := Entry[T](st, namespace, name)
	if !ok {
		var zero T
		return zero, false
	}
	o, ok := e.Object.(T)
	return o, ok
}

// Entry is the object's entry as the cache knows it.
func Entry[T api.Object](st store.Store, namespace, name string) (*store.Entry, bool) {
	k := Kind[T]()
	return st.Snapshot(k.Prefix("")).Get(k.Key(namespace, name))
}

// Fresh is Get, but where the cache has nothing it first waits for etcd's current revision, so that an object created
// a moment ago through another server is found.
func Fresh[T api.Object](ctx context.Context, st store.Store, namespace, name string) (T, bool, error) {
	if o, ok := Get[T](st, namespace, name); ok {
		return o, true, nil
	}
	var zero T
	rev, err := st.Revision(ctx)
	if err != nil {
		return zero, false, err
	}
	if err := st.WaitFor(ctx, rev); err != nil {
		return zero, false, err
	}
	o, ok := Get[T](st, namespace, name)
	return o, ok, nil
}

// All yields the objects of a namespace ("" for all namespaces) in the order of their names.
func All[T api.Object](st store.Store, namespace string) iter.Seq[T] {
	k := Kind[T]()
	snap, prefix := st.Snapshot(k.Prefix("")), k.Prefix(namespace)
	return func(yield func(T) bool) {
		for e := range snap.Scan(prefix, "") {
			if o, ok := e.Object.(T); ok && !yield(o) {
				return
			}
		}
	}
}
