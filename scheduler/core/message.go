package core

import (
	"fmt"
	"slices"
	"strings"
)

// Message says why no node was feasible, in upstream's form: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) ...".
// The hint is what was tried then, by Hint ("": nothing to say).
func (d *Decision) Message(hint string) string {
	if d.Nodes == 0 && d.Reason == "" {
		return "no nodes available to schedule pods"
	}
	text := fmt.Sprintf("0/%d nodes are available:", d.Nodes)
	if d.Reason != "" {
		text += " " + d.Reason + "."
	} else if reasons := counted(d.histogram()); reasons != "" {
		text += " " + reasons + "."
	}
	if hint != "" {
		text += " " + hint
	}
	return text
}

// PreemptionMessage says why nobody can be evicted, given Preempt's counts.
func (d *Decision) PreemptionMessage(counts map[Refusal]int) string {
	if d.Nodes == 0 {
		return ""
	}
	text := fmt.Sprintf("0/%d nodes are available:", d.Nodes)
	if reasons := counted(counts); reasons != "" {
		text += " " + reasons + "."
	}
	return text
}

func counted(refusals map[Refusal]int) string {
	counts := map[string]int{}
	for no, n := range refusals {
		for _, reason := range no.Reasons() {
			counts[reason] += n
		}
	}
	parts := make([]string, 0, len(counts))
	for reason, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// Hint is what the message says about attempts to make a pod fit: to free devices, and to preempt (what said, if anything).
// A pod that is refused whatever the node has no use for either.
func (d *Decision) Hint(p *Pod, preemption string) string {
	if preemption == "" {
		return ""
	}
	preemption = "preemption: " + preemption
	if !p.profile.Filters[DynamicResources] || d.Reason != "" {
		return preemption
	}
	if len(p.obj.Spec.ResourceClaims) > 0 || d.cluster.mayHaveStandIn(p) {
		return "still not schedulable, " + preemption
	}
	return "no new claims to deallocate, " + preemption
}
