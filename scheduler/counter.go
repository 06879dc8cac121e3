package scheduler

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// counter counts, for every node, the bound pods that match. Rules ask for counters by key, so that equal pods share
// one; it is then kept up by every pod that comes and goes.
type counter struct {
	match  func(*corev1.Pod) bool
	byNode map[int]int // by node index; nodes without a match are missing
	total  int
	used   int64 // the state's rev when a decision last asked for it
}

// maxCounters bounds what is kept; the ones that nobody has asked for longest go first.
const maxCounters = 512

// counterFor finds the counter of a key, or makes it by one walk over all bound pods.
func (s *state) counterFor(key string, match func(*corev1.Pod) bool) *counter {
	c, ok := s.counters[key]
	if !ok {
		if len(s.counters) >= maxCounters {
			s.dropOldestCounter()
		}
		c = &counter{match: match, byNode: map[int]int{}}
		for _, p := range s.pods {
			c.count(p, 1)
		}
		s.counters[key] = c
	}
	c.used = s.rev
	return c
}

func (s *state) dropOldestCounter() {
	oldest, at := "", int64(0)
	for key, c := range s.counters {
		if oldest == "" || c.used < at {
			oldest, at = key, c.used
		}
	}
	delete(s.counters, oldest)
}

func (c *counter) count(p *podState, sign int) {
	// What is taken off is what was counted, so the match may depend on nothing but the podState's pod, which never
	// changes, and on namespaces, whose change drops the counters.
	if !c.match(p.pod) {
		return
	}
	c.total += sign
	if c.byNode[p.node.index] += sign; c.byNode[p.node.index] == 0 {
		delete(c.byNode, p.node.index)
	}
}

// domains sums a counter by the value of a node label, over the nodes that eligible accepts (nil: all that have the
// label). Domains without a match are there with 0.
func (s *state) domains(c *counter, topologyKey string, eligible func(*nodeState) bool) map[string]int {
	sums := map[string]int{}
	for _, n := range s.nodes {
		if n == nil || n.node == nil {
			continue
		}
		if value, ok := n.node.Labels[topologyKey]; ok && (eligible == nil || eligible(n)) {
			sums[value] += c.byNode[n.index]
		}
	}
	return sums
}

// selectorOf is a label selector ready to match; one that is invalid or missing matches nothing.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}
