package served

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// Watch hears of every change of the objects of many kinds: those that are served now, and those that come later.
type Watch struct {
	kinds  *Kinds
	caches *client.Caches
	match  func(*api.Kind) bool
	change func(k *api.Kind, old, new api.Object) []reconcile.Key

	mu      sync.Mutex
	watched map[schema.GroupResource]watched
}

type watched struct {
	kind   *api.Kind
	cache  *client.Cache[api.Object]
	cancel func()
}

// Watch makes a Watch of the kinds that match selects. Change names the keys that a change makes due, and must not block.
func (s *Kinds) Watch(cs *client.Caches, match func(*api.Kind) bool, change func(k *api.Kind, old, new api.Object) []reconcile.Key) *Watch {
	return &Watch{kinds: s, caches: cs, match: match, change: change, watched: map[schema.GroupResource]watched{}}
}

// Input is the Watch as a controller's input. Work does not wait for its caches: ask Missing.
func (w *Watch) Input() reconcile.Input {
	return reconcile.Source(func(enqueue func(reconcile.Key)) func() {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		table, aggregated := w.kinds.channels()
		w.follow(enqueue) // what is there now is asked for before anybody waits for the caches
		go func() {
			defer close(ended)
			for {
				select {
				case <-ctx.Done():
					return
				case <-table:
				case <-aggregated:
				}
				table, aggregated = w.kinds.channels()
				w.follow(enqueue)
			}
		}()
		return func() {
			cancel()
			<-ended
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, one := range w.watched {
				one.cancel()
			}
			clear(w.watched)
		}
	})
}

// follow subscribes to kinds that have come and drops those that have gone. The objects of one that has gone are reported
// as deleted: it went with them.
func (w *Watch) follow(enqueue func(reconcile.Key)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	served := map[schema.GroupResource]*api.Kind{}
	for _, k := range w.kinds.All() {
		if w.match(k) {
			served[k.GroupResource()] = k
		}
	}
	for name, one := range w.watched {
		if served[name] == one.kind && !one.cache.Dropped() {
			continue
		}
		one.cancel()
		delete(w.watched, name)
		if served[name] == nil {
			one.cache.Drop()
			for _, o := range one.cache.List("") {
				for _, key := range w.change(one.kind, o, nil) {
					enqueue(key)
				}
			}
		}
	}
	for name, k := range served {
		if _, ok := w.watched[name]; ok {
			continue
		}
		cache := client.CacheOfKind(w.caches, k)
		w.watched[name] = watched{k, cache, cache.Subscribe(func(e client.Event[api.Object]) {
			for _, key := range w.change(k, e.Old, e.New) {
				enqueue(key)
			}
		})}
	}
}

// Missing reports whether the caches of some matching kinds are not filled yet. Those of custom and aggregated kinds
// count only where optional is set: one that cannot be read must not hold up the rest.
func (w *Watch) Missing(optional bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.watched {
		if !one.cache.Synced() && (optional || !one.kind.CRD && !one.kind.Aggregated) {
			return true
		}
	}
	return false
}

// List returns a namespace's objects of one resource; false if they are not known.
func (w *Watch) List(r schema.GroupResource, namespace string) ([]api.Object, bool) {
	w.mu.Lock()
	one, ok := w.watched[r]
	w.mu.Unlock()
	if !ok || !one.cache.Synced() {
		return nil, false
	}
	return one.cache.List(namespace), true
}
