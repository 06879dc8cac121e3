package rest

import (
	"context"
	"errors"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

// Delete deletes an object, or marks it for deletion where its kind or its finalizers ask for time. gone tells which;
// the entry is the object's last state.
func (r *REST) Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) (e *store.Entry, gone bool, err error) {
	if errs := metavalidation.ValidateDeleteOptions(&o); len(errs) > 0 {
		return nil, false, apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: "DeleteOptions"}, "", errs)
	}
	if e, err = r.current(ctx, k, namespace, name); err != nil {
		return nil, false, err
	}
	var lost *store.Conflict
	for range 2 * writeAttempts {
		options := o
		out, gone, err := r.deleteOnce(ctx, k, e, &options)
		if !errors.As(err, &lost) {
			return out, gone, err
		}
		if e = lost.Current; e == nil {
			return nil, false, apierrors.NewNotFound(k.GroupResource(), name)
		}
	}
	return nil, false, conflict(k, name)
}

func (r *REST) deleteOnce(ctx context.Context, k *api.Kind, e *store.Entry, o *metav1.DeleteOptions) (*store.Entry, bool, error) {
	s := k.Storage()
	if err := checkPreconditions(k, e, o.Preconditions); err != nil {
		// The entry may be behind what the client has seen.
		fresh, ferr := r.Get(ctx, k, e.Object.GetNamespace(), e.Object.GetName(), metav1.GetOptions{})
		if ferr != nil {
			return nil, false, ferr
		}
		if fresh.Rev != e.Rev {
			return nil, false, &store.Conflict{Key: e.Key, Want: e.Rev, Current: fresh}
		}
		return nil, false, err
	}
	dryRun := len(o.DryRun) > 0
	ar := &admission.Request{Operation: admission.Delete, Kind: s, Requested: k, Namespace: e.Object.GetNamespace(), Name: e.Object.GetName(),
		Old: e.Object, Options: o, User: request.From(ctx).User, DryRun: dryRun, Warn: func(t string) { Warn(ctx, t) }}
	if err := r.Admission.Admit(ctx, ar); err != nil {
		return nil, false, err
	}
	if err := r.Admission.Validate(ctx, ar); err != nil {
		return nil, false, err
	}
	if _, ok := e.Object.(*batchv1.Job); ok && o.PropagationPolicy == nil && o.OrphanDependents == nil { //lint:ignore SA1019 old clients send it
		Warn(ctx, "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning")
	}
	obj, gone := markDeleted(s, e.Object, o, r.Now())
	switch {
	case gone && dryRun:
		return &store.Entry{Key: e.Key, Rev: e.Rev, Object: versioned(obj, e.Object)}, true, nil
	case gone:
		done := func(bool) {}
		if claim := r.Claims[resourceName(s)]; claim != nil {
			var err error
			if done, err = claim(ctx, nil, e.Object, false); err != nil {
				return nil, false, err
			}
		}
		out, err := r.delete(ctx, k, e)
		done(err == nil)
		if err != nil {
			return nil, false, err
		}
		return &store.Entry{Key: e.Key, Rev: out.Rev, Object: versioned(obj, out.Object)}, true, nil
	case obj == nil:
		return e, false, nil
	case dryRun:
		return &store.Entry{Key: e.Key, Rev: e.Rev, Object: versioned(obj, e.Object)}, false, nil
	}
	out, err := r.Store.Update(ctx, e.Key, e.Rev, obj, ttl(s))
	if err != nil {
		var lost *store.Conflict
		if errors.As(err, &lost) {
			return nil, false, lost
		}
		return nil, false, r.internal(err)
	}
	return out, false, nil
}

// versioned gives an object that was not stored the version that its answer carries.
func versioned(obj, stored api.Object) api.Object {
	obj.SetResourceVersion(stored.GetResourceVersion())
	return obj
}

func (r *REST) delete(ctx context.Context, k *api.Kind, e *store.Entry) (*store.Entry, error) {
	out, err := r.Store.Delete(ctx, e.Key, e.Rev)
	if err != nil {
		var lost *store.Conflict
		if errors.As(err, &lost) {
			return nil, lost
		}
		return nil, r.internal(err)
	}
	return out, nil
}

