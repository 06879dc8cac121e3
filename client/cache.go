package client

import (
	"context"

	"github.com/skiff-sh/skiff/api"
)

// This file fixes the caches' interface; the engine that fills them is in mirror.go.

// Event is one change as a cache applied it. Old is the zero value for an addition, New for a deletion. Events
// of one object come in order; after a relist, only what differs is told.
type Event[T api.Object] struct{ Old, New T }

// IndexFunc gives the values under which an object is found by one index. It is pure.
type IndexFunc[T api.Object] func(T) []string

// Reader is the read side of a cache of one kind. All methods may be called from any goroutine; results are
// shared, read-only objects.
type Reader[T api.Object] interface {
	Get(namespace, name string) (T, bool)
	// List returns the objects of a namespace ("" for all) in no particular order.
	List(namespace string) []T
	// By returns the objects that the named index has under a value.
	By(index, value string) []T
	// WaitFor returns when the cache includes all changes of its kind up to the resourceVersion.
	WaitFor(ctx context.Context, resourceVersion string) error
	Synced() bool
}
