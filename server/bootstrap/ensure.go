package bootstrap

import (
	"context"
	"fmt"
	"maps"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

// Client is the part of a client that bootstrapping needs.
type Client interface {
	Get(ctx context.Context, k *api.Kind, namespace, name string, o metav1.GetOptions) (api.Object, error)
	List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) ([]api.Object, metav1.ListMeta, error)
	Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error)
	Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error)
}

// Ensure makes sure that all Objects are there: one list for each kind, and a write only for what is missing. Several
// servers may do it at the same time. The client must be one that may do everything.
func Ensure(ctx context.Context, c Client) error { return ensure(ctx, c, Objects()) }

func ensure(ctx context.Context, c Client, want []api.Object) error {
	have := map[*api.Kind]map[string]api.Object{}
	for _, o := range want {
		k, ok := builtin.Table().Of(o)
		if !ok {
			return fmt.Errorf("bootstrap: %T is no built-in kind", o)
		}
		known := have[k]
		if known == nil {
			objs, _, err := c.List(ctx, k, "", metav1.ListOptions{})
			if err != nil {
				return fmt.Errorf("bootstrap: listing %s: %w", k, err)
			}
			known = make(map[string]api.Object, len(objs))
			for _, x := range objs {
				known[x.GetNamespace()+"/"+x.GetName()] = x
			}
			have[k] = known
		}
		if err := one(ctx, c, k, o, known[o.GetNamespace()+"/"+o.GetName()]); err != nil {
			return fmt.Errorf("bootstrap: %s %s: %w", k.Kind, o.GetName(), err)
		}
	}
	return nil
}

func one(ctx context.Context, c Client, k *api.Kind, want, have api.Object) error {
	if have == nil {
		_, err := c.Create(ctx, k, want, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // another server was first
		}
		return err
	}
	changed := repaired(have, want)
	if changed == nil {
		return nil
	}
	_, err := c.Update(ctx, k, changed, "", metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil // somebody changes it right now: the next start looks again
	}
	return err
}

// repaired gives a default role or binding back what it lost. It is nil where nothing is missing, or the object is none
// that is kept up to date.
func repaired(have, want api.Object) api.Object {
	if want.GetAnnotations()[autoUpdate] != "true" || have.GetAnnotations()[autoUpdate] == "false" {
		return nil
	}
	out := have.DeepCopyObject().(api.Object)
	changed := false
	switch o := out.(type) {
	case *rbacv1.ClusterRole:
		w := want.(*rbacv1.ClusterRole)
		if w.AggregationRule == nil { // the rules of the others are their controller's
			o.Rules, changed = withRules(o.Rules, w.Rules)
		}
	case *rbacv1.Role:
		o.Rules, changed = withRules(o.Rules, want.(*rbacv1.Role).Rules)
	case *rbacv1.ClusterRoleBinding:
		o.Subjects, changed = withSubjects(o.Subjects, want.(*rbacv1.ClusterRoleBinding).Subjects)
	case *rbacv1.RoleBinding:
		o.Subjects, changed = withSubjects(o.Subjects, want.(*rbacv1.RoleBinding).Subjects)
	}
	labels, l := withValues(out.GetLabels(), want.GetLabels())
	annotations, a := withValues(out.GetAnnotations(), want.GetAnnotations())
	if !changed && !l && !a {
		return nil
	}
	out.SetLabels(labels)
	out.SetAnnotations(annotations)
	return out
}

func withRules(have, want []rbacv1.PolicyRule) ([]rbacv1.PolicyRule, bool) {
	_, missing := validation.Covers(have, want)
	return append(have, missing...), len(missing) > 0
}

func withSubjects(have, want []rbacv1.Subject) ([]rbacv1.Subject, bool) {
	n := len(have)
	for _, s := range want {
		if !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	return have, len(have) > n
}

func withValues(have, want map[string]string) (map[string]string, bool) {
	out := have
	for k, v := range want {
		if _, ok := have[k]; ok {
			continue
		}
		if len(out) == len(have) {
			if out = maps.Clone(have); out == nil {
				out = map[string]string{}
			}
		}
		out[k] = v
	}
	return out, len(out) > len(have)
}
