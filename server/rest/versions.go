package rest

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/store"
)

// This file is about kinds whose objects come in several versions, custom resources above all.

// judged is the row in whose version admission and validation see an object: the stored one of built-in kinds, the
// requested one of custom resources, whose versions have rules of their own.
func judged(k *api.Kind) *api.Kind {
	if k.CRD {
		return k
	}
	return k.Storage()
}

// rules is the row whose Validate and ValidateUpdate judge objects that were sent as k; their arguments are of judged(k).
func rules(k *api.Kind) *api.Kind {
	if k.Validate != nil {
		return k
	}
	return judged(k)
}

// asStored is an object as it would come out of the store, for a dry run: its lists without elements are none.
func asStored(k *api.Kind, obj api.Object) api.Object {
	s := k.Storage()
	in, ok := obj.(interface{ Marshal() ([]byte, error) })
	if ok {
		out := s.New()
		b, err := in.Marshal()
		if back, ok := out.(interface{ Unmarshal([]byte) error }); ok && err == nil && back.Unmarshal(b) == nil {
			out.GetObjectKind().SetGroupVersionKind(s.GroupVersionKind())
			obj = out
		}
	}
	codec.Defaulted(s, obj)
	return obj
}

// throughHub gives an object what it gains and loses by being kept as its hub: who owns what is counted on that. Custom
// resources are converted by webhooks, when they must be.
func throughHub(k *api.Kind, obj api.Object) (api.Object, error) {
	if k.Hub == nil || k.CRD {
		return obj, nil
	}
	hub, err := k.ToHub(obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return k.FromHub(hub)
}

// ready makes sure that As has no long work to do.
func ready(ctx context.Context, k *api.Kind, entries ...*store.Entry) error {
	if k.Ready == nil {
		return nil
	}
	objs := make([]api.Object, len(entries))
	for i, e := range entries {
		objs[i] = e.Object
	}
	return k.Ready(ctx, objs)
}

// List reads the objects of a namespace ("" for all).
func (r *REST) List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (*List, error) {
	if k.Ready != nil && o.FieldSelector != "" { // its fields may be the version's
		if err := r.readyAll(ctx, k, namespace, o.ResourceVersion); err != nil {
			return nil, err
		}
	}
	l, err := r.list(ctx, k, namespace, o)
	if err != nil {
		return nil, err
	}
	return l, ready(ctx, k, l.Entries...)
}

func (r *REST) readyAll(ctx context.Context, k *api.Kind, namespace, rv string) error {
	snap, err := r.snapshot(ctx, k, rv)
	if err != nil {
		return err
	}
	var all []*store.Entry
	for e := range snap.Scan(k.Prefix(namespace), "") {
		all = append(all, e)
	}
	return ready(ctx, k, all...)
}

// readyEvents is ready for what a watch is about to show.
func readyEvents(ctx context.Context, k *api.Kind, events []*store.Event) error {
	if k.Ready == nil {
		return nil
	}
	var all []*store.Entry
	for _, ev := range events {
		all = append(all, ev.Entry)
		if ev.Prev != nil {
			all = append(all, ev.Prev)
		}
	}
	return ready(ctx, k, all...)
}

// siblings are the served rows of the same objects.
func (r *REST) siblings(k *api.Kind) []*api.Kind {
	var out []*api.Kind
	for _, other := range r.Kinds.Kinds() {
		if other.Storage() == k.Storage() {
			out = append(out, other)
		}
	}
	return out
}

// Forget drops what is kept for a row that is no longer served.
func (r *REST) Forget(k *api.Kind) {
	r.managers.Range(func(key, _ any) bool {
		if key.(managerKey).k == k {
			r.managers.Delete(key)
		}
		return true
	})
	r.shapes.Range(func(key, _ any) bool {
		if key.(managerKey).k == k {
			r.shapes.Delete(key)
		}
		return true
	})
}
