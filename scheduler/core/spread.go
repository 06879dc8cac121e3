package core

import (
	"fmt"
	"math"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// constraint is one topology spread constraint, with the tally of the pods that it spreads.
type constraint struct {
	maxSkew    int64
	minDomains int
	self       int64 // 1 if the pod itself is one of those
	tally      *tally
}

// spreadPlan is a pod's topology spread.
type spreadPlan struct {
	hard, soft []constraint
	// strict says that nodes without all topology keys get no score; a default that nobody configured does not demand them.
	strict bool
}

func (c *Cluster) spreadPlanOf(p *Pod) spreadPlan {
	own := p.kin.spread
	constraints, selector := own, labels.Selector(nil)
	if len(own) == 0 {
		constraints = p.profile.DefaultConstraints
		if len(constraints) > 0 {
			selector = c.siblings(p.kin)
		}
		if selector == nil {
			return spreadPlan{}
		}
	}
	plan := spreadPlan{strict: len(own) > 0 || !p.profile.SystemDefaulted}
	if p.profile.Filters[PodTopologySpread] {
		plan.hard = c.constraintsOf(p, constraints, selector, corev1.DoNotSchedule, true)
	}
	if p.profile.Weights[PodTopologySpread] != 0 {
		plan.soft = c.constraintsOf(p, constraints, selector, corev1.ScheduleAnyway, plan.strict)
	}
	return plan
}

// constraintsOf makes the constraints of one kind. Only nodes with the topology keys of all of these count, if strict.
func (c *Cluster) constraintsOf(p *Pod, list []corev1.TopologySpreadConstraint, sel labels.Selector, when corev1.UnsatisfiableConstraintAction, strict bool) []constraint {
	var keys []*column
	var names []string
	for i := range list {
		if list[i].WhenUnsatisfiable == when {
			keys = append(keys, c.column(list[i].TopologyKey))
			names = append(names, list[i].TopologyKey)
		}
	}
	if !strict {
		keys, names = nil, nil
	}
	var out []constraint
	for i := range list {
		in := &list[i]
		if in.WhenUnsatisfiable != when {
			continue
		}
		own := sel
		if own == nil {
			own = withKeys(labelSelector(in.LabelSelector), p.kin.labels, in.MatchLabelKeys, "in")
		}
		e := c.eligibleFor(p, in, keys, names)
		namespace := p.kin.namespace
		t := c.tallyFor("spread|"+namespace+"|"+in.TopologyKey+"|"+own.String()+"|"+e.key, c.column(in.TopologyKey), e, func(k *kin) int64 {
			if !k.ending && k.namespace == namespace && own.Matches(k.labels) {
				return 1
			}
			return 0
		})
		one := constraint{maxSkew: int64(in.MaxSkew), minDomains: 1, tally: t}
		if in.MinDomains != nil {
			one.minDomains = int(*in.MinDomains)
		}
		if own.Matches(p.kin.labels) {
			one.self = 1
		}
		out = append(out, one)
	}
	return out
}

func (c *Cluster) eligibleFor(p *Pod, in *corev1.TopologySpreadConstraint, keys []*column, names []string) *eligibility {
	affinity := in.NodeAffinityPolicy == nil || *in.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
	taints := in.NodeTaintsPolicy != nil && *in.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
	var relevant corev1.PodSpec
	if affinity {
		relevant.NodeSelector = p.obj.Spec.NodeSelector
		if a := p.obj.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			relevant.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution}}
		}
	}
	if taints {
		relevant.Tolerations = p.obj.Spec.Tolerations
	}
	bytes, err := relevant.Marshal()
	if err != nil {
		bytes = []byte(p.obj.UID)
	}
	key := fmt.Sprintf("%t|%s|%s", taints, strings.Join(names, ","), bytes)
	return c.eligibilityFor(key, func() *eligibility {
		return &eligibility{key: key, keys: keys, selector: c.requiredSelector(&relevant), taints: taints, tolerate: relevant.Tolerations}
	})
}

// siblings selects the pods of the services and the controller that pods of a kin belong to; nil if there are none.
func (c *Cluster) siblings(k *kin) labels.Selector {
	sel := labels.NewSelector()
	for _, svc := range c.services[k.namespace] {
		if len(svc.Spec.Selector) == 0 {
			continue
		}
		if own := labels.SelectorFromSet(svc.Spec.Selector); own.Matches(k.labels) {
			sel = and(sel, own)
		}
	}
	if k.owner != nil {
		if own := c.controllerSelector(k.namespace, k.owner); own != nil {
			sel = and(sel, own)
		}
	}
	if sel.Empty() {
		return nil
	}
	return sel
}

func (c *Cluster) controllerSelector(namespace string, owner *metav1.OwnerReference) labels.Selector {
	key := [3]string{owner.Kind, namespace, owner.Name}
	s, ok := c.selectors[key]
	if !ok {
		return nil
	}
	return labelSelector(s)
}

