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

// namespaceExists refuses every write in a namespace that is not there. It is off by default: NamespaceLifecycle does as
// much for all but deletions.
type namespaceExists struct{ st store.Store }

func (*namespaceExists) Name() string { return "NamespaceExists" }
func (*namespaceExists) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	return k.Namespaced && in(op, admission.Create, admission.Update, admission.Delete)
}

func (p *namespaceExists) Validate(ctx context.Context, r *admission.Request) error {
	if r.Namespace == "" {
		return nil
	}
	_, ok, err := read.Fresh[*corev1.Namespace](ctx, p.st, "", r.Namespace)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if !ok {
		return notFound("namespaces", r.Namespace)
	}
	return nil
}
