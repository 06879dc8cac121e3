package nodelifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func nodeWith(ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{Taints: taints},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
}

func TestSilentNodeBecomesUnknown(t *testing.T) {
	in := Input{Node: nodeWith(corev1.ConditionTrue), Heard: now.Add(-49 * time.Second), Grace: 50 * time.Second, Now: now}
	if actions, again := Plan(in); len(actions) != 0 || again != time.Second {
		t.Errorf("before the grace period is over: %v, again in %v", actions, again)
	}
	in.Heard = now.Add(-50 * time.Second)
	actions, _ := Plan(in)
	n := actions[0].(plan.Update).Obj.(*corev1.Node)
	if c := condition(n, corev1.NodeReady); c.Status != corev1.ConditionUnknown || c.Reason != "NodeStatusUnknown" {
		t.Errorf("ready is %+v", c)
	}
}

func TestTaints(t *testing.T) {
	own := corev1.Taint{Key: "user", Effect: corev1.TaintEffectNoSchedule}
	for name, c := range map[string]struct {
		node *corev1.Node
		all  bool
		want []string
	}{
		"not ready":     {node: nodeWith(corev1.ConditionFalse, own), want: []string{"user:NoSchedule", "node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"}},
		"unreachable":   {node: nodeWith(corev1.ConditionUnknown), want: []string{"node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"}},
		"nobody ready":  {node: nodeWith(corev1.ConditionUnknown), all: true, want: []string{"node.kubernetes.io/unreachable:NoSchedule"}},
		"healthy again": {node: nodeWith(corev1.ConditionTrue, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}, own), want: []string{"user:NoSchedule"}},
	} {
		t.Run(name, func(t *testing.T) {
			actions, _ := Plan(Input{Node: c.node, Heard: now, Grace: time.Minute, AllUnready: c.all, Now: now})
			var got []string
			for _, taint := range actions[0].(plan.Update).Obj.(*corev1.Node).Spec.Taints {
				got = append(got, taint.Key+":"+string(taint.Effect))
			}
			if len(got) != len(c.want) {
				t.Fatalf("taints %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("taints %v, want %v", got, c.want)
				}
			}
		})
	}
}
