package tokens

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// FromStore looks objects up in the store's cache, and waits for etcd's current revision before it says that
// something does not exist.
func FromStore(st store.Store) Lookup { return lookup{st} }

type lookup struct{ st store.Store }

func (l lookup) ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, bool, error) {
	return read.Fresh[*corev1.ServiceAccount](ctx, l.st, namespace, name)
}
func (l lookup) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, bool, error) {
	return read.Fresh[*corev1.Pod](ctx, l.st, namespace, name)
}
func (l lookup) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, bool, error) {
	return read.Fresh[*corev1.Secret](ctx, l.st, namespace, name)
}
func (l lookup) Node(ctx context.Context, name string) (*corev1.Node, bool, error) {
	return read.Fresh[*corev1.Node](ctx, l.st, "", name)
}
