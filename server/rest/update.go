package rest

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

// write is one change of an object, whatever verb asked for it.
type write struct {
	k               *api.Kind
	namespace, name string
	sub             string // "" or a StatusSub or PartSub
	dryRun          bool
	manager         string
	managed         bool // change has done the managed fields (apply, scale)
	options         runtime.Object
	// change makes the new object from the old one, both of k's version. old is shared; the result is private.
	change func(old api.Object) (api.Object, error)
	// put says that the new object is a whole one, which must carry a resourceVersion where its kind wants that.
	put bool
	// missing makes the object where there is none; nil for 404.
	missing func() (api.Object, error)
}

// Update replaces an object, or with a subresource what that covers. obj becomes REST's own. created tells that the
// object was new.
func (r *REST) Update(ctx context.Context, k *api.Kind, namespace, name, sub string, obj api.Object, o metav1.UpdateOptions) (e *store.Entry, created bool, err error) {
	if err := ValidateOptions(&o); err != nil {
		return nil, false, err
	}
	if err := matchName(k, namespace, name, obj); err != nil {
		return nil, false, err
	}
	w := write{k: k, namespace: namespace, name: name, sub: sub, dryRun: len(o.DryRun) > 0, options: &o, put: true,
		manager: managerName(o.FieldManager, request.From(ctx)),
		change:  func(api.Object) (api.Object, error) { return obj.DeepCopyObject().(api.Object), nil }}
	if sub == "" && k.AllowCreateOnUpdate {
		w.missing = func() (api.Object, error) { return obj, nil }
	}
	return r.write(ctx, w)
}

func matchName(k *api.Kind, namespace, name string, obj api.Object) error {
	if obj.GetName() == "" {
		if k.AllowCreateOnUpdate || obj.GetGenerateName() == "" {
			return apierrors.NewBadRequest("the name of the object (" + obj.GetName() + ") does not match the name on the URL (" + name + ")")
		}
		obj.SetName(name)
	}
	if obj.GetName() != name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), name))
	}
	if k.Namespaced {
		if obj.GetNamespace() == "" {
			obj.SetNamespace(namespace)
		}
		if obj.GetNamespace() != namespace {
			return apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the URL (%s)", obj.GetNamespace(), namespace))
		}
	}
	return nil
}

const writeAttempts = 5

func (r *REST) write(ctx context.Context, w write) (*store.Entry, bool, error) {
	e, err := r.current(ctx, w.k, w.namespace, w.name)
	var lost *store.Conflict
	sure := false // e is what etcd has
	for range writeAttempts {
		if apierrors.IsNotFound(err) && w.missing != nil {
			e, err = r.createMissing(ctx, w)
			if apierrors.IsAlreadyExists(err) {
				e, err = r.current(ctx, w.k, w.namespace, w.name)
				continue
			}
			return e, true, err
		}
		if err != nil {
			return nil, false, err
		}
		var out *store.Entry
		out, err = r.writeOnce(ctx, w, e)
		if !errors.As(err, &lost) {
			// What nothing was written for was judged by the cache alone, which may be behind another server's writes.
			if (err != nil || out == e) && !sure {
				sure = true
				if now, gerr := r.Get(ctx, w.k, w.namespace, w.name, metav1.GetOptions{}); now != e {
					e, err = now, gerr
					continue
				}
			}
			return out, false, err
		}
		// Somebody else was faster, or the cache was behind.
		if e = lost.Current; e == nil {
			e, err = nil, apierrors.NewNotFound(w.k.GroupResource(), w.name)
		} else {
			err = nil
		}
	}
	return nil, false, conflict(w.k, w.name)
}

