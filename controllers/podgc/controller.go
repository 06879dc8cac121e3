// Package podgc removes pods that nobody looks after any more: on nodes that are gone, finished beyond a threshold, or
// deleted before they were ever scheduled.
//
// Invariant: a pod of a missing node is removed only after a live read shows that the node does not exist. Only
// controllers/ may import podgc.
package podgc

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	// Threshold is how many finished pods the cluster keeps.
	Threshold = 12500
	period    = 20 * time.Second
	// quarantine is how long a node must be missing before its pods go.
	quarantine = 40 * time.Second
)

// New is the pod garbage collector. It has one key: everything.
func New(d reconcile.Deps) reconcile.Controller {
	all, nodes := client.CacheOf[*corev1.Pod](d.Caches), client.CacheOf[*corev1.Node](d.Caches)
	missing := map[string]time.Time{} // one key, so one worker at a time
	return reconcile.Controller{
		Name: "pod-garbage-collector-controller", Workers: 1,
		Inputs: []reconcile.Input{
			reconcile.Map(d.Caches, func(old, new *corev1.Pod) []reconcile.Key { return nil }), // fills the cache
			reconcile.Map(d.Caches, func(old, new *corev1.Node) []reconcile.Key {
				if old != nil && new != nil {
					return nil
				}
				return []reconcile.Key{{}}
			}),
			reconcile.Source(func(enqueue func(reconcile.Key)) func() { enqueue(reconcile.Key{}); return func() {} }),
		},
		Writes: []string{"pods", "pods/status"},
		Reconcile: func(ctx context.Context, _ reconcile.Key) (reconcile.Result, error) {
			now := d.Clock.Now()
			list := all.List("")
			gone := lost(list, missing, now, func(name string) bool { _, ok := nodes.Get("", name); return ok }, func(name string) bool {
				_, err := client.Get[*corev1.Node](ctx, d.Client, "", name)
				return apierrors.IsNotFound(err)
			})
			return reconcile.Result{After: period}, plan.Apply(ctx, d, Plan(list, gone, Threshold, now)...)
		},
	}
}

// lost returns the nodes that pods are on and that have been missing for the quarantine.
func lost(list []*corev1.Pod, missing map[string]time.Time, now time.Time, known, verify func(string) bool) map[string]bool {
	gone, named := map[string]bool{}, map[string]bool{}
	for _, p := range list {
		if n := p.Spec.NodeName; n != "" && !named[n] && !known(n) {
			named[n] = true
			if _, ok := missing[n]; !ok {
				missing[n] = now
			}
			gone[n] = now.Sub(missing[n]) >= quarantine && verify(n)
		}
	}
	for n := range missing {
		if !named[n] {
			delete(missing, n)
		}
	}
	return gone
}

// Plan removes the pods of gone nodes, those that were deleted before they had a node, and the oldest finished ones
// beyond the threshold.
func Plan(list []*corev1.Pod, gone map[string]bool, threshold int, now time.Time) (actions []plan.Action) {
	var finished []*corev1.Pod
	for _, p := range list {
		switch {
		case gone[p.Spec.NodeName]:
			actions = append(actions, remove(p, now, "DeletionByPodGC", "PodGC: node no longer exists")...)
		case p.Spec.NodeName == "" && p.DeletionTimestamp != nil:
			actions = append(actions, remove(p, now, "", "")...)
		case pods.Finished(p) && p.DeletionTimestamp == nil:
			finished = append(finished, p)
		}
	}
	excess := len(finished) - threshold
	if excess <= 0 {
		return actions
	}
	slices.SortFunc(finished, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range finished[:excess] {
		actions = append(actions, remove(p, now, "", "")...)
	}
	return actions
}

// remove deletes at once; a pod that has not finished is marked failed before, with the reason why.
func remove(p *corev1.Pod, now time.Time, reason, message string) (actions []plan.Action) {
	if !pods.Finished(p) && reason != "" {
		next := p.DeepCopy()
		next.Status.Phase = corev1.PodFailed
		pods.SetCondition(next, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)})
		actions = append(actions, plan.Status(next))
	}
	return append(actions, plan.Delete{Obj: p, Grace: ptr.To[int64](0)})
}
