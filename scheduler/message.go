package scheduler

import (
	"fmt"
	"slices"
	"strings"
)

// message says why no node was feasible, in upstream's form: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) ...".
// The hint is what preemption has to say.
func (d *decision) message(hint string) string {
	if d.nodes == 0 {
		return "no nodes available to schedule pods"
	}
	counts := map[string]int{}
	for _, r := range d.refusals {
		for reason := range strings.SplitSeq(r.reason, "\n") {
			counts[reason]++
		}
	}
	var parts []string
	for reason, n := range counts {
		// What is wrong with the pod itself is not counted by nodes.
		if n == d.nodes && (strings.HasPrefix(reason, "persistentvolumeclaim") || strings.HasPrefix(reason, "pod has")) {
			parts = append(parts, reason)
			continue
		}
		parts = append(parts, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(parts)
	return fmt.Sprintf("0/%d nodes are available: %s.%s", d.nodes, strings.Join(parts, ", "), hint)
}

// noVictims says on how many nodes preemption would not help, and on how many it found nobody to evict.
func (d *decision) noVictims() string {
	if d.nodes == 0 {
		return ""
	}
	lasting := 0
	for _, r := range d.refusals {
		if r.lasting {
			lasting++
		}
	}
	if lasting == d.nodes {
		return fmt.Sprintf(" preemption: 0/%d nodes are available: %d Preemption is not helpful for scheduling.", d.nodes, d.nodes)
	}
	if lasting > 0 {
		return fmt.Sprintf(" preemption: 0/%d nodes are available: %d No preemption victims found for incoming pod, %d Preemption is not helpful for scheduling.",
			d.nodes, d.nodes-lasting, lasting)
	}
	return fmt.Sprintf(" preemption: 0/%d nodes are available: %d No preemption victims found for incoming pod.", d.nodes, d.nodes)
}