func (r *REST) createMissing(ctx context.Context, w write) (*store.Entry, error) {
	obj, err := w.missing()
	if err != nil {
		return nil, err
	}
	if obj.GetUID() != "" {
		return nil, apierrors.NewConflict(w.k.GroupResource(), w.name,
			//lint:ignore ST1005 upstream's text
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: ", obj.GetUID()))
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != "0" {
		return nil, apierrors.NewNotFound(w.k.GroupResource(), w.name)
	}
	if r.MayCreate != nil {
		if err := r.MayCreate(ctx, w.k, w.namespace, w.name); err != nil {
			return nil, err
		}
	}
	if err := matchNamespace(w.k, w.namespace, obj); err != nil {
		return nil, err
	}
	return r.create(ctx, creation{k: w.k, obj: obj, dryRun: w.dryRun, manager: w.manager, managed: w.managed,
		options: &metav1.CreateOptions{FieldManager: w.manager}})
}

// writeOnce tries to replace one entry. A lost race is a *store.Conflict.
func (r *REST) writeOnce(ctx context.Context, w write, e *store.Entry) (*store.Entry, error) {
	k, s := w.k, judged(w.k)
	old, err := As(e, k)
	if err != nil {
		return nil, err
	}
	obj, err := w.change(old)
	if err != nil {
		return nil, err
	}
	if err := r.checkIdentity(ctx, w, e, obj); err != nil {
		return nil, err
	}
	if w.sub != "" && !k.CRD { // of a custom resource the part is taken last, as upstream does
		obj = partOf(k, w.sub, old, obj)
		if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok {
			stampConditions(csr, old.(*certificatesv1.CertificateSigningRequest), metav1.NewTime(r.Now().Truncate(1e9)))
		}
	}
	keepMeta(obj, old)
	if w.put {
		uniqueOwners(ctx, obj, "")
	}
	if !w.managed {
		if obj, err = throughHub(k, obj); err != nil {
			return nil, err
		}
		if obj, err = r.manage(k, w.sub, old, obj, w.manager); err != nil {
			return nil, err
		}
	}
	if obj, err = codec.Convert(obj, k, s); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if s != k {
		old = e.Object
	}
	ar := &admission.Request{Operation: admission.Update, Kind: s, Requested: k, Subresource: w.sub, Namespace: w.namespace, Name: w.name,
		Object: obj, Old: old, Options: w.options, User: request.From(ctx).User, DryRun: w.dryRun,
		Warn: func(t string) { Warn(ctx, t) }}
	if err := r.admit(ctx, ar); err != nil {
		return nil, err
	}
	obj = ar.Object.(api.Object)
	if sub, ok := s.Subresource(w.sub); w.sub == "" {
		prepareUpdate(ctx, s, obj, old)
	} else if ok && sub.Type == api.StatusSub && !s.CRD {
		keepOutside(obj, old) // nor does admission change the rest by way of the status
		if pv, ok := obj.(*corev1.PersistentVolume); ok {
			stampPhase(pv, old.(*corev1.PersistentVolume), metav1.NewTime(r.Now().Truncate(1e9)))
		}
		if p, ok := obj.(*corev1.Pod); ok && p.Status.QOSClass == "" {
			p.Status.QOSClass = old.(*corev1.Pod).Status.QOSClass
		}
	} else if ok && sub.Type == api.StatusSub {
		obj = partOf(s, w.sub, old, obj)
		ar.Object = obj
	}
	if _, status := s.Subresource("status"); s.HasGeneration && !sameOutsideStatus(obj, old, status) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	done := func(bool) {}
	if claim := r.Claims[resourceName(s)]; claim != nil && w.sub == "" {
		if done, err = claim(ctx, obj, old, w.dryRun); err != nil {
			return nil, err
		}
	}
	out, err := r.writeChecked(ctx, w, e, obj, old, ar)
	done(err == nil && !w.dryRun)
	return out, err
}

// checkIdentity compares the resourceVersion and UID that a client sent with what is there.
func (r *REST) checkIdentity(ctx context.Context, w write, e *store.Entry, obj api.Object) error {
	if uid := obj.GetUID(); uid != "" && uid != e.Object.GetUID() && w.put {
		return apierrors.NewConflict(w.k.GroupResource(), w.name, fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %v, UID in object meta: %v",
			e.Key, uid, e.Object.GetUID()))
	}
	rv := obj.GetResourceVersion()
	if rv == "" || rv == "0" {
		if w.put && !w.k.UnconditionalUpdate && w.sub == "" {
			return apierrors.NewInvalid(w.k.GroupVersionKind().GroupKind(), w.name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
		}
		return nil
	}
	if rv == e.Object.GetResourceVersion() {
		return nil
	}
	if _, err := strconv.ParseUint(rv, 10, 64); err != nil {
		return err // 500 without a reason, as upstream
	}
	if revOf(obj) > e.Rev {
		// The client has seen more than this entry: the cache was behind.
		fresh, err := r.Get(ctx, w.k, w.namespace, w.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if fresh.Rev != e.Rev {
			return &store.Conflict{Key: e.Key, Want: e.Rev, Current: fresh}
		}
	}
	return conflict(w.k, w.name)
}

func (r *REST) writeChecked(ctx context.Context, w write, e *store.Entry, obj, old api.Object, ar *admission.Request) (*store.Entry, error) {
	s := judged(w.k)
	errs := validateMetaUpdate(obj, old)
	sub, _ := s.Subresource(w.sub)
	switch {
	case (w.sub == "" || sub != nil && sub.Type == api.ScaleSub) && rules(w.k).ValidateUpdate != nil:
		errs = append(errs, rules(w.k).ValidateUpdate(obj, old)...)
	case w.sub != "" && sub != nil && sub.Type == api.StatusSub && s.ValidateStatus != nil:
		errs = append(errs, s.ValidateStatus(obj, old)...)
	case w.sub != "" && sub != nil && sub.Type == api.PartSub:
		errs = append(errs, validatePart(s, w.sub, obj, old)...)
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(s.GroupVersionKind().GroupKind(), w.name, errs)
	}
	if s.Warnings != nil && w.sub == "" {
		for _, t := range s.Warnings(obj, old) {
			Warn(ctx, t)
		}
	}
	if err := r.Admission.Validate(ctx, ar); err != nil {
		return nil, err
	}
	if !finished(obj) && unchanged(obj, old) && (s.Outdated == nil || !s.Outdated(e.Object)) {
		if stale, err := r.Store.Stale(ctx, e.Key); err != nil {
			return nil, r.internal(err)
		} else if !stale {
			return e, nil
		}
	}
	obj, err := codec.Convert(obj, s, w.k.Storage())
	if err != nil {
		return nil, err
	}
	switch {
	case finished(obj):
		return r.remove(ctx, w.k, e, obj, w.dryRun)
	case w.dryRun:
		return &store.Entry{Key: e.Key, Rev: e.Rev, Object: asStored(w.k, obj)}, nil
	}
	obj.SetResourceVersion("")
	out, err := r.Store.Update(ctx, e.Key, e.Rev, obj, ttl(s))
	if err != nil {
		var lost *store.Conflict
		if errors.As(err, &lost) {
			return nil, lost
		}
		return nil, r.internal(err)
	}
	return out, nil
}

// remove deletes an entry whose last finalizer a write has taken away. The answer is the object as that write
// left it.
func (r *REST) remove(ctx context.Context, k *api.Kind, e *store.Entry, obj api.Object, dryRun bool) (*store.Entry, error) {
	if dryRun {
		return &store.Entry{Key: e.Key, Rev: e.Rev, Object: obj}, nil
	}
	out, err := r.delete(ctx, k, e)
	if err != nil {
		return nil, err
	}
	obj.SetResourceVersion(out.Object.GetResourceVersion())
	return &store.Entry{Key: e.Key, Rev: out.Rev, Object: obj}, nil
}
