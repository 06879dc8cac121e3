package rest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// This file has the actions of pods that change pods: binding to a node, and eviction.

var (
	podKind    = corev1.SchemeGroupVersion.WithKind("Pod")
	budgetKind = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")
)

// change rewrites a stored object until nobody interferes. f gets a private copy.
func (r *REST) change(ctx context.Context, k *api.Kind, namespace, name string, dryRun bool, f func(api.Object) error) error {
	return r.rewrite(ctx, k, namespace, name, dryRun, func(o api.Object) (api.Object, error) {
		o = o.DeepCopyObject().(api.Object)
		return o, f(o)
	})
}

// rewrite is change for an f that makes the copy itself: of what it changes, and of the object's own fields.
func (r *REST) rewrite(ctx context.Context, k *api.Kind, namespace, name string, dryRun bool, f func(api.Object) (api.Object, error)) error {
	e, err := r.current(ctx, k, namespace, name)
	var lost *store.Conflict
	for range writeAttempts {
		if err != nil {
			return err
		}
		var obj api.Object
		if obj, err = f(e.Object); err != nil || dryRun {
			return err
		}
		obj.SetResourceVersion("")
		_, err = r.Store.Update(ctx, e.Key, e.Rev, obj, ttl(k))
		if !errors.As(err, &lost) {
			return r.wrap(err)
		}
		if e, err = lost.Current, nil; e == nil {
			return apierrors.NewNotFound(k.GroupResource(), name)
		}
	}
	return conflict(k, name)
}

func (r *REST) kind(gvk schema.GroupVersionKind) *api.Kind {
	k, ok := r.Kinds.Kind(gvk)
	if !ok {
		panic("no row for " + gvk.String())
	}
	return k
}

func success(code int32) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: code}
}

// bindPod is pods/binding and bindings: it gives a pod its node.
func (r *REST) bindPod(ctx context.Context, _ api.Object, body runtime.Object, dryRun bool) (runtime.Object, error) {
	b := body.(*corev1.Binding)
	switch {
	case b.Target.Kind != "" && b.Target.Kind != "Node":
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid target kind %q: must be Node", b.Target.Kind))
	case b.Target.Name == "":
		return nil, apierrors.NewBadRequest("target.name is required")
	}
	refused := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, b.Name, fmt.Errorf(format, args...))
	}
	err := r.rewrite(ctx, r.kind(podKind), b.Namespace, b.Name, dryRun, func(o api.Object) (api.Object, error) {
		p := o.(*corev1.Pod)
		switch {
		case b.UID != "" && b.UID != p.UID:
			return nil, refused("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, p.UID)
		case p.DeletionTimestamp != nil:
			return nil, refused("pod %s is being deleted, cannot be assigned to a host", p.Name)
		case p.Spec.NodeName != "":
			return nil, refused("pod %v is already assigned to node %q", p.Name, p.Spec.NodeName)
		case len(p.Spec.SchedulingGates) != 0:
			return nil, refused("pod %v has non-empty .spec.schedulingGates", p.Name)
		}
		bound := *p // all else is shared
		p = &bound
		p.Spec.NodeName = b.Target.Name
		p.Status.NominatedNodeName = "" // it was a plan, and is carried out
		p.Annotations, p.Labels = with(p.Annotations, b.Annotations), with(p.Labels, b.Labels)
		p.Status.Conditions = slices.Clone(p.Status.Conditions)
		setPodCondition(p, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(r.Now().Truncate(1e9))})
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	return success(201), nil
}

// with is a map with more in it. A map that stays as it is is not copied.
func with(m, more map[string]string) map[string]string {
	if len(more) == 0 {
		return m
	}
	out := make(map[string]string, len(m)+len(more))
	maps.Copy(out, m)
	maps.Copy(out, more)
	return out
}

func setPodCondition(p *corev1.Pod, c corev1.PodCondition) {
	i := slices.IndexFunc(p.Status.Conditions, func(x corev1.PodCondition) bool { return x.Type == c.Type })
	if i < 0 {
		p.Status.Conditions = append(p.Status.Conditions, c)
		return
	}
	if p.Status.Conditions[i].Status == c.Status {
		c.LastTransitionTime = p.Status.Conditions[i].LastTransitionTime
	}
	p.Status.Conditions[i] = c
}

// evict is pods/eviction: a delete that respects the pod's disruption budget.
func (r *REST) evict(ctx context.Context, parent api.Object, body runtime.Object, dryRun bool) (runtime.Object, error) {
	ev, pod := body.(*policyv1.Eviction), parent.(*corev1.Pod)
	if ev.Name != pod.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	o := metav1.DeleteOptions{}
	if ev.DeleteOptions != nil {
		o = *ev.DeleteOptions
	}
	if dryRun || len(o.DryRun) > 0 {
		dryRun, o.DryRun = true, []string{metav1.DryRunAll}
	}
	if !unbudgeted(pod) {
		if err := r.spendBudget(ctx, pod, dryRun); err != nil {
			return nil, err
		}
		if err := r.markEvicted(ctx, pod, dryRun); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	if _, _, err := r.Delete(ctx, r.kind(podKind), pod.Namespace, pod.Name, o); err != nil {
		return nil, err
	}
	return success(201), nil
}

// unbudgeted pods may always go: they are on their way out, or never ran.
func unbudgeted(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed ||
		p.Status.Phase == corev1.PodPending
}

func (r *REST) markEvicted(ctx context.Context, pod *corev1.Pod, dryRun bool) error {
	return r.change(ctx, r.kind(podKind), pod.Namespace, pod.Name, dryRun, func(o api.Object) error {
		setPodCondition(o.(*corev1.Pod), corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting", LastTransitionTime: metav1.NewTime(r.Now().Truncate(1e9))})
		return nil
	})
}

// spendBudget takes one disruption from the pod's budget, if it has one.
func (r *REST) spendBudget(ctx context.Context, pod *corev1.Pod, dryRun bool) error {
	k := r.kind(budgetKind)
	l, err := r.List(ctx, k, pod.Namespace, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var mine []*policyv1.PodDisruptionBudget
	for _, e := range l.Entries {
		b := e.Object.(*policyv1.PodDisruptionBudget)
		sel, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) || err == nil && b.Spec.Selector != nil && sel.Empty() {
			mine = append(mine, b)
		}
	}
	switch len(mine) {
	case 0:
		return nil
	case 1:
	default:
		//lint:ignore ST1005 upstream's text
		return apierrors.NewInternalError(errors.New("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."))
	}
	ready := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	return r.change(ctx, k, pod.Namespace, mine[0].Name, dryRun, func(o api.Object) error {
		return spend(o.(*policyv1.PodDisruptionBudget), pod.Name, ready, metav1.NewTime(r.Now().Truncate(1e9)))
	})
}

// spend is the pure part: it lowers the budget's status or says why not.
func spend(b *policyv1.PodDisruptionBudget, pod string, ready bool, now metav1.Time) error {
	if !ready {
		always := b.Spec.UnhealthyPodEvictionPolicy != nil && *b.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
		if always || b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0 {
			return nil
		}
	}
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return tooManyEvictions(10, fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name))
	case b.Status.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name, errors.New("pdb disruptions allowed is negative"))
	case len(b.Status.DisruptedPods) > 2000:
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case b.Status.DisruptionsAllowed == 0:
		return tooManyEvictions(0, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy))
	}
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[pod] = now
	return nil
}

func tooManyEvictions(retry int, why string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retry)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: why})
	return err
}
