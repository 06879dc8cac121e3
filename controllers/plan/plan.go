// Package plan is the outcome of every controller's decision: a list of actions as data, and the one function that
// carries such a list out.
//
// Invariant: planning functions return actions and touch nothing; only Apply writes. The controllers under
// controllers/ may import plan.
package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/reconcile"
)

// Action is one write to the API, or one event.
type Action interface{ action() }

// Create creates an object. Where Report is set, the outcome is told as an event about it: SuccessfulCreate
// ("Created pod: name") or FailedCreate.
type Create struct {
	Obj    api.Object
	Report api.Object
	// Noun names the object in the events ("pod").
	Noun string
	// IfMissing takes "already exists" for success.
	IfMissing bool
}

// Update writes an object, or one of its subresources ("status"). The object carries the resourceVersion that it
// was planned from, so that a stale plan is refused as a conflict.
type Update struct {
	Obj         api.Object
	Subresource string
}

// Delete deletes an object whose UID (and resourceVersion, where Exact) is still the planned one.
type Delete struct {
	Obj         api.Object
	Report      api.Object
	Noun        string
	Grace       *int64 // seconds; nil leaves it to the object
	Propagation *metav1.DeletionPropagation
	Exact       bool
}

// Patch changes an object that is still the planned one by UID.
type Patch struct {
	Obj         api.Object
	Subresource string
	Type        types.PatchType
	Data        []byte
}

// Adopt makes Owner the controller of Obj, after a live read that shows that Owner still exists and is not being
// deleted.
type Adopt struct {
	Obj   api.Object
	Owner api.Object
}

// Release removes Owner from Obj's owner references.
type Release struct {
	Obj   api.Object
	Owner api.Object
}

// Event records an event.
type Event struct {
	About                 runtime.Object
	Type, Reason, Message string
}

func (Create) action()  {}
func (Update) action()  {}
func (Delete) action()  {}
func (Patch) action()   {}
func (Adopt) action()   {}
func (Release) action() {}
func (Event) action()   {}

