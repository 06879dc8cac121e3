package namespace

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/served"
	"github.com/skiff-sh/skiff/reconcile"
)

// retry is how soon a namespace that is not empty yet is looked at again, where its pods do not say.
const retry = 500 * time.Millisecond

type controller struct {
	reconcile.Deps
	namespaces *client.Cache[*corev1.Namespace]
	kinds      *served.Kinds
}

// New is the namespace controller over all kinds that are served.
func New(d reconcile.Deps, kinds *served.Kinds) reconcile.Controller {
	c := &controller{Deps: d, namespaces: client.CacheOf[*corev1.Namespace](d.Caches), kinds: kinds}
	return reconcile.Controller{
		Name: "namespace-controller", Workers: 10,
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.Namespace](d.Caches),
			// The last pod's end is what most namespaces wait for.
			reconcile.Map(d.Caches, func(old, new *corev1.Pod) []reconcile.Key {
				if new != nil {
					return nil
				}
				if ns, ok := c.namespaces.Get("", old.Namespace); !ok || ns.DeletionTimestamp == nil {
					return nil
				}
				return []reconcile.Key{{Name: old.Namespace}}
			}),
		},
		Writes:    []string{"*/*", "namespaces/status", "namespaces/finalize"},
		Reconcile: c.reconcile,
	}
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	ns, ok := c.namespaces.Get("", key.Name)
	if !ok || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return reconcile.Result{}, nil
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		next := ns.DeepCopy()
		next.Status.Phase = corev1.NamespaceTerminating
		_, err := client.UpdateStatus(ctx, c.Client, next)
		return reconcile.Result{}, err
	}
	content := c.empty(ctx, ns.Name)
	if err := ctx.Err(); err != nil {
		return reconcile.Result{}, err
	}
	next := ns.DeepCopy()
	next.Status.Conditions = Conditions(ns.Status.Conditions, content, c.Clock.Now())
	if !content.empty() {
		if equality.Semantic.DeepEqual(ns.Status, next.Status) {
			return reconcile.Result{After: min(max(content.Wait/2, retry), 15*time.Second)}, nil
		}
		_, err := client.UpdateStatus(ctx, c.Client, next)
		return reconcile.Result{After: retry}, err
	}
	next.Spec.Finalizers = slices.DeleteFunc(next.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := c.Client.Update(ctx, client.KindOf[*corev1.Namespace](), next, "finalize", metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{}, err
}

// empty deletes all content and tells what is left: pods first, and what else there is once they are gone.
func (c *controller) empty(ctx context.Context, namespace string) *Content {
	kinds, failed := c.kinds.Discover(ctx)
	content := &Content{Remaining: map[string]int{}, Finalizers: map[string]int{}, Undiscovered: failed}
	pods, others := Kinds(kinds)
	if pods != nil {
		c.emptyKind(ctx, pods, namespace, content)
		if len(content.Remaining)+len(content.Failures) > 0 {
			return content
		}
	}
	for _, k := range others {
		c.emptyKind(ctx, k, namespace, content)
	}
	return content
}

// emptyKind deletes one kind's objects. It looks before it deletes: most kinds have none in most namespaces.
func (c *controller) emptyKind(ctx context.Context, k *api.Kind, namespace string, content *Content) {
	list := func() []api.Object {
		objects, _, err := c.Client.List(ctx, k, namespace, metav1.ListOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsMethodNotSupported(err) {
			content.Failures = append(content.Failures, err.Error())
		}
		return objects
	}
	objects := list()
	if len(objects) == 0 {
		return
	}
	if slices.ContainsFunc(objects, func(o api.Object) bool { return o.GetDeletionTimestamp() == nil }) {
		if err := c.deleteAll(ctx, k, namespace, objects); err != nil && !apierrors.IsNotFound(err) {
			content.Failures = append(content.Failures, err.Error())
		}
		objects = list()
	}
	content.add(k, namespace, objects)
}

func (c *controller) deleteAll(ctx context.Context, k *api.Kind, namespace string, objects []api.Object) error {
	o := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	if k.Serves("deletecollection") {
		return c.Client.DeleteCollection(ctx, k, namespace, o, metav1.ListOptions{})
	}
	for _, obj := range objects {
		if err := c.Client.Delete(ctx, k, namespace, obj.GetName(), o); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
