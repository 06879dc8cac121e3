package plugins

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// runtimeClass puts what a pod's runtime class costs and where it may run into the pod.
type runtimeClass struct{ st store.Store }

func (*runtimeClass) Name() string { return "RuntimeClass" }
func (*runtimeClass) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && isPod(k) && sub == ""
}

func (p *runtimeClass) class(ctx context.Context, r *admission.Request, o *corev1.Pod) (*nodev1.RuntimeClass, error) {
	if o.Spec.RuntimeClassName == nil {
		return nil, nil
	}
	name := *o.Spec.RuntimeClassName
	c, ok, err := read.Fresh[*nodev1.RuntimeClass](ctx, p.st, "", name)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if !ok {
		return nil, forbidden(r, "pod rejected: RuntimeClass %q not found", name)
	}
	return c, nil
}

func (p *runtimeClass) Admit(ctx context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	c, err := p.class(ctx, r, o)
	if err != nil || c == nil {
		return err
	}
	if c.Overhead != nil {
		if o.Spec.Overhead != nil && !equality.Semantic.DeepEqual(c.Overhead.PodFixed, o.Spec.Overhead) {
			return forbidden(r, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		o.Spec.Overhead = c.Overhead.PodFixed.DeepCopy()
	}
	if c.Scheduling == nil {
		return nil
	}
	for k, v := range c.Scheduling.NodeSelector {
		if have, ok := o.Spec.NodeSelector[k]; ok && have != v {
			return forbidden(r, "conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", k, v, k, have)
		}
		if o.Spec.NodeSelector == nil {
			o.Spec.NodeSelector = map[string]string{}
		}
		o.Spec.NodeSelector[k] = v
	}
	for _, t := range c.Scheduling.Tolerations {
		if !slices.ContainsFunc(o.Spec.Tolerations, func(x corev1.Toleration) bool { return equality.Semantic.DeepEqual(x, t) }) {
			o.Spec.Tolerations = append(o.Spec.Tolerations, *t.DeepCopy())
		}
	}
	return nil
}

func (p *runtimeClass) Validate(ctx context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	c, err := p.class(ctx, r, o)
	if err != nil {
		return err
	}
	switch {
	case (c == nil || c.Overhead == nil) && len(o.Spec.Overhead) > 0:
		return forbidden(r, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	case c != nil && c.Overhead != nil && !equality.Semantic.DeepEqual(c.Overhead.PodFixed, o.Spec.Overhead):
		return forbidden(r, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
	}
	return nil
}
