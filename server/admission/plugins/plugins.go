// Package plugins is the admission plugins that upstream's API server runs by default, by its names, in its order, with
// its messages. One file a plugin.
//
// Invariant: a plugin reads the store's cache and changes only the request's object. The one exception is
// ResourceQuota, which books what it admits in the quota's status.
//
// Only server imports plugins.
package plugins

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/store"
)

// RuleLister knows who has which RBAC rules; *authz.Authorizer does.
type RuleLister interface {
	PolicyRules(u user.Info, namespace string) ([]rbacv1.PolicyRule, error)
	RoleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error)
}

// Deps is what the plugins need.
type Deps struct {
	Store      store.Store
	Kinds      *api.Table
	Authorizer authorizer.Authorizer
	// Rules checks that nobody grants more than they have. Default: the Authorizer, if it can; else RBAC objects are
	// not checked.
	Rules RuleLister
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Log hears of webhooks that failed and are ignored; nil: nobody does.
	Log *slog.Logger
	// Metrics is where webhooks and policies are counted; nil: nowhere.
	Metrics prometheus.Registerer
	// Types knows the lists and maps of custom resources, for mutating policies; nil takes them to be atomic.
	Types func(k *api.Kind) managedfields.TypeConverter
	// Settings is what the plugins are told, by their names; nil: nothing.
	Settings Settings
	// TolerationSeconds is how long pods stay on nodes with trouble, by the taint; 300 s where it does not say.
	TolerationSeconds map[string]int64
	// CreateNamespace is for NamespaceAutoProvision.
	CreateNamespace func(ctx context.Context, name string) error
	// Enable and Disable are plugins that are on or off other than by default, by upstream's names.
	Enable, Disable []string
}

// is reports whether the row is the given resource, in whatever version.
func is(k *api.Kind, group, plural string) bool { return k.Group == group && k.Plural == plural }

func isPod(k *api.Kind) bool { return is(k, "", "pods") }

func in(op admission.Operation, ops ...admission.Operation) bool { return slices.Contains(ops, op) }

// forbidden is a plugin's refusal: `pods "web" is forbidden: ...`.
func forbidden(r *admission.Request, format string, args ...any) *apierrors.StatusError {
	return apierrors.NewForbidden(r.Kind.GroupResource(), nameOf(r), fmt.Errorf(format, args...))
}

// nameOf is the object's name, or what its name will start with.
func nameOf(r *admission.Request) string {
	if r.Name != "" {
		return r.Name
	}
	if m, ok := r.Object.(metav1.Object); ok {
		if m.GetName() != "" {
			return m.GetName()
		}
		if m.GetGenerateName() != "" {
			return m.GetGenerateName()
		}
	}
	return "Unknown"
}

func notFound(resource, name string) *apierrors.StatusError {
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

func warn(r *admission.Request, text string) {
	if r.Warn != nil {
		r.Warn(text)
	}
}

// allowed asks the authorizer whether the request's user may do one more thing.
func allowed(ctx context.Context, a authorizer.Authorizer, r *admission.Request, at authorizer.AttributesRecord) bool {
	if a == nil {
		return false
	}
	at.User, at.ResourceRequest = r.User, true
	d, _, err := a.Authorize(ctx, at)
	return err == nil && d == authorizer.DecisionAllow
}

func pod(r *admission.Request) *corev1.Pod {
	p, _ := r.Object.(*corev1.Pod)
	return p
}
