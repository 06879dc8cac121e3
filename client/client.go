// Package client is how components talk to the API: one interface with two ways behind it, in the process (the
// server's Local) and over HTTP, and read-only indexed caches over either.
//
// Invariant: objects that a cache or an in-process client returns are shared and read-only; whoever wants to change
// one calls DeepCopy first. Errors are apimachinery's *errors.StatusError on both ways.
//
// controllers, scheduler, node, proxy, podnet, dns, reconcile, daemon and ctl may import client.
package client

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

// Interface is every call that a component makes. The kind's row says which resource is meant. A namespace of ""
// means all namespaces, or a kind without them. Arguments are never changed; results may be shared.
type Interface interface {
	Get(ctx context.Context, k *api.Kind, namespace, name string, o metav1.GetOptions) (api.Object, error)
	List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (objects []api.Object, meta metav1.ListMeta, err error)
	// Watch's events carry api.Object, a *metav1.Status (Error), or for a Bookmark an object with nothing but its
	// resourceVersion.
	Watch(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error)
	// Update writes the object, or with a subresource ("status") what that subresource covers.
	Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error)
	Patch(ctx context.Context, k *api.Kind, namespace, name, subresource string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error)
	Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error
	DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, l metav1.ListOptions) error
	// Action posts a body to an action subresource (binding, eviction, token) or, with an empty name, to a kind that
	// is not stored (SubjectAccessReview, TokenReview), and returns the answer.
	Action(ctx context.Context, k *api.Kind, namespace, name, subresource string, body runtime.Object) (runtime.Object, error)
}

// KindOf is the built-in row of a Go type: KindOf[*corev1.Pod](). It panics for a type that is no built-in kind.
func KindOf[T api.Object]() *api.Kind {
	var zero T
	k, ok := builtin.Table().Of(zero)
	if !ok {
		panic(fmt.Sprintf("%T is no built-in kind", zero))
	}
	return k
}

func as[T api.Object](o api.Object, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return o.(T), nil
}

// Get reads one object, consistently.
func Get[T api.Object](ctx context.Context, c Interface, namespace, name string) (T, error) {
	return as[T](c.Get(ctx, KindOf[T](), namespace, name, metav1.GetOptions{}))
}

// List reads all objects of a namespace ("" for all namespaces), consistently.
func List[T api.Object](ctx context.Context, c Interface, namespace string, o metav1.ListOptions) ([]T, error) {
	objs, _, err := c.List(ctx, KindOf[T](), namespace, o)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(objs))
	for i, o := range objs {
		out[i] = o.(T)
	}
	return out, nil
}

// Create creates the object in its own namespace and returns what the server made of it.
func Create[T api.Object](ctx context.Context, c Interface, obj T) (T, error) {
	return as[T](c.Create(ctx, KindOf[T](), obj, metav1.CreateOptions{}))
}

// Update replaces the object; a stale resourceVersion is a conflict.
func Update[T api.Object](ctx context.Context, c Interface, obj T) (T, error) {
	return as[T](c.Update(ctx, KindOf[T](), obj, "", metav1.UpdateOptions{}))
}

// UpdateStatus replaces the object's status; a stale resourceVersion is a conflict.
func UpdateStatus[T api.Object](ctx context.Context, c Interface, obj T) (T, error) {
	return as[T](c.Update(ctx, KindOf[T](), obj, "status", metav1.UpdateOptions{}))
}

// Patch changes one object ("" or "status" as subresource).
func Patch[T api.Object](ctx context.Context, c Interface, namespace, name, subresource string, t types.PatchType, data []byte) (T, error) {
	return as[T](c.Patch(ctx, KindOf[T](), namespace, name, subresource, t, data, metav1.PatchOptions{}))
}

// Delete deletes one object. The UID, when not empty, must match.
func Delete[T api.Object](ctx context.Context, c Interface, namespace, name string, uid types.UID) error {
	o := metav1.DeleteOptions{}
	if uid != "" {
		o.Preconditions = &metav1.Preconditions{UID: &uid}
	}
	return c.Delete(ctx, KindOf[T](), namespace, name, o)
}
