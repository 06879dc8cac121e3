package authz

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// kindsFollowed is how many kinds Run follows.
const kindsFollowed = 5

// Run follows the store until ctx ends. It returns nil then, else what went wrong with the store. It is called once.
func (a *Authorizer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return follow[*rbacv1.ClusterRole](ctx, a, a.rbac.replace) })
	g.Go(func() error { return follow[*rbacv1.ClusterRoleBinding](ctx, a, a.rbac.replace) })
	g.Go(func() error { return follow[*rbacv1.Role](ctx, a, a.rbac.replace) })
	g.Go(func() error { return follow[*rbacv1.RoleBinding](ctx, a, a.rbac.replace) })
	g.Go(func() error { return follow[*corev1.Pod](ctx, a, a.nodes.replace) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// follow tells replace about every object of a kind and all that happens to them. After a gap in the watch it tells the
// difference between what it had told and what there is.
func follow[T api.Object](ctx context.Context, a *Authorizer, replace func(old, obj api.Object)) error {
	if err := a.st.WaitFor(ctx, 0); err != nil {
		return err
	}
	prefix := read.Kind[T]().Prefix("")
	known := map[string]api.Object{}
	for first := true; ; first = false {
		rev := resync(a.st.Snapshot(prefix), prefix, known, replace)
		if first && a.unread.Add(-1) == 0 {
			close(a.ready)
		}
		err := watch(ctx, a.st, prefix, rev, known, replace)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, store.ErrCompacted) {
			return fmt.Errorf("authz: watching %s: %w", prefix, err)
		}
		select { // a gap means that events come faster than they are read: let the burst pass
		case <-ctx.Done():
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func resync(snap store.Snapshot, prefix string, known map[string]api.Object, replace func(old, obj api.Object)) int64 {
	gone := make(map[string]bool, len(known))
	for k := range known {
		gone[k] = true
	}
	for e := range snap.Scan(prefix, "") {
		delete(gone, e.Key)
		if old := known[e.Key]; old != e.Object {
			replace(old, e.Object)
			known[e.Key] = e.Object
		}
	}
	for k := range gone {
		replace(known[k], nil)
		delete(known, k)
	}
	return snap.Revision()
}

func watch(ctx context.Context, st store.Store, prefix string, rev int64, known map[string]api.Object, replace func(old, obj api.Object)) error {
	if rev == 0 {
		rev = 1 // 0 would mean from now on
	}
	w, err := st.Watch(ctx, prefix, rev)
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		events, _, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			key := e.Entry.Key
			if e.Type == store.Deleted {
				replace(known[key], nil)
				delete(known, key)
				continue
			}
			replace(known[key], e.Entry.Object)
			known[key] = e.Entry.Object
		}
	}
}
