package core

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Preemption makes room for a pod that fits nowhere by evicting pods of lower priority from one node. The pod is then
// nominated to that node: until it is bound, only pods of higher priority may take what it needs there.

// budget is a PodDisruptionBudget, ready to match.
type budget struct {
	namespace string
	selector  labels.Selector
	allowed   int
	disrupted map[string]bool // names of pods whose eviction it has already allowed
}

func budgetOf(b *policyv1.PodDisruptionBudget) (budget, bool) {
	sel := labelSelector(b.Spec.Selector)
	if sel.Empty() {
		return budget{}, false
	}
	disrupted := map[string]bool{}
	for name := range b.Status.DisruptedPods {
		disrupted[name] = true
	}
	return budget{b.Namespace, sel, int(b.Status.DisruptionsAllowed), disrupted}, true
}

// Sacrifice is a node that is feasible without its victims.
type Sacrifice struct {
	Node       string
	Victims    []*Pod // the most important first
	Violations int    // victims that their budgets would not let go
}

// worth is what decides between sacrifices.
type worth struct {
	violations int
	top        int32 // the most important victim's priority
	sum        int64 // of the victims' priorities, shifted so that one more victim never makes it less
	victims    int
	started    int64 // when the longest-running of the most important victims started
}

func (w *worth) lesser(o *worth) bool {
	switch {
	case w.violations != o.violations:
		return w.violations < o.violations
	case w.top != o.top:
		return w.top < o.top
	case w.sum != o.sum:
		return w.sum < o.sum
	case w.victims != o.victims:
		return w.victims < o.victims
	}
	return w.started > o.started
}

func (s *Sacrifice) worth() worth {
	w := worth{violations: s.Violations, top: s.Victims[0].priority, victims: len(s.Victims), started: started(s.Victims[0]).UnixNano()}
	for _, v := range s.Victims {
		w.sum += int64(v.priority) + 1<<31
	}
	return w
}

var (
	notHelpful = Refusal{DefaultPreemption, "Preemption is not helpful for scheduling", true}
	noVictims  = Refusal{DefaultPreemption, "No preemption victims found for incoming pod", true}
)

// MayNotPreempt says, in upstream's words, why nobody may be evicted for a pod; "" if that is allowed.
func (c *Cluster) MayNotPreempt(p *Pod) string {
	if policy := p.obj.Spec.PreemptionPolicy; policy != nil && *policy == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	if n := c.byName[c.nominated[p.obj.UID].node]; n != nil {
		for uid, other := range n.pods {
			if other.priority < p.priority && (c.departing[uid] || other.obj.DeletionTimestamp != nil && preempted(other.obj)) {
				return "not eligible due to a terminating pod on the nominated node."
			}
		}
	}
	return ""
}

func preempted(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}

// prey is what each node would sacrifice for the pods of a shape, judged anew when the node changed.
type prey struct {
	cursor  int
	budgets int // the cluster's count of changes to budgets
	worth   []worth
	why     []code // 0: worth counts
}

// Preempt chooses the node whose pods are to make room for p, after Decide refused every node with d. If there is none,
// it counts the nodes by why not. Extenders narrow the choice by allow (nil: all), which is given all sacrifices.
func (c *Cluster) Preempt(p *Pod, d *Decision, allow func([]Sacrifice) ([]Sacrifice, error)) (Sacrifice, bool, map[Refusal]int) {
	if d.Reason != "" || c.nobodyLess(p.priority) {
		return Sacrifice{}, false, c.hopeless(d)
	}
	rules, _ := c.crossOf(p)
	var look *prey
	if len(rules.filters) == 0 && p.pinned == nil {
		look = c.preyOf(p)
	} else {
		look = c.hunt(p, d)
	}
	if allow != nil {
		return c.allowed(p, look, d, allow)
	}
	best := -1
	for i := range look.why {
		if look.why[i] == 0 && (best < 0 || look.worth[i].lesser(&look.worth[best])) {
			best = i
		}
	}
	if best < 0 {
		return Sacrifice{}, false, c.unhelpful(d, look)
	}
	s, _ := c.sacrificeOf(c.nodes[best], p, rules.filters != nil)
	return s, true, nil
}

func (c *Cluster) nobodyLess(priority int32) bool {
	for have := range c.priorities {
		if have < priority {
			return false
		}
	}
	return true
}

// hopeless counts nodes when there is nobody to evict at all.
func (c *Cluster) hopeless(d *Decision) map[Refusal]int {
	out := map[Refusal]int{}
	if d.Reason != "" {
		out[notHelpful] = d.Nodes
		return out
	}
	for no, n := range d.histogram() {
		if no.Lasting {
			out[notHelpful] += n
		} else {
			out[noVictims] += n
		}
	}
	return out
}

func (c *Cluster) unhelpful(d *Decision, look *prey) map[Refusal]int {
	out := map[Refusal]int{}
	for i, no := range look.why {
		if c.nodes[i] == nil || c.nodes[i].obj == nil || no == absent {
			continue
		}
		if d.refusalOf(c.nodes[i]).Lasting {
			out[notHelpful]++
		} else {
			out[c.list[no]]++
		}
	}
	return out
}

// minSacrifices is how many nodes are compared at least when rules across nodes make each costly; a tenth of all nodes
// if that is more. It is upstream's number.
const minSacrifices = 100

