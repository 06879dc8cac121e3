package core

import (
	"slices"
)

// Decision is where a pod goes, or why nowhere.
type Decision struct {
	Node  string // "" if there is no feasible one
	Nodes int    // how many were looked at
	// Reason is why the pod cannot be placed wherever that would be ("" if that is not so).
	Reason string
	Plugin string // whose Reason that is
	// Early says that the pod came before what it refers to, which is about to be made: no reason to complain.
	Early bool

	// When no node was chosen: by node index why not, and how many for which reason. Both may be the shape's own, and hold
	// until the cluster changes.
	codes   []code
	counts  []int32
	outside map[string]Refusal
	cluster *Cluster
	volumes []volumeChoice // for the chosen node
	devices []deviceChoice
}

// explainRefusal notes for every node why it was refused.
func (c *Cluster) explainRefusal(s *shape, filters []func(i int) code, d *Decision) {
	if d.codes, d.counts = s.codes, s.counts; len(filters) == 0 {
		return
	}
	d.codes = slices.Clone(s.codes)
	for i, no := range d.codes {
		if no == 0 {
			d.codes[i] = pass(filters, i)
		}
	}
	d.count()
}

// count counts nodes by code.
func (d *Decision) count() {
	d.counts = make([]int32, len(d.cluster.list))
	for _, no := range d.codes {
		if no != absent {
			d.counts[no]++
		}
	}
}

// RefusedBy names the rules that refused at least one node, or the whole pod.
func (d *Decision) RefusedBy() map[string]bool {
	out := map[string]bool{}
	if d.Reason != "" {
		out[d.Plugin] = true
	}
	for no := range d.histogram() {
		out[no.Plugin] = true
	}
	return out
}

// histogram counts nodes by refusal.
func (d *Decision) histogram() map[Refusal]int {
	out := map[Refusal]int{}
	for no, n := range d.counts {
		if no != 0 && n > 0 {
			out[d.cluster.list[no]] += int(n)
		}
	}
	for _, f := range d.outside {
		out[f]++
	}
	return out
}

// refusalOf is why a node was refused.
func (d *Decision) refusalOf(n *node) Refusal {
	if n.index >= len(d.codes) {
		return Refusal{}
	}
	no := d.codes[n.index]
	if no == 0 {
		return d.outside[n.name]
	}
	if no == absent {
		return Refusal{}
	}
	return d.cluster.list[no]
}