// markDeleted decides what a delete does to an object: gone says that it is to be removed now; else the result is its
// new state, or nil if nothing changes.
func markDeleted(k *api.Kind, old api.Object, o *metav1.DeleteOptions, now time.Time) (obj api.Object, gone bool) {
	obj = old.DeepCopyObject().(api.Object)
	obj.SetResourceVersion("")
	finalizersChanged := chooseFinalizers(obj, o)
	if old.GetDeletionTimestamp() == nil {
		holdDeleted(obj, now)
	}
	pending := len(pendingFinalizers(obj)) > 0

	if at := old.GetDeletionTimestamp(); at != nil {
		grace := old.GetDeletionGracePeriodSeconds()
		switch {
		case grace == nil || *grace == 0: // nobody is waited for but finalizers
		case o.GracePeriodSeconds != nil && *o.GracePeriodSeconds < *grace:
			period := max(*o.GracePeriodSeconds, 0)
			sooner := metav1.NewTime(at.Add(time.Duration(period-*grace) * time.Second))
			obj.SetDeletionTimestamp(&sooner)
			obj.SetDeletionGracePeriodSeconds(&period)
			return obj, period == 0 && !pending
		default:
			if !finalizersChanged {
				return nil, false
			}
			return obj, false
		}
		if !pending {
			return obj, true
		}
		if !finalizersChanged {
			return nil, false
		}
		return obj, false
	}

	wait := k.GracefulDelete != nil && k.GracefulDelete(obj, o)
	var period int64
	if wait && o.GracePeriodSeconds != nil {
		period = max(*o.GracePeriodSeconds, 0)
	}
	atOnce := !pending && period == 0
	if atOnce && k.GracefulDelete == nil {
		return obj, true
	}
	at := metav1.NewTime(now.Add(time.Duration(period) * time.Second).Truncate(time.Second))
	obj.SetDeletionTimestamp(&at)
	switch obj.(type) {
	case *apiextensionsv1.CustomResourceDefinition, *corev1.Namespace: // upstream marks them by their time alone
		markTerminating(obj)
		return obj, false
	}
	obj.SetDeletionGracePeriodSeconds(&period)
	if g := obj.GetGeneration(); g > 0 {
		obj.SetGeneration(g + 1)
	}
	if atOnce { // a graceful kind's last answer says that it was given no time
		return obj, true
	}
	markTerminating(obj)
	return obj, false
}

// chooseFinalizers adds and removes the garbage collector's finalizers as the propagation policy says.
func chooseFinalizers(obj api.Object, o *metav1.DeleteOptions) (changed bool) {
	var want string
	orphan := o.OrphanDependents //lint:ignore SA1019 old clients send it
	switch {
	case orphan != nil:
		if *orphan {
			want = metav1.FinalizerOrphanDependents
		}
	case o.PropagationPolicy != nil:
		switch *o.PropagationPolicy {
		case metav1.DeletePropagationOrphan:
			want = metav1.FinalizerOrphanDependents
		case metav1.DeletePropagationForeground:
			want = metav1.FinalizerDeleteDependents
		}
	case !orphansByDefault(obj), slices.Contains(obj.GetFinalizers(), metav1.FinalizerOrphanDependents),
		slices.Contains(obj.GetFinalizers(), metav1.FinalizerDeleteDependents):
		return false // what the object already asks for stays
	default:
		want = metav1.FinalizerOrphanDependents
	}
	old := obj.GetFinalizers()
	var out []string
	for _, f := range old {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents || f == want {
			out = append(out, f)
		}
	}
	if want != "" && !slices.Contains(out, want) {
		out = append(out, want)
	}
	obj.SetFinalizers(out)
	return !slices.Equal(old, out)
}

// orphansByDefault: the two kinds that are older than the garbage collector leave their pods behind, unless the delete
// says otherwise.
func orphansByDefault(obj api.Object) bool {
	switch obj.(type) {
	case *batchv1.Job, *corev1.ReplicationController:
		return true
	}
	return false
}

// finished reports whether a deleted object waits for nothing any more.
func finished(obj api.Object) bool {
	if obj.GetDeletionTimestamp() == nil || len(pendingFinalizers(obj)) > 0 {
		return false
	}
	grace := obj.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

// DeleteCollection deletes all objects that a list would give and returns that list.
func (r *REST) DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, lo metav1.ListOptions) (*List, error) {
	l, err := r.List(ctx, k, namespace, lo)
	if err != nil {
		return nil, err
	}
	out := &List{Kind: k, Meta: l.Meta}
	for _, e := range l.Entries {
		d, _, err := r.Delete(ctx, k, e.Object.GetNamespace(), e.Object.GetName(), o)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out.Entries = append(out.Entries, d)
	}
	return out, nil
}
