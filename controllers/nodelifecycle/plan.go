// Package nodelifecycle notices nodes that have fallen silent, and turns nodes' conditions into taints.
//
// Invariant: a node counts as silent only after this process has itself watched it say nothing for the grace period,
// so a restart or a wrong clock on a node condemns nobody; nodes are tainted NoExecute one after the other, at the pace of
// their zone's state; and when no node at all is healthy, none is, because then the fault is most likely on this side.
// Only controllers/ may import nodelifecycle.
package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// Input is what is known of one node.
type Input struct {
	Node       *corev1.Node
	Pods       []*corev1.Pod // those on the node
	Heard      time.Time     // when the node was last seen to say something, by our clock
	Grace      time.Duration // how long it may be silent
	AllUnready bool          // no node of the cluster is ready
	// Turn asks whether it is this node's turn to be given over to eviction, and if not, when to ask again (0: when the
	// zone's state changes). Nil: it is.
	Turn func() (ok bool, wait time.Duration)
	Now  time.Time
}

// watchedConditions become Unknown together when a node falls silent.
var watchedConditions = []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure}

// Plan is what to do about the node, and when to look again if it says nothing until then.
func Plan(in Input) (actions []plan.Action, again time.Duration) {
	left := in.Heard.Add(in.Grace).Sub(in.Now)
	if left <= 0 {
		if a := silence(in); a != nil {
			return a, 0
		}
	} else {
		again = left
	}
	want, wait := wanted(in)
	if wait > 0 && (again == 0 || wait < again) {
		again = wait
	}
	actions = append(actions, retaint(in, want)...)
	ready := condition(in.Node, corev1.NodeReady)
	if ready != nil && ready.Status != corev1.ConditionTrue {
		actions = append(actions, markPods(in)...)
	}
	return actions, again
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// silence marks the node's conditions Unknown; nil if they are already.
func silence(in Input) []plan.Action {
	n := in.Node.DeepCopy()
	now := metav1.NewTime(in.Now)
	changed := false
	for _, t := range watchedConditions {
		c := condition(n, t)
		switch {
		case c == nil:
			n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: corev1.ConditionUnknown,
				Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.", LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: now})
			changed = true
		case c.Status != corev1.ConditionUnknown:
			c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status.", now
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return []plan.Action{plan.Status(n), plan.Normal(in.Node, "NodeNotReady", "Node %s status is now: NodeNotReady", n.Name)}
}

// conditionTaints keeps new pods away from a node in trouble.
var conditionTaints = []struct {
	condition corev1.NodeConditionType
	taint     string
}{
	{corev1.NodeMemoryPressure, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.TaintNodeNetworkUnavailable},
}

// managed reports whether this controller alone sets and removes the taint.
func managed(t corev1.Taint) bool {
	switch t.Key {
	case corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable:
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	case corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure, corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable:
		return t.Effect == corev1.TaintEffectNoSchedule
	}
	return false
}

// wanted lists the taints that the node's conditions ask for, and says when another may come.
func wanted(in Input) (out []corev1.Taint, wait time.Duration) {
	add := func(key string, effect corev1.TaintEffect) { out = append(out, corev1.Taint{Key: key, Effect: effect}) }
	key := ""
	if ready := condition(in.Node, corev1.NodeReady); ready != nil {
		switch ready.Status {
		case corev1.ConditionFalse:
			key = corev1.TaintNodeNotReady
		case corev1.ConditionUnknown:
			key = corev1.TaintNodeUnreachable
		}
	}
	if key != "" {
		add(key, corev1.TaintEffectNoSchedule)
		evicts := false
		if evicts, wait = turn(in); evicts {
			add(key, corev1.TaintEffectNoExecute)
		}
	}
	for _, ct := range conditionTaints {
		if c := condition(in.Node, ct.condition); c != nil && c.Status == corev1.ConditionTrue {
			add(ct.taint, corev1.TaintEffectNoSchedule)
		}
	}
	if in.Node.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	return out, wait
}

// turn reports whether the node may be given over to eviction. One that has been is so further, whatever ails it now.
func turn(in Input) (ok bool, wait time.Duration) {
	if in.AllUnready {
		return false, 0
	}
	given := slices.ContainsFunc(in.Node.Spec.Taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && (t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable)
	})
	if given || in.Turn == nil {
		return true, 0
	}
	return in.Turn()
}

// retaint makes the node's managed taints the wanted ones and leaves all others alone. A node that has never posted
// a Ready condition keeps the taint that it registered with.
func retaint(in Input, want []corev1.Taint) []plan.Action {
	if condition(in.Node, corev1.NodeReady) == nil {
		return nil
	}
	var next []corev1.Taint
	for _, t := range in.Node.Spec.Taints {
		i := slices.IndexFunc(want, func(w corev1.Taint) bool { return w.Key == t.Key && w.Effect == t.Effect })
		switch {
		case i >= 0:
			next = append(next, t)
			want = slices.Delete(want, i, i+1)
		case !managed(t):
			next = append(next, t)
		}
	}
	for _, t := range want {
		now := metav1.NewTime(in.Now)
		t.TimeAdded = &now
		next = append(next, t)
	}
	if equality.Semantic.DeepEqual(in.Node.Spec.Taints, next) {
		return nil
	}
	n := in.Node.DeepCopy()
	n.Spec.Taints = next
	return []plan.Action{plan.Update{Obj: n}}
}

// markPods makes the pods of a node that is not ready not ready as well, so that they leave their Services.
func markPods(in Input) (actions []plan.Action) {
	for _, p := range in.Pods {
		c := pods.Condition(p, corev1.PodReady)
		if c == nil || c.Status != corev1.ConditionTrue {
			continue
		}
		p = p.DeepCopy()
		pods.SetCondition(p, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(in.Now)})
		actions = append(actions, plan.Status(p), plan.Warning(p, "NodeNotReady", "Node is not ready"))
	}
	return actions
}