// hunt judges nodes one by one, until there are enough.
func (c *Cluster) hunt(p *Pod, d *Decision) *prey {
	look := &prey{worth: make([]worth, len(c.nodes)), why: make([]code, len(c.nodes))}
	enough := max(minSacrifices, len(c.nodes)/10)
	dull := c.of(noVictims)
	for i, n := range c.nodes {
		look.why[i] = absent
		if n == nil || n.obj == nil || enough == 0 {
			continue
		}
		if look.why[i] = c.of(notHelpful); d.refusalOf(n).Lasting {
			continue
		}
		s, no := c.sacrificeOf(n, p, true)
		if look.why[i] = no; no == 0 && len(s.Victims) == 0 {
			look.why[i] = dull
		} else if no == 0 {
			look.worth[i] = s.worth()
			enough--
		}
	}
	return look
}

// preyOf brings the sacrifices for a shape up to date.
func (c *Cluster) preyOf(p *Pod) *prey {
	s := p.shape
	s.update(c)
	if s.prey == nil || s.prey.budgets != c.budgetChanges {
		s.prey = &prey{cursor: -1, budgets: c.budgetChanges}
	}
	y := s.prey
	for len(y.why) < len(c.nodes) {
		y.why, y.worth = append(y.why, absent), append(y.worth, worth{})
	}
	end := c.first + len(c.log)
	if y.cursor < c.first || end-y.cursor > len(c.nodes) {
		for i := range c.nodes {
			c.weigh(p, y, i)
		}
	} else {
		for _, i := range c.log[y.cursor-c.first:] {
			c.weigh(p, y, int(i))
		}
	}
	y.cursor = end
	return y
}

func (c *Cluster) weigh(p *Pod, y *prey, i int) {
	n, no := c.nodes[i], p.shape.codes[i]
	switch {
	case no == absent || n == nil || n.obj == nil:
		y.why[i] = absent
	case no == 0:
		y.why[i] = c.of(noVictims) // feasible by itself: there is nothing to make room for
	case c.list[no].Lasting:
		y.why[i] = c.of(notHelpful)
	default:
		s, no := c.sacrificeOf(n, p, false)
		if y.why[i] = no; no == 0 && len(s.Victims) == 0 {
			y.why[i] = c.of(noVictims)
		} else if no == 0 {
			y.worth[i] = s.worth()
		}
	}
}

// sacrificeOf tries a node without all pods of lower priority, and then lets as many of them stay as can: first those
// whose budgets say that they must, and the more important before the less.
func (c *Cluster) sacrificeOf(n *node, p *Pod, cross bool) (Sacrifice, code) {
	out := Sacrifice{Node: n.name}
	var lower []*Pod
	for _, other := range n.pods {
		if other.priority < p.priority {
			lower = append(lower, other)
		}
	}
	if len(lower) == 0 {
		return out, c.of(noVictims)
	}
	slices.SortFunc(lower, moreImportant)
	// The cluster is changed to ask the rules, and changed back: what shapes remember stays true.
	c.trial = true
	defer func() { c.trial = false }()
	for _, v := range lower {
		c.lift(v.obj.UID)
	}
	if no := c.accepts(n, p, cross); no != 0 {
		for _, v := range lower {
			c.settle(v, n.name)
		}
		return out, no
	}
	violating, others := split(lower, c.budgets)
	keep := func(v *Pod) bool {
		c.settle(v, n.name)
		if c.accepts(n, p, cross) == 0 {
			return true
		}
		c.lift(v.obj.UID)
		out.Victims = append(out.Victims, v)
		return false
	}
	for _, v := range violating {
		if !keep(v) {
			out.Violations++
		}
	}
	for _, v := range others {
		keep(v)
	}
	for _, v := range out.Victims {
		c.settle(v, n.name)
	}
	slices.SortFunc(out.Victims, moreImportant)
	return out, 0
}

// accepts asks all rules about one node, as the cluster is now.
func (c *Cluster) accepts(n *node, p *Pod, cross bool) code {
	if no := c.refuse(p, n, p.obj.UID); no != 0 || !cross {
		return no
	}
	rules, no := c.crossOf(p)
	if no.Reason != "" {
		return c.of(no)
	}
	return pass(rules.filters, n.index)
}

// allowed lets extenders narrow the sacrifices.
func (c *Cluster) allowed(p *Pod, look *prey, d *Decision, allow func([]Sacrifice) ([]Sacrifice, error)) (Sacrifice, bool, map[Refusal]int) {
	var all []Sacrifice
	for i := range look.why {
		if look.why[i] == 0 {
			s, _ := c.sacrificeOf(c.nodes[i], p, true)
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return Sacrifice{}, false, c.unhelpful(d, look)
	}
	left, err := allow(all)
	left = slices.DeleteFunc(left, func(s Sacrifice) bool { return len(s.Victims) == 0 })
	if err != nil || len(left) == 0 {
		return Sacrifice{}, false, map[Refusal]int{}
	}
	return slices.MinFunc(left, func(a, b Sacrifice) int {
		x, y := a.worth(), b.worth()
		switch {
		case x.lesser(&y):
			return -1
		case y.lesser(&x):
			return 1
		}
		return 0
	}), true, nil
}

// split tells the pods whose eviction would break a budget from the others, taking them in order.
func split(list []*Pod, budgets map[types.NamespacedName]budget) (violating, others []*Pod) {
	if len(budgets) == 0 {
		return nil, list
	}
	left := map[types.NamespacedName]int{}
	for _, p := range list {
		breaks := false
		for name, b := range budgets {
			if b.namespace != p.obj.Namespace || len(p.obj.Labels) == 0 || b.disrupted[p.obj.Name] || !b.selector.Matches(labels.Set(p.obj.Labels)) {
				continue
			}
			left[name]++
			breaks = breaks || left[name] > b.allowed
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
func moreImportant(a, b *Pod) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), started(a).Compare(started(b)), cmp.Compare(a.obj.UID, b.obj.UID))
}

func started(p *Pod) time.Time {
	if t := p.obj.Status.StartTime; t != nil {
		return t.Time
	}
	return p.obj.CreationTimestamp.Time
}
