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

// New is the pod garbage collector. It has one key, everything, which is due when something may have been left behind, and
// at most once in a period.
func New(d reconcile.Deps) reconcile.Controller {
	all, nodes := client.CacheOf[*corev1.Pod](d.Caches), client.CacheOf[*corev1.Node](d.Caches)
	missing := map[string]time.Time{} // one key, so one worker at a time
	var last time.Time
	due := []reconcile.Key{{}}
	return reconcile.Controller{
		Name: "pod-garbage-collector-controller", Workers: 1,
		Inputs: []reconcile.Input{
			reconcile.Map(d.Caches, func(old, new *corev1.Pod) []reconcile.Key {
				if new == nil {
					return nil
				}
				_, known := nodes.Get("", new.Spec.NodeName)
				switch {
				case old != nil && pods.Finished(old) == pods.Finished(new) && old.Spec.NodeName == new.Spec.NodeName &&
					(old.DeletionTimestamp == nil) == (new.DeletionTimestamp == nil):
				case pods.Finished(new), new.DeletionTimestamp != nil, new.Spec.NodeName != "" && !known:
					return due
				}
				return nil
			}),
			reconcile.Map(d.Caches, func(old, new *corev1.Node) []reconcile.Key {
				if old != nil && new != nil && outOfService(old) == outOfService(new) {
					return nil
				}
				return due
			}),
		},
		Writes: []string{"pods", "pods/status"},
		Reconcile: func(ctx context.Context, _ reconcile.Key) (reconcile.Result, error) {
			now := d.Clock.Now()
			if left := last.Add(period).Sub(now); left > 0 {
				return reconcile.Result{After: left}, nil
			}
			last = now
			list := all.List("")
			gone := lost(list, missing, now, func(name string) bool { _, ok := nodes.Get("", name); return ok }, func(name string) bool {
				_, err := client.Get[*corev1.Node](ctx, d.Client, "", name)
				return apierrors.IsNotFound(err)
			})
			var again time.Duration
			if len(missing) > 0 {
				again = period // until their quarantine is over
			}
			out := func(name string) bool {
				n, ok := nodes.Get("", name)
				return ok && outOfService(n)
			}
			return reconcile.Result{After: again}, plan.Apply(ctx, d, Plan(list, gone, out, Threshold, now)...)
		},
	}
}

// outOfService reports whether somebody has said that a node is shut down for good and it does not say otherwise (KEP-2268).
func outOfService(n *corev1.Node) bool {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return !ready && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
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

// Plan removes the pods of gone nodes, those that were deleted before they had a node or when it is out of service, and
// the oldest finished ones beyond the threshold.
func Plan(list []*corev1.Pod, gone map[string]bool, outOfService func(node string) bool, threshold int, now time.Time) (actions []plan.Action) {
	var finished []*corev1.Pod
	for _, p := range list {
		switch {
		case gone[p.Spec.NodeName]:
			actions = append(actions, remove(p, now, "DeletionByPodGC", "PodGC: node no longer exists")...)
		case p.DeletionTimestamp != nil && (p.Spec.NodeName == "" || outOfService(p.Spec.NodeName)):
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

// remove deletes at once; a pod that has not finished is marked failed before, with the reason why if there is one.
func remove(p *corev1.Pod, now time.Time, reason, message string) (actions []plan.Action) {
	if !pods.Finished(p) {
		next := p.DeepCopy()
		next.Status.Phase = corev1.PodFailed
		if reason != "" {
			pods.SetCondition(next, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)})
		}
		actions = append(actions, plan.Status(next))
	}
	return append(actions, plan.Delete{Obj: p, Grace: ptr.To[int64](0)})
}
