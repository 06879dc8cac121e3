package rest

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/request"
)

// Action runs the action of a subresource (sub) or of a kind without storage (sub and name are empty). body is
// decoded and defaulted and becomes REST's own.
func (r *REST) Action(ctx context.Context, k *api.Kind, namespace, name, sub string, body runtime.Object, o metav1.CreateOptions) (runtime.Object, error) {
	key := resourceName(k)
	if sub != "" {
		key += "/" + sub
	}
	act, ok := r.Actions[key]
	if !ok {
		return nil, methodNotAllowed(k, "create")
	}
	if m, ok := body.(metav1.Object); ok {
		if m.GetNamespace() == "" && k.Namespaced {
			m.SetNamespace(namespace)
		}
		if k.Namespaced && m.GetNamespace() != namespace {
			return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
		}
		if sub != "" && m.GetName() == "" {
			m.SetName(name)
		}
	}
	var parent api.Object
	if sub != "" {
		e, err := r.Get(ctx, k, namespace, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if parent, err = As(e, k); err != nil {
			return nil, err
		}
	}
	if question, ok := body.(api.Object); ok && sub == "" {
		empty := k.New()
		empty.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
		var err error
		if body, err = r.manage(k, "", empty, question, managerName(o.FieldManager, request.From(ctx))); err != nil {
			return nil, err
		}
	}
	dryRun := len(o.DryRun) > 0
	ar := &admission.Request{Operation: admission.Create, Kind: k, Subresource: sub, Namespace: namespace, Name: name,
		Object: body, Options: &o, User: request.From(ctx).User, DryRun: dryRun, Warn: func(t string) { Warn(ctx, t) }}
	if err := r.Admission.Admit(ctx, ar); err != nil {
		return nil, err
	}
	if err := r.Admission.Validate(ctx, ar); err != nil {
		return nil, err
	}
	return act(ctx, parent, ar.Object, dryRun)
}

// Connect asks admission about a stream to an object and returns that object.
func (r *REST) Connect(ctx context.Context, k *api.Kind, namespace, name, sub string, options runtime.Object) (api.Object, error) {
	e, err := r.Get(ctx, k, namespace, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	ar := &admission.Request{Operation: admission.Connect, Kind: k, Subresource: sub, Namespace: namespace, Name: name,
		Object: options, User: request.From(ctx).User, Warn: func(t string) { Warn(ctx, t) }}
	if err := r.Admission.Admit(ctx, ar); err != nil {
		return nil, err
	}
	if err := r.Admission.Validate(ctx, ar); err != nil {
		return nil, err
	}
	return e.Object, nil
}
