package rest

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

func invalidOptions(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: "meta.k8s.io", Kind: kind}, "", errs)
}

// ValidateOptions judges the options of a write, given as a pointer; others pass.
func ValidateOptions(options any) error {
	switch o := options.(type) {
	case *metav1.CreateOptions:
		if errs := metavalidation.ValidateCreateOptions(o); len(errs) > 0 {
			return invalidOptions("CreateOptions", errs)
		}
	case *metav1.UpdateOptions:
		if errs := metavalidation.ValidateUpdateOptions(o); len(errs) > 0 {
			return invalidOptions("UpdateOptions", errs)
		}
	}
	return nil
}

// Create stores a new object. obj is of the row's version, decoded and defaulted, and becomes REST's own.
func (r *REST) Create(ctx context.Context, k *api.Kind, namespace string, obj api.Object, o metav1.CreateOptions) (*store.Entry, error) {
	if err := ValidateOptions(&o); err != nil {
		return nil, err
	}
	if err := matchNamespace(k, namespace, obj); err != nil {
		return nil, err
	}
	// Upstream's storage says so, which a dry run never reaches.
	if obj.GetResourceVersion() != "" && obj.GetResourceVersion() != "0" && len(o.DryRun) == 0 {
		return nil, errors.New("resourceVersion should not be set on objects to be created")
	}
	return r.create(ctx, creation{k: k, obj: obj, dryRun: len(o.DryRun) > 0, options: &o,
		manager: managerName(o.FieldManager, request.From(ctx))})
}

// matchNamespace gives the object the namespace of its request, or says that they differ.
func matchNamespace(k *api.Kind, namespace string, obj api.Object) error {
	if !k.Namespaced {
		if namespace == "" && obj.GetNamespace() != "" {
			return apierrors.NewBadRequest("namespace specified on a cluster-scoped object")
		}
		return nil
	}
	if obj.GetNamespace() == "" {
		obj.SetNamespace(namespace)
	}
	if obj.GetNamespace() != namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if namespace == "" {
		return apierrors.NewBadRequest("an empty namespace may not be set during creation")
	}
	return nil
}

type creation struct {
	k       *api.Kind
	obj     api.Object // of k's version
	dryRun  bool
	manager string
	managed bool // managedFields are done (apply)
	options runtime.Object
}

func (r *REST) create(ctx context.Context, c creation) (*store.Entry, error) {
	k, obj := c.k, c.obj
	obj.SetResourceVersion("")
	obj.SetSelfLink("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetGeneration(0)
	if !c.managed {
		uniqueOwners(ctx, obj, "")
		empty := k.New()
		empty.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
		var err error
		if obj, err = throughHub(k, obj); err != nil {
			return nil, err
		}
		if obj, err = r.manage(k, "", empty, obj, c.manager); err != nil {
			return nil, err
		}
	}
	obj.SetCreationTimestamp(metav1.Time{Time: r.Now().Truncate(1e9)})
	obj.SetUID(uuid.NewUUID())

	obj, err := codec.Convert(obj, k, judged(k))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	tries := 1
	base := obj.GetGenerateName()
	generate := obj.GetName() == "" && base != ""
	if generate {
		tries = 8
	}
	for try := 1; ; try++ {
		attempt := obj
		if generate {
			if try < tries {
				attempt = obj.DeepCopyObject().(api.Object)
			}
			attempt.SetName(base[:min(len(base), 58)] + utilrand.String(5))
		}
		e, err := r.createOnce(ctx, k, attempt, c)
		if generate && apierrors.IsAlreadyExists(err) {
			if try < tries {
				continue
			}
			return nil, apierrors.NewGenerateNameConflict(k.GroupResource(), attempt.GetName(), 1)
		}
		return e, err
	}
}

// createOnce takes an object of the judged version through admission and validation into the store.
func (r *REST) createOnce(ctx context.Context, k *api.Kind, obj api.Object, c creation) (*store.Entry, error) {
	s := judged(k)
	if k.Closed != "" {
		return nil, apierrors.NewForbidden(k.GroupResource(), obj.GetName(), errors.New(k.Closed))
	}
	ar := &admission.Request{Operation: admission.Create, Kind: s, Requested: k, Namespace: obj.GetNamespace(), Name: obj.GetName(),
		Object: obj, Options: c.options, User: request.From(ctx).User, DryRun: c.dryRun,
		Warn: func(t string) { Warn(ctx, t) }}
	if err := r.admit(ctx, ar); err != nil {
		return nil, err
	}
	obj = ar.Object.(api.Object)
	if s.PrepareCreate != nil {
		s.PrepareCreate(ctx, obj)
	}
	prepareCreate(s, obj, request.From(ctx).User)
	if s.HasGeneration {
		obj.SetGeneration(1)
	}
	done := func(bool) {}
	if claim := r.Claims[resourceName(s)]; claim != nil {
		d, err := claim(ctx, obj, nil, c.dryRun)
		if err != nil {
			return nil, err
		}
		done = d
	}
	e, err := r.createChecked(ctx, k, obj, ar)
	done(err == nil && !c.dryRun)
	return e, err
}

func (r *REST) createChecked(ctx context.Context, k *api.Kind, obj api.Object, ar *admission.Request) (*store.Entry, error) {
	s := judged(k)
	errs := validateMeta(s, obj)
	if judge := rules(k); judge.Validate != nil {
		errs = append(errs, judge.Validate(obj)...)
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(s.GroupVersionKind().GroupKind(), obj.GetName(), errs)
	}
	if s.Warnings != nil {
		for _, t := range s.Warnings(obj, nil) {
			Warn(ctx, t)
		}
	}
	if err := r.Admission.Validate(ctx, ar); err != nil {
		return nil, err
	}
	obj, err := codec.Convert(obj, s, k.Storage())
	if err != nil {
		return nil, err
	}
	key := k.Key(obj.GetNamespace(), obj.GetName())
	if ar.DryRun {
		if _, err := r.Get(ctx, k, obj.GetNamespace(), obj.GetName(), metav1.GetOptions{}); err == nil {
			return nil, apierrors.NewAlreadyExists(k.GroupResource(), obj.GetName())
		}
		return &store.Entry{Key: key, Object: asStored(k, obj)}, nil
	}
	e, err := r.Store.Create(ctx, key, obj, ttl(s))
	if errors.Is(err, store.ErrExists) {
		return nil, apierrors.NewAlreadyExists(k.GroupResource(), obj.GetName())
	}
	if err != nil {
		return nil, r.internal(err)
	}
	return e, nil
}
