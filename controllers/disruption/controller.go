// Package disruption counts how many pods of each PodDisruptionBudget may be evicted.
//
// Invariant: disruptionsAllowed is never more than the healthy pods beyond the wanted minimum, with evictions that
// were granted but not yet seen counted as done. Only controllers/ may import disruption.
package disruption

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/apps/poddisruptionbudget"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// evictionTimeout is how long a granted eviction is taken for done before its pod is seen to go.
const evictionTimeout = 2 * time.Minute

type controller struct {
	reconcile.Deps
	budgets     *client.Cache[*policyv1.PodDisruptionBudget]
	pods        *client.Cache[*corev1.Pod]
	sets        *client.Cache[*appsv1.ReplicaSet]
	deployments *client.Cache[*appsv1.Deployment]
	stateful    *client.Cache[*appsv1.StatefulSet]
	controllers *client.Cache[*corev1.ReplicationController]
}

// New is the disruption controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	c := &controller{Deps: d, budgets: client.CacheOf[*policyv1.PodDisruptionBudget](cs), pods: client.CacheOf[*corev1.Pod](cs),
		sets: client.CacheOf[*appsv1.ReplicaSet](cs), deployments: client.CacheOf[*appsv1.Deployment](cs),
		stateful: client.CacheOf[*appsv1.StatefulSet](cs), controllers: client.CacheOf[*corev1.ReplicationController](cs)}
	return reconcile.Controller{
		Name: "disruption-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*policyv1.PodDisruptionBudget](cs),
			reconcile.Map(cs, c.podChanged),
			scaled[*appsv1.Deployment](cs, c), scaled[*appsv1.StatefulSet](cs, c), scaled[*appsv1.ReplicaSet](cs, c), scaled[*corev1.ReplicationController](cs, c),
		},
		Writes:    []string{"policy/poddisruptionbudgets/status"},
		Reconcile: c.reconcile,
	}
}

func selector(b *policyv1.PodDisruptionBudget) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return labels.Nothing()
	}
	return s // an empty selector selects the whole namespace
}

func (c *controller) podChanged(old, new *corev1.Pod) (keys []reconcile.Key) {
	p := new
	if p == nil {
		p = old
	}
	for _, b := range c.budgets.List(p.Namespace) {
		sel := selector(b)
		if new != nil && sel.Matches(labels.Set(new.Labels)) || old != nil && sel.Matches(labels.Set(old.Labels)) {
			keys = append(keys, plan.KeyOf(b))
		}
	}
	return keys
}

// scaled makes the budgets of a namespace due when a workload's wanted size changes there.
func scaled[T api.Object](cs *client.Caches, c *controller) reconcile.Input {
	return reconcile.Map(cs, func(old, new T) (keys []reconcile.Key) {
		var zero T
		if any(old) == any(zero) || any(new) == any(zero) || old.GetGeneration() == new.GetGeneration() {
			return nil
		}
		for _, b := range c.budgets.List(new.GetNamespace()) {
			keys = append(keys, plan.KeyOf(b))
		}
		return keys
	})
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	b, ok := c.budgets.Get(key.Namespace, key.Name)
	if !ok {
		return reconcile.Result{}, nil
	}
	sel := selector(b)
	var selected []*corev1.Pod
	for _, p := range c.pods.List(key.Namespace) {
		if sel.Matches(labels.Set(p.Labels)) {
			selected = append(selected, p)
		}
	}
	actions, again := Plan(b, selected, c.scale, c.Clock.Now())
	return reconcile.Result{After: again}, plan.Apply(ctx, c.Deps, actions...)
}

// scale finds the workload that a pod belongs to in the end, and its wanted size.
func (c *controller) scale(p *corev1.Pod) (owner types.UID, replicas int32, ok bool) {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil {
		return "", 0, false
	}
	switch ref.Kind {
	case "ReplicaSet":
		rs, ok := c.sets.Get(p.Namespace, ref.Name)
		if !ok || rs.UID != ref.UID {
			return "", 0, false
		}
		if up := metav1.GetControllerOfNoCopy(rs); up != nil && up.Kind == "Deployment" {
			if d, ok := c.deployments.Get(p.Namespace, up.Name); ok && d.UID == up.UID {
				return d.UID, ptr.Deref(d.Spec.Replicas, 1), true
			}
		}
		return rs.UID, ptr.Deref(rs.Spec.Replicas, 1), true
	case "StatefulSet":
		if s, ok := c.stateful.Get(p.Namespace, ref.Name); ok && s.UID == ref.UID {
			return s.UID, ptr.Deref(s.Spec.Replicas, 1), true
		}
	case "ReplicationController":
		if rc, ok := c.controllers.Get(p.Namespace, ref.Name); ok && rc.UID == ref.UID {
			return rc.UID, ptr.Deref(rc.Spec.Replicas, 1), true
		}
	}
	return "", 0, false
}