// Normal is an event of type Normal.
func Normal(about runtime.Object, reason, format string, args ...any) Event {
	return Event{About: about, Type: corev1.EventTypeNormal, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Warning is an event of type Warning.
func Warning(about runtime.Object, reason, format string, args ...any) Event {
	return Event{About: about, Type: corev1.EventTypeWarning, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Status is an update of the object's status.
func Status(obj api.Object) Update { return Update{Obj: obj, Subresource: "status"} }

// writeBurst bounds how many writes of one plan are on their way at once: enough that they share etcd's commits.
const writeBurst = 64

// Apply carries out the actions in order. Neighbouring creates go out in batches of 1, 2, 4 and so on, and then
// together, so that a create which cannot succeed is tried once and not a thousand times; neighbouring deletes and patches
// go out together.
// It stops at the first failure and returns it; an object that is already gone counts as deleted or patched.
func Apply(ctx context.Context, d reconcile.Deps, actions ...Action) error {
	for len(actions) > 0 {
		n, err := 1, error(nil)
		switch a := actions[0].(type) {
		case Create:
			n = run[Create](actions)
			err = createAll(ctx, d, actions[:n])
		case Delete:
			n = run[Delete](actions)
			err = together(actions[:n], writeBurst, func(a Action) error { return deleteOne(ctx, d, a.(Delete)) })
		case Update:
			_, err = d.Client.Update(ctx, kindOf(a.Obj), a.Obj, a.Subresource, metav1.UpdateOptions{})
		case Patch:
			n = run[Patch](actions)
			err = together(actions[:n], writeBurst, func(a Action) error { return patchOne(ctx, d, a.(Patch)) })
		case Adopt:
			err = adopt(ctx, d, a)
		case Release:
			err = release(ctx, d, a)
		case Event:
			d.Events.Eventf(a.About, a.Type, a.Reason, "%s", a.Message)
		}
		if err != nil {
			return err
		}
		actions = actions[n:]
	}
	return nil
}

// run counts how many leading actions are of type A.
func run[A Action](actions []Action) int {
	n := 0
	for n < len(actions) {
		if _, ok := actions[n].(A); !ok {
			break
		}
		n++
	}
	return n
}

func kindOf(o api.Object) *api.Kind {
	k, ok := builtin.Table().Of(o)
	if !ok {
		panic(fmt.Sprintf("%T is no built-in kind", o))
	}
	return k
}

// together calls f for the actions, at most limit at once, and joins the errors. After the first error no more are begun.
func together(actions []Action, limit int, f func(Action) error) error {
	if len(actions) == 1 {
		return f(actions[0])
	}
	var wg sync.WaitGroup
	var failed atomic.Bool
	slots := make(chan struct{}, limit)
	errs := make([]error, len(actions))
	for i, a := range actions {
		slots <- struct{}{}
		if failed.Load() {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if errs[i] = f(a); errs[i] != nil {
				failed.Store(true)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func createAll(ctx context.Context, d reconcile.Deps, actions []Action) error {
	create := func(a Action) error { return createOne(ctx, d, a.(Create)) }
	for size := 1; size < writeBurst && len(actions) > 0; size *= 2 {
		n := min(size, len(actions))
		if err := together(actions[:n], n, create); err != nil {
			return err
		}
		actions = actions[n:]
	}
	return together(actions, writeBurst, create)
}

func createOne(ctx context.Context, d reconcile.Deps, a Create) error {
	made, err := d.Client.Create(ctx, kindOf(a.Obj), a.Obj, metav1.CreateOptions{})
	switch {
	case err == nil:
		if a.Report != nil {
			d.Events.Eventf(a.Report, corev1.EventTypeNormal, "SuccessfulCreate", "Created %s: %v", a.Noun, made.GetName())
		}
		return nil
	case a.IfMissing && apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace controller removes everything anyway
	}
	if a.Report != nil {
		d.Events.Eventf(a.Report, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
	}
	return err
}

func deleteOne(ctx context.Context, d reconcile.Deps, a Delete) error {
	uid := a.Obj.GetUID()
	o := metav1.DeleteOptions{GracePeriodSeconds: a.Grace, PropagationPolicy: a.Propagation}
	if uid != "" {
		o.Preconditions = &metav1.Preconditions{UID: &uid}
	}
	if rv := a.Obj.GetResourceVersion(); a.Exact && rv != "" {
		o.Preconditions.ResourceVersion = &rv
	}
	err := d.Client.Delete(ctx, kindOf(a.Obj), a.Obj.GetNamespace(), a.Obj.GetName(), o)
	switch {
	case err == nil:
		if a.Report != nil {
			d.Events.Eventf(a.Report, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted %s: %v", a.Noun, a.Obj.GetName())
		}
		return nil
	case apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return err // most often another object has taken the name, which the next look will show: no news to users
	}
	if a.Report != nil {
		d.Events.Eventf(a.Report, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
	}
	return err
}

func patchOne(ctx context.Context, d reconcile.Deps, a Patch) error {
	_, err := d.Client.Patch(ctx, kindOf(a.Obj), a.Obj.GetNamespace(), a.Obj.GetName(), a.Subresource, a.Type, a.Data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func adopt(ctx context.Context, d reconcile.Deps, a Adopt) error {
	k := kindOf(a.Owner)
	live, err := d.Client.Get(ctx, k, a.Owner.GetNamespace(), a.Owner.GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	if live.GetUID() != a.Owner.GetUID() || live.GetDeletionTimestamp() != nil {
		return nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             a.Obj.GetUID(),
		"ownerReferences": []metav1.OwnerReference{*metav1.NewControllerRef(a.Owner, k.GroupVersionKind())},
	}})
	if err != nil {
		return err
	}
	return patchOwners(ctx, d, a.Obj, data)
}

func release(ctx context.Context, d reconcile.Deps, a Release) error {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             a.Obj.GetUID(),
		"ownerReferences": []map[string]any{{"$patch": "delete", "uid": a.Owner.GetUID()}},
	}})
	if err != nil {
		return err
	}
	err = patchOwners(ctx, d, a.Obj, data)
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil // gone, or replaced by another of the same name
	}
	return err
}

func patchOwners(ctx context.Context, d reconcile.Deps, obj api.Object, data []byte) error {
	_, err := d.Client.Patch(ctx, kindOf(obj), obj.GetNamespace(), obj.GetName(), "", types.StrategicMergePatchType, data, metav1.PatchOptions{})
	return err
}