// filter judges nodes by how uneven the spread would become; nil without constraints.
func (plan *spreadPlan) filter(c *Cluster) func(i int) code {
	if len(plan.hard) == 0 {
		return nil
	}
	hard := plan.hard
	most := make([]int64, len(hard)) // how many a domain may have before the pod comes
	for k := range hard {
		h := &hard[k]
		lowest, domains := int64(math.MaxInt64), 0
		for id, nodes := range h.tally.nodes {
			if nodes > 0 {
				domains++
				lowest = min(lowest, h.tally.domains[id])
			}
		}
		if domains < h.minDomains || domains == 0 {
			lowest = 0
		}
		most[k] = h.maxSkew - h.self + lowest
	}
	missing := c.of(Refusal{PodTopologySpread, "node(s) didn't match pod topology spread constraints (missing required label)", true})
	uneven := c.of(Refusal{PodTopologySpread, "node(s) didn't match pod topology spread constraints", false})
	return func(i int) code {
		for k := range hard {
			t := hard[k].tally
			id := t.col.byNode[i]
			if id == none {
				return missing
			}
			if t.in(id) > most[k] {
				return uneven
			}
		}
		return 0
	}
}

// score rates nodes by how many of the pod's like are in their domains, weighing a topology by its number of domains; nil
// without constraints.
func (plan *spreadPlan) score(c *Cluster) func(candidates []int32, out []int64) {
	soft, strict := plan.soft, plan.strict
	switch {
	case len(soft) == 0:
		return nil
	case len(soft) == 1 && strict:
		return func(candidates []int32, out []int64) { soft[0].score(c, candidates, out) }
	}
	return func(candidates []int32, out []int64) {
		counted, ignored := len(candidates), []bool(nil)
		if strict {
			ignored, counted = withoutKeys(soft, candidates)
		}
		sums := grown(&c.sums, len(candidates))
		clear(sums)
		for s := range soft {
			t := soft[s].tally
			size := counted
			if !t.col.isHostname() {
				size = domainsOf(t.col, candidates, ignored)
			}
			worth := soft[s].worth(c, size)
			byNode := t.col.byNode
			for k, i := range candidates {
				sums[k] += worth[byNode[i]+1]
			}
		}
		low, top := int64(math.MaxInt64), int64(0)
		for k, sum := range sums {
			out[k] = int64(sum + 0.5) // all are positive
			if ignored == nil || !ignored[k] {
				low, top = min(low, out[k]), max(top, out[k])
			}
		}
		shares := make([]int64, min(top+1, 4096)) // divisions are dear, and few values differ
		for k, raw := range out {
			switch {
			case ignored != nil && ignored[k]:
				out[k] = 0
			case raw < int64(len(shares)):
				if shares[raw] == 0 {
					shares[raw] = share(raw, low, top)
				}
				out[k] = shares[raw]
			default:
				out[k] = share(raw, low, top)
			}
		}
	}
}

// worth is what each domain adds to its nodes' raw scores, when there are so many domains. Index 0 is for nodes without a
// value.
func (con *constraint) worth(c *Cluster, size int) []float64 {
	weight, base := math.Log(float64(size+2)), float64(con.maxSkew-1)
	worth := grown(&c.worths, len(con.tally.col.values)+1)
	worth[0] = 0
	counted := con.tally.domains
	for id := range counted {
		worth[id+1] = float64(counted[id])*weight + base
	}
	for id := len(counted) + 1; id < len(worth); id++ {
		worth[id] = base
	}
	return worth
}

// share brings a raw score to 0..MaxScore, the lowest the best.
func share(raw, low, top int64) int64 {
	if top == 0 {
		return MaxScore
	}
	return MaxScore * (top + low - raw) / top
}

// score is the score when there is only one constraint: nodes of a domain are equal, so domains are rated, and nodes look
// their domain up.
func (con *constraint) score(c *Cluster, candidates []int32, out []int64) {
	col := con.tally.col
	nodes := make([]int32, len(col.values)+1) // candidates by domain
	for _, i := range candidates {
		nodes[col.byNode[i]+1]++
	}
	size := len(candidates) - int(nodes[0])
	if !col.isHostname() {
		size = 0
		for _, n := range nodes[1:] {
			if n > 0 {
				size++
			}
		}
	}
	rates := make([]int64, len(nodes))
	low, top := int64(math.MaxInt64), int64(0)
	for id, worth := range con.worth(c, size) {
		if rates[id] = int64(worth + 0.5); id > 0 && nodes[id] > 0 {
			low, top = min(low, rates[id]), max(top, rates[id])
		}
	}
	rates[0] = 0
	for id := 1; id < len(rates); id++ {
		if nodes[id] > 0 {
			rates[id] = share(rates[id], low, top)
		}
	}
	for k, i := range candidates {
		out[k] = rates[col.byNode[i]+1]
	}
}

// withoutKeys marks the candidates that lack one of the topology keys, and counts the others; nil if none does.
func withoutKeys(soft []constraint, candidates []int32) (ignored []bool, counted int) {
	counted = len(candidates)
	for s := range soft {
		byNode := soft[s].tally.col.byNode
		for k, i := range candidates {
			if byNode[i] != none {
				continue
			}
			if ignored == nil {
				ignored = make([]bool, len(candidates))
			}
			if !ignored[k] {
				ignored[k] = true
				counted--
			}
		}
	}
	return ignored, counted
}

// domainsOf counts the different values that candidates have in a column; having none is one more.
func domainsOf(col *column, candidates []int32, ignored []bool) int {
	seen := make([]bool, len(col.values)+1)
	n := 0
	for k, i := range candidates {
		if id := col.byNode[i] + 1; !seen[id] && (ignored == nil || !ignored[k]) {
			seen[id] = true
			n++
		}
	}
	return n
}
