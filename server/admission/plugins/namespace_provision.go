package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// namespaceProvision makes the namespace that an object is created in. It is off by default.
type namespaceProvision struct {
	st     store.Store
	create func(ctx context.Context, namespace string) error
}

func (*namespaceProvision) Name() string { return "NamespaceAutoProvision" }
func (*namespaceProvision) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	return op == admission.Create && k.Namespaced
}

func (p *namespaceProvision) Admit(ctx context.Context, r *admission.Request) error {
	if r.DryRun || r.Namespace == "" {
		return nil
	}
	_, ok, err := read.Fresh[*corev1.Namespace](ctx, p.st, "", r.Namespace)
	if ok || err != nil {
		return err
	}
	if err := p.create(ctx, r.Namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return forbidden(r, "%w", err)
	}
	return nil
}
