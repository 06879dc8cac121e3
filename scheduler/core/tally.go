package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// tally counts bound pods by the value of one node label: how many of those that it is about are in each domain. Rules
// ask for tallies by key, so that equal pods share one; it is then kept up by every pod and node that comes and goes.
type tally struct {
	col      *column
	eligible *eligibility     // the nodes that count; nil: all that have the label
	counts   func(*kin) int64 // what one pod of a kin adds
	byNode   map[int]int64    // by node index
	domains  []int64          // by column id
	nodes    []int32          // eligible nodes, by column id; kept only with eligible
	sum      int64            // over domains
	used     int64            // the cluster's clock when a decision last asked for it
}

// contribution is what a pod adds to one tally.
type contribution struct {
	tally *tally
	count int64
}

// maxTallies bounds what is kept; the ones that nobody has asked for longest go first.
const maxTallies = 1024

// tallyFor finds the tally of a key, or makes it by one walk over all bound pods.
func (c *Cluster) tallyFor(key string, col *column, e *eligibility, counts func(*kin) int64) *tally {
	t, ok := c.tallies[key]
	if !ok {
		if len(c.tallies) >= maxTallies {
			c.dropOldestTally()
		}
		t = c.newTally(col, e, counts)
		c.tallies[key] = t
		c.wiring++
	}
	t.used = c.clock
	return t
}

func (c *Cluster) newTally(col *column, e *eligibility, counts func(*kin) int64) *tally {
	t := &tally{col: col, eligible: e, counts: counts, byNode: map[int]int64{}}
	if e != nil {
		for _, n := range c.nodes {
			if n != nil {
				t.place(n.index)
			}
		}
	}
	known := map[*kin]int64{}
	for _, p := range c.pods {
		count, ok := known[p.kin]
		if !ok {
			count = counts(p.kin)
			known[p.kin] = count
		}
		if count != 0 {
			t.add(p.node.index, count)
		}
	}
	return t
}

func (c *Cluster) dropOldestTally() {
	oldest, at := "", int64(0)
	for key, t := range c.tallies {
		if oldest == "" || t.used < at {
			oldest, at = key, t.used
		}
	}
	delete(c.tallies, oldest)
	c.wiring++
}

func (t *tally) domainOf(i int) int32 {
	id := t.col.byNode[i]
	if id == none || t.eligible != nil && !t.eligible.ok[i] {
		return none
	}
	for int(id) >= len(t.domains) {
		t.domains = append(t.domains, 0)
		if t.eligible != nil {
			t.nodes = append(t.nodes, 0)
		}
	}
	return id
}

func (t *tally) add(i int, n int64) {
	if t.byNode[i] += n; t.byNode[i] == 0 {
		delete(t.byNode, i)
	}
	if id := t.domainOf(i); id != none {
		t.domains[id] += n
		t.sum += n
	}
}

// in is how many are in a domain.
func (t *tally) in(id int32) int64 {
	if id == none || int(id) >= len(t.domains) {
		return 0
	}
	return t.domains[id]
}

// displace and place bracket a change of a node's label or eligibility.
func (t *tally) displace(i int) { t.move(i, -1) }
func (t *tally) place(i int)    { t.move(i, 1) }

func (t *tally) move(i int, sign int64) {
	if i >= len(t.col.byNode) || t.eligible != nil && i >= len(t.eligible.ok) {
		return
	}
	id := t.domainOf(i)
	if id == none {
		return
	}
	if n := t.byNode[i]; n != 0 {
		t.domains[id] += sign * n
		t.sum += sign * n
	}
	if t.eligible != nil {
		t.nodes[id] += int32(sign)
	}
}

// eligibility is the nodes that count for a pod's topology spread: those with all its topology keys that its node
// affinity and, if asked for, its tolerations let it onto.
type eligibility struct {
	key      string
	keys     []*column
	selector *nodeSelector       // nil: node affinity is ignored
	tolerate []corev1.Toleration // looked at if taints is set
	taints   bool
	ok       []bool // by node index
}

func (c *Cluster) eligibilityFor(key string, make func() *eligibility) *eligibility {
	e, ok := c.eligible[key]
	if !ok {
		if len(c.eligible) >= maxTallies { // then all spread tallies are made anew
			clear(c.eligible)
			clear(c.tallies)
			c.wiring++
		}
		e = make()
		for _, n := range c.nodes {
			if n != nil {
				e.set(n)
			}
		}
		c.eligible[key] = e
	}
	return e
}

func (e *eligibility) set(n *node) {
	for len(e.ok) <= n.index {
		e.ok = append(e.ok, false)
	}
	e.ok[n.index] = n.obj != nil && e.selector.match(n.index) &&
		!slices.ContainsFunc(e.keys, func(col *column) bool { return col.byNode[n.index] == none }) &&
		!(e.taints && untolerated(n.obj.Spec.Taints, e.tolerate) != nil)
}

// and is a selector that demands what both do.
func and(a, b labels.Selector) labels.Selector {
	requirements, _ := b.Requirements()
	return a.Add(requirements...)
}
