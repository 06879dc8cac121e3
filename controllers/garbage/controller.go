package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	tablePoll = 2 * time.Second        // how soon new kinds are watched
	unsynced  = 100 * time.Millisecond // how soon to ask again whether the caches are filled
)

type controller struct {
	reconcile.Deps
	table *api.Table
	graph *graph

	mu      sync.Mutex
	enqueue func(reconcile.Key)
	watched map[string]watched // by resource
}

type watched struct {
	kind   *api.Kind
	cache  *client.Cache[api.Object]
	cancel func()
}

// New is the garbage collector over all kinds of the table, those that come later too. Its keys are UIDs.
func New(d reconcile.Deps, table *api.Table) reconcile.Controller {
	c := &controller{Deps: d, table: table, graph: newGraph(), watched: map[string]watched{}}
	return reconcile.Controller{
		Name: "garbage-collector-controller", Workers: 16,
		Inputs:    []reconcile.Input{reconcile.Source(c.start)},
		Writes:    []string{"*/*"},
		Reconcile: c.reconcile,
		Start:     c.follow,
	}
}

// start begins to watch all kinds.
func (c *controller) start(enqueue func(reconcile.Key)) (cancel func()) {
	c.mu.Lock()
	c.enqueue = enqueue
	c.mu.Unlock()
	c.watchAll()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, w := range c.watched {
			w.cancel()
		}
		clear(c.watched)
		c.enqueue = nil
	}
}

// follow watches kinds that join the table and drops those that leave it.
func (c *controller) follow(ctx context.Context) error {
	tick := c.Clock.NewTicker(tablePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
			c.watchAll()
		}
	}
}

func (c *controller) watchAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.enqueue == nil {
		return
	}
	served := map[string]*api.Kind{}
	for _, k := range c.table.Kinds() {
		name := k.GroupResource().String()
		if _, seen := served[name]; !seen && collectable(k) {
			served[name] = k
		}
	}
	for name, w := range c.watched {
		if served[name] != w.kind || w.cache.Dropped() {
			w.cancel()
			delete(c.watched, name)
		}
	}
	for name, k := range served {
		if _, ok := c.watched[name]; ok {
			continue
		}
		cache, enqueue := client.CacheOfKind(c.Caches, k), c.enqueue
		cancel := cache.Subscribe(func(e client.Event[api.Object]) {
			for _, uid := range c.graph.change(k, e.Old, e.New) {
				enqueue(reconcile.Key{Name: string(uid)})
			}
		})
		c.watched[name] = watched{k, cache, cancel}
	}
}

// collectable reports whether objects of the kind can own or be owned. Events are too many and own nothing.
func collectable(k *api.Kind) bool {
	return (k.Hub == nil || k.CRD) && k.StoragePath != "" && k.Plural != "events" && k.Serves("list") && k.Serves("watch") && k.Serves("delete")
}

func (c *controller) synced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watched {
		if !w.cache.Synced() && !w.kind.CRD {
			return false
		}
	}
	return true
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	if !c.synced() {
		return reconcile.Result{After: unsynced}, nil
	}
	it, ok := c.graph.look(types.UID(key.Name))
	if !ok {
		return reconcile.Result{}, nil
	}
	var owners []presence
	if needOwners(it) {
		for _, o := range it.owners {
			p, err := c.presence(ctx, it, o)
			if err != nil {
				return reconcile.Result{}, err
			}
			owners = append(owners, p)
		}
	}
	actions, next := decide(it, owners)
	for _, a := range actions {
		if err := c.apply(ctx, a); err != nil {
			return reconcile.Result{}, err
		}
	}
	c.mu.Lock()
	enqueue := c.enqueue
	c.mu.Unlock()
	for _, uid := range next {
		if enqueue != nil {
			enqueue(reconcile.Key{Name: string(uid)})
		}
	}
	return reconcile.Result{}, nil
}

// presence asks for an owner: the graph if it has seen it, else the API.
func (c *controller) presence(ctx context.Context, it item, o owner) (presence, error) {
	live := o.seen
	if live == nil {
		k, ok := c.kindOf(o.ref)
		if !ok {
			return solid, nil // a kind that is not served proves nothing
		}
		namespace := ""
		if k.Namespaced {
			if namespace = it.obj.GetNamespace(); namespace == "" {
				c.Events.Eventf(it.obj, corev1.EventTypeWarning, "OwnerRefInvalidNamespace", "ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
					o.ref.APIVersion, o.ref.Kind, namespace, o.ref.Name, o.ref.UID, namespace)
				return solid, nil
			}
		}
		var err error
		live, err = c.Client.Get(ctx, k, namespace, o.ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return absent, nil
		case err != nil:
			return absent, err
		case live.GetUID() != o.ref.UID:
			return absent, nil
		}
	}
	if foreground(live) {
		return waiting, nil
	}
	return solid, nil
}

func (c *controller) kindOf(r metav1.OwnerReference) (*api.Kind, bool) {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	if err != nil {
		return nil, false
	}
	if k, ok := c.table.Kind(gv.WithKind(r.Kind)); ok {
		return k, true
	}
	for _, k := range c.table.Kinds() {
		if k.Group == gv.Group && k.Kind == r.Kind {
			return k, true
		}
	}
	return nil, false
}

func (c *controller) apply(ctx context.Context, a action) error {
	uid, rv := a.obj.GetUID(), a.obj.GetResourceVersion()
	var err error
	if a.delete != "" {
		err = c.Client.Delete(ctx, a.kind, a.obj.GetNamespace(), a.obj.GetName(), metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}, PropagationPolicy: &a.delete})
	} else {
		meta := map[string]any{"uid": uid, "resourceVersion": rv}
		if a.setOwners {
			meta["ownerReferences"] = a.owners
		}
		if a.setFinals {
			meta["finalizers"] = a.finalizers
		}
		data, merr := json.Marshal(map[string]any{"metadata": meta})
		if merr != nil {
			return fmt.Errorf("encoding a patch of %s %s: %w", a.kind, a.obj.GetName(), merr)
		}
		_, err = c.Client.Patch(ctx, a.kind, a.obj.GetNamespace(), a.obj.GetName(), "", types.MergePatchType, data, metav1.PatchOptions{})
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
