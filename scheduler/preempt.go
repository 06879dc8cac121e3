package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	schedhelpers "k8s.io/component-helpers/scheduling/corev1"
)

// Preemption makes room for a pod that fits nowhere by evicting pods of lower priority from one node. This file decides
// whom; evict.go does it. The pod is then nominated to the node: until it is bound, only pods of higher priority may
// take what it needs there.

// nomination is the room that victims left, or are leaving, for a pod.
type nomination struct {
	pod  *podState
	node string
}

// budget is a PodDisruptionBudget, ready to match.
type budget struct {
	namespace string
	selector  labels.Selector
	allowed   int
	disrupted map[string]bool // names of pods whose eviction it has already allowed
}

// sacrifice is a node that is feasible without its victims.
type sacrifice struct {
	node       *nodeState
	victims    []*podState // the most important first
	violations int         // victims that their budgets would not let go
}

// minSacrifices is how many nodes are compared at least, if that many would do; a tenth of all if that is more.
const minSacrifices = 100

func priorityOf(p *podState) int32 { return schedhelpers.PodPriority(p.pod) }

// mayNotPreempt says, in upstream's words, why nobody may be evicted for a pod; "" if that is allowed.
func (s *state) mayNotPreempt(p *podState) string {
	if policy := p.pod.Spec.PreemptionPolicy; policy != nil && *policy == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	if nominated, ok := s.nominated[p.pod.UID]; ok && s.byName[nominated.node] != nil {
		for uid, other := range s.byName[nominated.node].pods {
			if priorityOf(other) < priorityOf(p) && (other.pod.DeletionTimestamp != nil || s.evicting[uid]) {
				return "not eligible due to a terminating pod on the nominated node."
			}
		}
	}
	return ""
}

// preempt chooses the node whose pods are to make room for p, after decide refused every node with d.
func (s *state) preempt(p *podState, d *decision, budgets []budget) (sacrifice, bool) {
	var local []filter
	for i := range filters {
		if r := &filters[i]; !r.crossNode {
			if f := r.make(p, s); f != nil {
				local = append(local, f)
			}
		}
	}
	enough := max(minSacrifices, len(s.nodes)/10)
	var found []sacrifice
	for _, n := range s.nodes {
		if n == nil || n.node == nil || d.refusals[n.name].lasting {
			continue
		}
		if c, ok := s.sacrificeOf(n, p, local, budgets); ok {
			if found = append(found, c); len(found) == enough {
				break
			}
		}
	}
	if len(found) == 0 {
		return sacrifice{}, false
	}
	return slices.MinFunc(found, lesserHarm), true // the first of equals
}

// sacrificeOf tries a node without all pods of lower priority, and then lets as many of them stay as can: first those
// whose budgets say that they must, and the more important before the less.
func (s *state) sacrificeOf(n *nodeState, p *podState, local []filter, budgets []budget) (sacrifice, bool) {
	var lower []*podState
	for _, other := range n.pods {
		if priorityOf(other) < priorityOf(p) {
			lower = append(lower, other)
		}
	}
	if len(lower) == 0 {
		return sacrifice{}, false
	}
	slices.SortFunc(lower, moreImportant)
	// The state is changed to ask the rules, and changed back: verdicts that classes remember stay true.
	s.trial = true
	defer func() { s.trial = false }()
	for _, v := range lower {
		s.dropPod(v.pod.UID)
	}
	if !s.accepts(n, p, local) {
		for _, v := range lower {
			s.setPod(v, n.name)
		}
		return sacrifice{}, false
	}
	out := sacrifice{node: n}
	violating, others := split(lower, budgets)
	keep := func(v *podState) bool {
		s.setPod(v, n.name)
		if s.accepts(n, p, local) {
			return true
		}
		s.dropPod(v.pod.UID)
		out.victims = append(out.victims, v)
		return false
	}
	for _, v := range violating {
		if !keep(v) {
			out.violations++
		}
	}
	for _, v := range others {
		keep(v)
	}
	for _, v := range out.victims {
		s.setPod(v, n.name)
	}
	slices.SortFunc(out.victims, moreImportant)
	return out, len(out.victims) > 0
}

