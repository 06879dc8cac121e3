package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/controllers/served"
	"github.com/skiff-sh/skiff/reconcile"
)

// unsynced is how soon to ask again whether the caches are filled.
const unsynced = 100 * time.Millisecond

type controller struct {
	reconcile.Deps
	kinds *served.Kinds
	watch *served.Watch
	graph *graph
	due   func(types.UID) // set when the controller starts
}

// New is the garbage collector over all kinds that are served, those that come later too. Its keys are UIDs.
func New(d reconcile.Deps, kinds *served.Kinds) reconcile.Controller {
	c := &controller{Deps: d, kinds: kinds, graph: newGraph()}
	c.watch = kinds.Watch(d.Caches, collectable, func(k *api.Kind, old, new api.Object) (keys []reconcile.Key) {
		for _, uid := range c.graph.change(k, old, new) {
			keys = append(keys, keyOf(uid))
		}
		return keys
	})
	return reconcile.Controller{
		Name: "garbage-collector-controller", Workers: 16,
		Inputs: []reconcile.Input{reconcile.Source(func(enqueue func(reconcile.Key)) func() {
			c.due = func(uid types.UID) { enqueue(keyOf(uid)) }
			return func() {}
		}), c.watch.Input()},
		Writes:    []string{"*/*"},
		Reconcile: c.reconcile,
	}
}

func keyOf(uid types.UID) reconcile.Key { return reconcile.Key{Name: string(uid)} }

// collectable reports whether objects of the kind can own or be owned. Events are too many and own nothing.
func collectable(k *api.Kind) bool {
	return k.Plural != "events" && k.Serves("list") && k.Serves("watch") && k.Serves("delete")
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	if c.watch.Missing(false) {
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
	for _, uid := range next {
		c.due(uid)
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
	return c.kinds.Kind(gv.WithKind(r.Kind))
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
