// Package tainteviction deletes pods from nodes with NoExecute taints that they do not tolerate, or no longer.
//
// Invariant: a pod is deleted only while its node has such a taint, and never before the shortest of its tolerations
// that apply has run out. Only controllers/ may import tainteviction.
package tainteviction

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/nodelifecycle"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// Plan evicts the pod, says when it will have to go, or lets it stay (0). Since is when the taints were first seen.
func Plan(p *corev1.Pod, taints []corev1.Taint, since, now time.Time) (actions []plan.Action, again time.Duration) {
	if len(taints) == 0 || p.DeletionTimestamp != nil || pods.Finished(p) {
		return nil, 0
	}
	due, ok := deadline(p, taints, since)
	if !ok {
		return nil, 0
	}
	if left := due.Sub(now); left > 0 {
		return nil, left
	}
	marked := p.DeepCopy()
	actions = append(actions, plan.Normal(p, "TaintManagerEviction", "Marking for deletion Pod %s/%s", p.Namespace, p.Name))
	if pods.SetCondition(marked, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager",
		Message: "Taint manager: deleting due to NoExecute taint", LastTransitionTime: metav1.NewTime(now)}) {
		actions = append(actions, plan.Status(marked))
	}
	return append(actions, plan.Delete{Obj: p}), 0
}

// deadline is when the pod must go; false if it may stay as long as the taints do.
func deadline(p *corev1.Pod, taints []corev1.Taint, since time.Time) (time.Time, bool) {
	shortest := time.Duration(-1)
	for i := range taints {
		at := slices.IndexFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool { return pods.Tolerates(&t, &taints[i]) })
		if at < 0 {
			return since, true
		}
		if s := p.Spec.Tolerations[at].TolerationSeconds; s != nil {
			if d := time.Duration(max(*s, 0)) * time.Second; shortest < 0 || d < shortest {
				shortest = d
			}
		}
	}
	return since.Add(shortest), shortest >= 0
}

// noExecute picks the taints that evict.
func noExecute(taints []corev1.Taint) (out []corev1.Taint) {
	for _, t := range taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

type controller struct {
	reconcile.Deps
	nodes *client.Cache[*corev1.Node]
	pods  *client.Cache[*corev1.Pod]

	mu   sync.Mutex
	seen map[types.UID]sighting // by node
}

// sighting is when a node's present NoExecute taints were first seen.
type sighting struct {
	taints []corev1.Taint
	at     time.Time
}

// New is the taint eviction controller. Its keys are pods.
func New(d reconcile.Deps) reconcile.Controller {
	c := &controller{Deps: d, nodes: client.CacheOf[*corev1.Node](d.Caches), pods: nodelifecycle.PodsByNode(d.Caches), seen: map[types.UID]sighting{}}
	return reconcile.Controller{
		Name: "taint-eviction-controller", Workers: 8,
		Inputs: []reconcile.Input{
			reconcile.Map(d.Caches, func(old, new *corev1.Pod) []reconcile.Key {
				if new == nil || new.Spec.NodeName == "" || old != nil && old.Spec.NodeName == new.Spec.NodeName && len(old.Spec.Tolerations) == len(new.Spec.Tolerations) {
					return nil
				}
				return []reconcile.Key{plan.KeyOf(new)}
			}),
			reconcile.Map(d.Caches, c.nodeChanged),
		},
		Writes:    []string{"pods", "pods/status"},
		Reconcile: c.reconcile,
	}
}

// nodeChanged notes when taints came, and makes the node's pods due.
func (c *controller) nodeChanged(old, new *corev1.Node) []reconcile.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if new == nil {
		delete(c.seen, old.UID)
		return nil
	}
	taints := noExecute(new.Spec.Taints)
	if sameTaints(c.seen[new.UID].taints, taints) {
		return nil
	}
	c.seen[new.UID] = sighting{taints, c.Clock.Now()}
	if len(taints) == 0 {
		delete(c.seen, new.UID)
	}
	var keys []reconcile.Key
	for _, p := range c.pods.By(nodelifecycle.ByNode, new.Name) {
		keys = append(keys, plan.KeyOf(p))
	}
	return keys
}

func sameTaints(a, b []corev1.Taint) bool {
	return slices.EqualFunc(a, b, func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Value == b.Value })
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	p, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || p.Spec.NodeName == "" {
		return reconcile.Result{}, nil
	}
	n, ok := c.nodes.Get("", p.Spec.NodeName)
	if !ok {
		return reconcile.Result{}, nil
	}
	c.mu.Lock()
	s := c.seen[n.UID]
	c.mu.Unlock()
	actions, again := Plan(p, noExecute(n.Spec.Taints), s.at, c.Clock.Now())
	return reconcile.Result{After: again}, plan.Apply(ctx, c.Deps, actions...)
}
