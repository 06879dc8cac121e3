package rest

import (
	"context"
	"fmt"
	"math"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

var scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// ScaleOf is an object's scale.
func ScaleOf(sub *api.Subresource, obj api.Object) *autoscalingv1.Scale {
	spec, status, selector := sub.Scale.Get(obj)
	return &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v1", Kind: "Scale"},
		ObjectMeta: metav1.ObjectMeta{Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp()},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
}

// UpdateScale writes an object's replicas. change makes the new scale from the old one.
func (r *REST) updateScale(ctx context.Context, k *api.Kind, sub *api.Subresource, w write,
	change func(old *autoscalingv1.Scale) (*autoscalingv1.Scale, bool, error)) (*autoscalingv1.Scale, error) {
	w.sub, w.managed = sub.Name, true
	w.change = func(old api.Object) (api.Object, error) {
		paths := r.replicaPaths(k, sub.Name)
		handler := managedfields.NewScaleHandler(old.GetManagedFields(), k.GroupVersion(), paths)
		before, missing := scaleOf(sub, old)
		if missing != nil {
			before.Spec.Replicas = math.MinInt32 // which a client cannot have meant
		}
		entries, err := handler.ToSubresource()
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		before.ManagedFields = entries
		after, managed, err := change(before)
		if err != nil {
			return nil, err
		}
		if missing != nil && after.Spec.Replicas == math.MinInt32 {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the spec replicas field %q cannot be empty", "."+strings.Join(sub.Scale.Path, ".")))
		}
		if after.Spec.Replicas < 0 {
			return nil, apierrors.NewInvalid(scaleKind.GroupKind(), w.name, field.ErrorList{
				field.Invalid(field.NewPath("spec", "replicas"), after.Spec.Replicas, "must be greater than or equal to 0")})
		}
		if !managed {
			m, err := r.manager(k, scaleKind, sub.Name)
			if err != nil {
				return nil, err
			}
			after = m.UpdateNoErrors(before, after, w.manager).(*autoscalingv1.Scale)
		}
		obj := old.DeepCopyObject().(api.Object)
		sub.Scale.Set(obj, after.Spec.Replicas)
		obj.SetResourceVersion(after.ResourceVersion)
		if after.UID != "" {
			obj.SetUID(after.UID)
		}
		if entries, err = handler.ToParent(after.ManagedFields); err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		obj.SetManagedFields(entries)
		return obj, nil
	}
	e, _, err := r.write(ctx, w)
	if err != nil {
		return nil, err
	}
	return r.scaleOfEntry(k, sub, e)
}

func (r *REST) scaleOfEntry(k *api.Kind, sub *api.Subresource, e *store.Entry) (*autoscalingv1.Scale, error) {
	obj, err := As(e, k)
	if err != nil {
		return nil, err
	}
	scale, err := scaleOf(sub, obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return scale, nil
}

// scaleOf is ScaleOf, and why the object has none.
func scaleOf(sub *api.Subresource, obj api.Object) (*autoscalingv1.Scale, error) {
	var err error
	if sub.Scale.Check != nil {
		err = sub.Scale.Check(obj)
	}
	return ScaleOf(sub, obj), err
}

// replicaPaths is where each version of a kind keeps its wanted replicas.
func (r *REST) replicaPaths(k *api.Kind, name string) managedfields.ResourcePathMappings {
	out := managedfields.ResourcePathMappings{}
	for _, v := range r.siblings(k) {
		path := fieldpath.MakePathOrDie("spec", "replicas")
		if s, ok := v.Subresource(name); ok && s.Scale != nil && s.Scale.Path != nil {
			path = nil
			for _, step := range s.Scale.Path {
				path = append(path, fieldpath.PathElement{FieldName: &step})
			}
		} else if k.CRD {
			path = nil
		}
		out[v.GroupVersion().String()] = path
	}
	return out
}

// GetScale reads an object's scale.
func (r *REST) GetScale(ctx context.Context, k *api.Kind, sub *api.Subresource, namespace, name string, o metav1.GetOptions) (*autoscalingv1.Scale, error) {
	e, err := r.Get(ctx, k, namespace, name, o)
	if err != nil {
		return nil, err
	}
	return r.scaleOfEntry(k, sub, e)
}

// UpdateScale replaces an object's scale.
func (r *REST) UpdateScale(ctx context.Context, k *api.Kind, sub *api.Subresource, namespace, name string, scale *autoscalingv1.Scale, o metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	if errs := metavalidation.ValidateUpdateOptions(&o); len(errs) > 0 {
		return nil, invalidOptions("UpdateOptions", errs)
	}
	if scale.Name != name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", scale.Name, name))
	}
	w := write{k: k, namespace: namespace, name: name, dryRun: len(o.DryRun) > 0, options: &o, put: true,
		manager: managerName(o.FieldManager, request.From(ctx))}
	return r.updateScale(ctx, k, sub, w, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, bool, error) {
		return scale.DeepCopy(), false, nil
	})
}

// PatchScale changes an object's scale.
func (r *REST) PatchScale(ctx context.Context, k *api.Kind, sub *api.Subresource, namespace, name string, t types.PatchType, data []byte, o metav1.PatchOptions) (*autoscalingv1.Scale, error) {
	if errs := metavalidation.ValidatePatchOptions(&o, t); len(errs) > 0 {
		return nil, invalidOptions("PatchOptions", errs)
	}
	w := write{k: k, namespace: namespace, name: name, dryRun: len(o.DryRun) > 0, options: &o,
		manager: managerName(o.FieldManager, request.From(ctx))}
	if t == types.ApplyPatchType {
		config, err := applied(ctx, data, o.FieldValidation)
		if err != nil {
			return nil, err
		}
		m, err := r.manager(k, scaleKind, sub.Name)
		if err != nil {
			return nil, err
		}
		return r.updateScale(ctx, k, sub, w, func(old *autoscalingv1.Scale) (*autoscalingv1.Scale, bool, error) {
			out, err := m.Apply(old, config.DeepCopy(), o.FieldManager, o.Force != nil && *o.Force)
			if err != nil {
				return nil, false, err
			}
			return out.(*autoscalingv1.Scale), true, nil
		})
	}
	p, err := newPatcher(nil, t, data, o.FieldValidation)
	if err != nil {
		return nil, err
	}
	return r.updateScale(ctx, k, sub, w, func(old *autoscalingv1.Scale) (*autoscalingv1.Scale, bool, error) {
		out := &autoscalingv1.Scale{}
		if err := p.into(ctx, old, out, scaleKind); err != nil {
			return nil, false, err
		}
		return out, false, sameName(k.Namespaced, namespace, name, out)
	})
}
