package client

import (
	"context"

	"github.com/skiff-sh/skiff/api"
)

// This file is the caches' typed face; what fills them is in mirror.go.

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

// Cache is the typed view of one mirror. Views are cheap: two of the same kind and selectors show the same mirror.
type Cache[T api.Object] struct{ m *mirror }

// CacheOf is the cache of a built-in kind; the same kind and selectors give the same cache.
func CacheOf[T api.Object](cs *Caches, sel ...Selector) *Cache[T] {
	return &Cache[T]{cs.mirror(KindOf[T](), sel)}
}

// CacheOfKind is the cache of any kind, custom resources too.
func CacheOfKind(cs *Caches, k *api.Kind, sel ...Selector) *Cache[api.Object] {
	return &Cache[api.Object]{cs.mirror(k, sel)}
}

// AddIndex adds an index; a name that is already there keeps its function. Indexes are best added before Run: later
// ones are built while readers wait.
func (c *Cache[T]) AddIndex(name string, f IndexFunc[T]) {
	c.m.addIndex(name, func(o api.Object) []string { return f(o.(T)) })
}

// Subscribe calls f for every object that is there, then for every change, in order and from one goroutine at a
// time. f may read the cache, but must neither block nor subscribe to the same kind. After cancel at most
// the call that is under way is finished.
func (c *Cache[T]) Subscribe(f func(Event[T])) (cancel func()) {
	return c.m.subscribe(func(old, new api.Object) {
		var e Event[T]
		if old != nil {
			e.Old = old.(T)
		}
		if new != nil {
			e.New = new.(T)
		}
		f(e)
	})
}

func (c *Cache[T]) Get(namespace, name string) (T, bool) {
	o, ok := c.m.get(namespace, name)
	if !ok {
		var zero T
		return zero, false
	}
	return o.(T), true
}

func (c *Cache[T]) List(namespace string) []T {
	m := c.m
	m.mu.RLock()
	defer m.mu.RUnlock()
	if namespace != "" {
		return values[T](nil, m.objects[namespace])
	}
	out := make([]T, 0, m.count)
	for _, objs := range m.objects {
		out = values(out, objs)
	}
	return out
}

// By returns the objects that the named index has under a value. An index that was never added is a programming
// error and panics.
func (c *Cache[T]) By(name, value string) []T {
	m := c.m
	m.mu.RLock()
	defer m.mu.RUnlock()
	ix := m.indexes[name]
	if ix == nil {
		panic("client: " + m.kind.Kind + " cache has no index " + name)
	}
	return values[T](nil, ix.objects[value])
}

func values[T api.Object, K comparable](out []T, objs map[K]api.Object) []T {
	if out == nil && len(objs) > 0 {
		out = make([]T, 0, len(objs))
	}
	for _, o := range objs {
		out = append(out, o.(T))
	}
	return out
}

// WaitFor returns when the cache includes all changes of its kind up to the resourceVersion ("" or "0": when it has
// been filled). A kind that rests gets there with the server's next bookmark.
func (c *Cache[T]) WaitFor(ctx context.Context, resourceVersion string) error {
	rev, err := parseRevision(resourceVersion)
	if err != nil {
		return err
	}
	return c.m.waitUntil(ctx, func() bool { return c.m.filled && c.m.rev >= rev })
}

// Drop stops a cache whose kind is no longer served (a CRD that went away). Its views stay as they are, and nobody is told
// that its objects are gone. Whoever asks for the same cache again gets a new one.
func (c *Cache[T]) Drop() { c.m.forget() }

// Dropped reports whether the cache was given up: it stays as it is. Asking for it again makes a new one.
func (c *Cache[T]) Dropped() bool {
	c.m.mu.RLock()
	defer c.m.mu.RUnlock()
	return c.m.dropped
}

// Synced reports whether the cache has been filled.
func (c *Cache[T]) Synced() bool {
	c.m.mu.RLock()
	defer c.m.mu.RUnlock()
	return c.m.filled
}