// Plan updates the budget's status. Scale finds a pod's workload.
func Plan(b *policyv1.PodDisruptionBudget, selected []*corev1.Pod, scale func(*corev1.Pod) (types.UID, int32, bool), now time.Time) (actions []plan.Action, again time.Duration) {
	next := b.DeepCopy()
	expected, desired, err := wanted(b, selected, scale)
	if err != nil {
		next.Status.DisruptionsAllowed, next.Status.ObservedGeneration = 0, b.Generation
		setCondition(next, metav1.ConditionFalse, policyv1.SyncFailedReason, err.Error(), now)
		actions = append(actions, plan.Warning(b, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err))
		return append(actions, statusIfChanged(b, next)...), 0
	}
	next.Status.DisruptedPods, again = disrupted(b, selected, now)
	healthy := int32(0)
	for _, p := range selected {
		if _, going := next.Status.DisruptedPods[p.Name]; !going && p.DeletionTimestamp == nil && pods.Ready(p) {
			healthy++
		}
	}
	s := &next.Status
	s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.ObservedGeneration = expected, desired, healthy, b.Generation
	s.DisruptionsAllowed = max(healthy-desired, 0)
	if expected <= 0 {
		s.DisruptionsAllowed = 0
	}
	if s.DisruptionsAllowed > 0 {
		setCondition(next, metav1.ConditionTrue, policyv1.SufficientPodsReason, "", now)
	} else {
		setCondition(next, metav1.ConditionFalse, policyv1.InsufficientPodsReason, "", now)
	}
	return statusIfChanged(b, next), again
}

func statusIfChanged(old, next *policyv1.PodDisruptionBudget) []plan.Action {
	if equality.Semantic.DeepEqual(old.Status, next.Status) && poddisruptionbudget.ConditionsAreUpToDate(next) {
		return nil
	}
	return []plan.Action{plan.Status(next)}
}

func setCondition(b *policyv1.PodDisruptionBudget, status metav1.ConditionStatus, reason, message string, now time.Time) {
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: status, Reason: reason, Message: message,
		ObservedGeneration: b.Status.ObservedGeneration, LastTransitionTime: metav1.NewTime(now)}
	for i := range b.Status.Conditions {
		if old := &b.Status.Conditions[i]; old.Type == c.Type {
			if old.Status == status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			*old = c
			return
		}
	}
	b.Status.Conditions = append(b.Status.Conditions, c)
}

// wanted is how many pods there should be and how many of them must be healthy.
func wanted(b *policyv1.PodDisruptionBudget, selected []*corev1.Pod, scale func(*corev1.Pod) (types.UID, int32, bool)) (expected, desired int32, err error) {
	if m := b.Spec.MinAvailable; m != nil && m.Type == intstr.Int {
		return int32(len(selected)), m.IntVal, nil
	}
	if b.Spec.MinAvailable == nil && b.Spec.MaxUnavailable == nil {
		return 0, 0, nil
	}
	seen := map[types.UID]bool{}
	for _, p := range selected {
		owner, n, ok := scale(p)
		if !ok {
			if metav1.GetControllerOfNoCopy(p) == nil {
				return 0, 0, fmt.Errorf("found no controller ref for pod %q", p.Name)
			}
			return 0, 0, fmt.Errorf("found no controllers for pod %q", p.Name)
		}
		if !seen[owner] {
			seen[owner] = true
			expected += n
		}
	}
	if m := b.Spec.MinAvailable; m != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(m, int(expected), true)
		return expected, int32(n), err
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, int(expected), true)
	return expected, max(expected-int32(n), 0), err
}

// disrupted keeps the granted evictions whose pod has not been seen to go, for a while.
func disrupted(b *policyv1.PodDisruptionBudget, selected []*corev1.Pod, now time.Time) (out map[string]metav1.Time, again time.Duration) {
	for _, p := range selected {
		at, ok := b.Status.DisruptedPods[p.Name]
		if !ok || p.DeletionTimestamp != nil {
			continue
		}
		left := at.Add(evictionTimeout).Sub(now)
		if left <= 0 {
			continue
		}
		if out == nil {
			out = map[string]metav1.Time{}
		}
		out[p.Name] = at
		if again == 0 || left < again {
			again = left
		}
	}
	return out, again
}