// accepts asks all rules about one node, as the state is now.
func (s *state) accepts(n *nodeState, p *podState, local []filter) bool {
	if !n.fits(p) || !passes(n, local) {
		return false
	}
	for i := range filters {
		if r := &filters[i]; r.crossNode {
			if f := r.make(p, s); f != nil && f(n).reason != "" {
				return false
			}
		}
	}
	return true
}

// split tells the pods whose eviction would break a budget from the others, taking them in order.
func split(list []*podState, budgets []budget) (violating, others []*podState) {
	left := make([]int, len(budgets))
	for i := range budgets {
		left[i] = budgets[i].allowed
	}
	for _, p := range list {
		breaks := false
		for i := range budgets {
			b := &budgets[i]
			if b.namespace != p.pod.Namespace || b.disrupted[p.pod.Name] || !b.selector.Matches(labels.Set(p.pod.Labels)) {
				continue
			}
			left[i]--
			breaks = breaks || left[i] < 0
		}
		if breaks {
			violating = append(violating, p)
		} else {
			others = append(others, p)
		}
	}
	return violating, others
}

// moreImportant orders by priority, then by who has run longer.
func moreImportant(a, b *podState) int {
	return cmp.Or(cmp.Compare(priorityOf(b), priorityOf(a)), started(a).Compare(started(b)), cmp.Compare(a.pod.UID, b.pod.UID))
}

func started(p *podState) time.Time {
	if t := p.pod.Status.StartTime; t != nil {
		return t.Time
	}
	return p.pod.CreationTimestamp.Time
}

// lesserHarm orders sacrifices as upstream does: fewest broken budgets, least important victim at the top, least
// priority in sum, fewest victims, and the one whose most important victims have run shortest.
func lesserHarm(a, b sacrifice) int {
	sum := func(c *sacrifice) (n int64) {
		for _, v := range c.victims {
			n += int64(priorityOf(v)) + 1<<31 // so that one more victim never makes it less
		}
		return n
	}
	return cmp.Or(cmp.Compare(a.violations, b.violations), cmp.Compare(priorityOf(a.victims[0]), priorityOf(b.victims[0])),
		cmp.Compare(sum(&a), sum(&b)), cmp.Compare(len(a.victims), len(b.victims)),
		started(b.victims[0]).Compare(started(a.victims[0])))
}

// nominationRule keeps what is nominated to pods of the same or a higher priority free for them.
func nominationRule(p *podState, s *state) filter {
	reserved := map[string][]*podState{}
	for uid, nominated := range s.nominated {
		if uid != p.pod.UID && priorityOf(nominated.pod) >= priorityOf(p) {
			reserved[nominated.node] = append(reserved[nominated.node], nominated.pod)
		}
	}
	if len(reserved) == 0 {
		return nil
	}
	ports := portsRule(p, s)
	return func(n *nodeState) refusal {
		waiting := reserved[n.name]
		if len(waiting) == 0 {
			return refusal{}
		}
		with := *n
		with.used.extended, with.ports = maps.Clone(n.used.extended), maps.Clone(n.ports)
		for _, w := range waiting {
			with.used.add(&w.asked, 1)
			for _, port := range w.ports {
				with.ports[port]++
			}
		}
		if !with.fits(p) {
			reasons, lasting := with.lacks(p)
			return refusal{joinReasons(reasons), lasting}
		}
		if ports != nil {
			return ports(&with)
		}
		return refusal{}
	}
}

// nominate notes that p waits for room on a node, and takes the nominations of less important pods there away.
func (s *state) nominate(p *podState, node string) (displaced []*podState) {
	for uid, other := range s.nominated {
		if other.node == node && priorityOf(other.pod) < priorityOf(p) {
			displaced = append(displaced, other.pod)
			delete(s.nominated, uid)
		}
	}
	s.nominated[p.pod.UID] = nomination{p, node}
	return displaced
}

// forget drops what preemption remembers about a pod that got a node or is gone.
func (s *state) forget(uid types.UID) {
	delete(s.nominated, uid)
	delete(s.evicting, uid)
}
