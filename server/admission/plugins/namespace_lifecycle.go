package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// namespaceLifecycle refuses new objects in namespaces that do not exist or are on their way out, and protects the
// namespaces that the cluster needs.
type namespaceLifecycle struct{ st store.Store }

func (*namespaceLifecycle) Name() string { return "NamespaceLifecycle" }
func (*namespaceLifecycle) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	if is(k, "", "namespaces") {
		return op == admission.Delete
	}
	return k.Namespaced && in(op, admission.Create, admission.Update) && !is(k, "authorization.k8s.io", "localsubjectaccessreviews")
}

// Admit implements admission.Mutator: the check comes before anything else is done for the object.
func (p *namespaceLifecycle) Admit(ctx context.Context, r *admission.Request) error {
	if !r.Kind.Namespaced {
		switch r.Name {
		case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
			return forbidden(r, "this namespace may not be deleted")
		}
		return nil
	}
	if r.Namespace == "" {
		return nil
	}
	ns, ok, err := read.Fresh[*corev1.Namespace](ctx, p.st, "", r.Namespace)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if !ok {
		return notFound("namespaces", r.Namespace)
	}
	if r.Operation != admission.Create || ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	refused := forbidden(r, "unable to create new content in namespace %s because it is being terminated", r.Namespace)
	refused.ErrStatus.Details.Causes = append(refused.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause,
		Message: "namespace " + r.Namespace + " is being terminated", Field: "metadata.namespace"})
	return refused
}
