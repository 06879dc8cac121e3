package scheduler

import (
	"container/heap"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// class is all pods that are equal to the scheduler. It remembers each node's verdict by itself, judged anew only when
// the node changed, and keeps the feasible nodes in a heap by score: as long as no rule looks across nodes, the best
// node is its first.
type class struct {
	filters []filter // that look at one node alone
	scores  []weighted
	local   []verdict // by node index
	best    bestHeap
	cursor  int   // how far of the state's log the verdicts have come
	uneven  int   // how many feasible nodes have a raw score that needs normalizing
	used    int64 // the state's rev when it was last asked for
}

type weighted struct {
	rule *scoreRule
	rate score
}

// verdict is what one node is worth to a class, by itself.
type verdict struct {
	feasible bool
	uneven   bool
	refusal  refusal
	score    int64
	place    int // in the heap; -1 if not there
}

const maxClasses = 256

// classKey is the same for pods that every rule treats alike. ok is false for a pod that is better judged by itself.
func classKey(p *corev1.Pod) (key string, ok bool) {
	if len(claimsOf(p)) > 0 {
		return "", false
	}
	spec := corev1.PodSpec{NodeName: p.Spec.NodeName, NodeSelector: p.Spec.NodeSelector, Affinity: p.Spec.Affinity, Tolerations: p.Spec.Tolerations,
		TopologySpreadConstraints: p.Spec.TopologySpreadConstraints, Overhead: p.Spec.Overhead, Resources: p.Spec.Resources}
	trim := func(in []corev1.Container) []corev1.Container {
		var out []corev1.Container
		for i := range in {
			c := &in[i]
			out = append(out, corev1.Container{Image: c.Image, Resources: c.Resources, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
		return out
	}
	spec.Containers, spec.InitContainers = trim(p.Spec.Containers), trim(p.Spec.InitContainers)
	b, err := spec.Marshal()
	if err != nil {
		return "", false
	}
	return p.Namespace + "|" + labels.Set(p.Labels).String() + "|" + string(b), true
}

// classOf finds the class of a pod, with its verdicts brought up to date.
func (s *state) classOf(p *podState) *class {
	key, ok := classKey(p.pod)
	var c *class
	if ok {
		c = s.classes[key]
	}
	if c == nil {
		c = &class{cursor: -1}
		for i := range filters {
			if r := &filters[i]; !r.crossNode {
				if f := r.make(p, s); f != nil {
					c.filters = append(c.filters, f)
				}
			}
		}
		for i := range scores {
			if r := &scores[i]; !r.crossNode {
				if rate := r.make(p, s); rate != nil {
					c.scores = append(c.scores, weighted{r, rate})
				}
			}
		}
		if ok {
			if len(s.classes) >= maxClasses {
				s.dropOldestClass()
			}
			s.classes[key] = c
		}
	}
	c.used = s.rev
	c.update(p, s)
	return c
}

func (s *state) dropOldestClass() {
	oldest, at := "", int64(0)
	for key, c := range s.classes {
		if oldest == "" || c.used < at {
			oldest, at = key, c.used
		}
	}
	delete(s.classes, oldest)
}

// update judges the nodes that changed since the last time.
func (c *class) update(p *podState, s *state) {
	end := s.first + len(s.log)
	for len(c.local) < len(s.nodes) {
		c.local = append(c.local, verdict{place: -1})
	}
	if c.cursor < s.first || end-c.cursor > len(s.nodes) {
		for i := range s.nodes {
			c.judge(i, p, s)
		}
	} else {
		for _, i := range s.log[c.cursor-s.first:] {
			c.judge(i, p, s)
		}
	}
	c.cursor = end
}

func (c *class) judge(i int, p *podState, s *state) {
	v := &c.local[i]
	if v.uneven {
		c.uneven--
	}
	place := v.place
	*v = verdict{place: place}
	n := s.nodes[i]
	if n != nil && n.node != nil {
		v.refusal = c.refuse(n, p)
		v.feasible = v.refusal.reason == ""
	}
	if v.feasible {
		v.score = leastAllocated(n, p) + balancedAllocation(n, p)
		for _, w := range c.scores {
			raw := w.rate(n)
			if w.rule.normalize == nil {
				v.score += w.rule.weight * raw
			} else if raw != 0 {
				v.uneven = true
			}
		}
	}
	if v.uneven {
		c.uneven++
	}
	switch h := (heapOf{c}); {
	case v.feasible && place < 0:
		heap.Push(h, i)
	case v.feasible:
		heap.Fix(h, place)
	case place >= 0:
		heap.Remove(h, place)
	}
}

func (c *class) refuse(n *nodeState, p *podState) refusal {
	for _, f := range c.filters {
		if r := f(n); r.reason != "" {
			return r
		}
	}
	if !n.fits(p) {
		reasons, lasting := n.lacks(p)
		return refusal{joinReasons(reasons), lasting}
	}
	return refusal{}
}

// bestHeap holds the indexes of feasible nodes, the best first; equal scores go to the lower index.
type bestHeap []int

type heapOf struct{ c *class }

func (h heapOf) Len() int { return len(h.c.best) }
func (h heapOf) Less(i, j int) bool {
	a, b := h.c.best[i], h.c.best[j]
	if x, y := h.c.local[a].score, h.c.local[b].score; x != y {
		return x > y
	}
	return a < b
}
func (h heapOf) Swap(i, j int) {
	b := h.c.best
	b[i], b[j] = b[j], b[i]
	h.c.local[b[i]].place, h.c.local[b[j]].place = i, j
}
func (h heapOf) Push(x any) {
	h.c.local[x.(int)].place = len(h.c.best)
	h.c.best = append(h.c.best, x.(int))
}
func (h heapOf) Pop() any {
	last := len(h.c.best) - 1
	x := h.c.best[last]
	h.c.best = h.c.best[:last]
	h.c.local[x].place = -1
	return x
}

// decision is where a pod goes, or why nowhere.
type decision struct {
	node     *nodeState
	score    int64
	refusals map[string]refusal // by node, when there is no feasible one
	nodes    int                // how many nodes were looked at
}

// decide chooses the feasible node with the best score.
func (s *state) decide(p *podState) decision {
	c := s.classOf(p)
	var across []filter
	for i := range filters {
		if r := &filters[i]; r.crossNode {
			if f := r.make(p, s); f != nil {
				across = append(across, f)
			}
		}
	}
	var rates []weighted
	for i := range scores {
		if r := &scores[i]; r.crossNode {
			if rate := r.make(p, s); rate != nil {
				rates = append(rates, weighted{r, rate})
			}
		}
	}
	if n := s.byName[s.nominated[p.pod.UID].node]; n != nil && n.node != nil && c.local[n.index].feasible && passes(n, across) {
		return decision{node: n, score: c.local[n.index].score} // others made room for it there
	}
	if len(c.best) > 0 && len(across)+len(rates)+c.uneven == 0 {
		i := c.best[0]
		return decision{node: s.nodes[i], score: c.local[i].score}
	}
	feasible := make([]int, 0, len(c.best))
	for _, i := range c.best {
		if passes(s.nodes[i], across) {
			feasible = append(feasible, i)
		}
	}
	if len(feasible) == 0 {
		return s.refused(c, across)
	}
	slices.Sort(feasible) // the heap's order is no order; ties go to the lower index here too
	totals := c.total(feasible, s, rates)
	best := 0
	for i := range totals {
		if totals[i] > totals[best] {
			best = i
		}
	}
	return decision{node: s.nodes[feasible[best]], score: totals[best]}
}

func passes(n *nodeState, across []filter) bool {
	for _, f := range across {
		if f(n).reason != "" {
			return false
		}
	}
	return true
}

// total adds up the scores of feasible nodes, normalized over them.
func (c *class) total(feasible []int, s *state, across []weighted) []int64 {
	totals := make([]int64, len(feasible))
	for i, n := range feasible {
		totals[i] = c.local[n].score
	}
	raw := make([]int64, len(feasible))
	for _, w := range slices.Concat(c.scores, across) {
		if w.rule.normalize == nil {
			if !w.rule.crossNode {
				continue // in the node's own score
			}
		}
		for i, n := range feasible {
			raw[i] = w.rate(s.nodes[n])
		}
		if w.rule.normalize != nil {
			w.rule.normalize(raw)
		}
		for i := range raw {
			totals[i] += w.rule.weight * raw[i]
		}
	}
	return totals
}

func (s *state) refused(c *class, across []filter) decision {
	d := decision{refusals: map[string]refusal{}}
	for i, n := range s.nodes {
		if n == nil || n.node == nil {
			continue
		}
		d.nodes++
		v := &c.local[i]
		if !v.feasible {
			d.refusals[n.name] = v.refusal
			continue
		}
		for _, f := range across {
			if r := f(n); r.reason != "" {
				d.refusals[n.name] = r
				break
			}
		}
	}
	return d
}
