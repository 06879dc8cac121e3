package core

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestExplain(t *testing.T) {
	tainted := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "gpu", Value: "a100", Effect: corev1.TaintEffectNoSchedule}}
	}
	c := makeCluster(makeNode("a"), makeNode("b"), makeNode("c", tainted), makeNode("d", tainted, func(n *corev1.Node) { n.Spec.Unschedulable = true }))
	c.put("a", makePod("x", asks("cpu", "3"), important(3)))
	c.put("b", makePod("y", asks("cpu", "2500m"), important(2), onPort(80)))
	text := func(e Explanation) string {
		var lines []string
		for _, g := range e.Refused {
			line := strings.Join(g.Nodes, "+")
			for _, o := range g.Obstacles {
				line += " [" + o.Plugin + ": " + o.Change + "]"
			}
			lines = append(lines, line)
		}
		for _, s := range e.Scores {
			lines = append(lines, "fits "+s.Node)
		}
		return strings.Join(lines, "\n")
	}
	e := c.Explain(makePod("p", asks("cpu", "2"), important(9)), DefaultProfile())
	want := `a+b [NodeResourcesFit: it asks for 2; b has 1500m free of 4]
c [TaintToleration: tolerate, or remove from the node, gpu=a100:NoSchedule]
d [NodeUnschedulable: uncordon it: kubectl uncordon d] [TaintToleration: tolerate, or remove from the node, gpu=a100:NoSchedule]`
	if got := text(e); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if e.Cleared != "b" || fmt.Sprint(e.Victims) != "[ns/y]" || !strings.HasPrefix(e.Message, "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, ") {
		t.Errorf("would clear %s of %v; %s", e.Cleared, e.Victims, e.Message)
	}
	// A bound pod: the scores as if it were not there, and the cluster as before.
	before := fmt.Sprint(c.byName["a"].used, len(c.pods))
	bound := c.pods["x"].obj.DeepCopy()
	bound.Spec.NodeName = "a"
	e = c.Explain(bound, DefaultProfile())
	if !e.Bound || e.Node != "a" || len(e.Scores) != 1 || e.Scores[0].Node != "a" || e.Scores[0].Total == 0 || len(e.Scores[0].Parts) < 4 {
		t.Errorf("%+v", e)
	}
	if after := fmt.Sprint(c.byName["a"].used, len(c.pods)); after != before {
		t.Errorf("explaining changed the cluster from %s to %s", before, after)
	}
	if e := c.Explain(makePod("port", onPort(80)), DefaultProfile()); !strings.Contains(text(e), "80/TCP is taken on b by ns/y") {
		t.Error(text(e))
	}
}
