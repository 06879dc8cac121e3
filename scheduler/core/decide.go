package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Outside is what an extender has to say, between the rules. Its functions may be nil.
type Outside struct {
	// Filter is given feasible nodes and returns those that it refuses.
	Filter func(nodes []string) (map[string]Refusal, error)
	// Score is given feasible nodes and returns what to add to each's score.
	Score func(nodes []string) map[string]int64
}

// crossRules are the rules that look at other nodes' pods, or at what only this pod has.
type crossRules struct {
	filters []func(i int) code
	scores  []crossScore
}

type crossScore struct {
	plugin string
	weight int64
	rate   func(candidates []int32, out []int64) // normalized
}

// plan is what a kin's pods of one shape ask about others, as the cluster is wired now.
type plan struct {
	wired    int
	family   int // the cluster's, of services and controllers
	shape    *shape
	affinity affinityPlan
	spread   spreadPlan
}

// planOf finds or makes the plan of a pod. Making it may add tallies, which rewires; two rounds settle that.
func (c *Cluster) planOf(p *Pod) *plan {
	k := p.kin
	for range 3 {
		if k.plan.wired == c.wiring && k.plan.shape == p.shape && k.plan.family == c.family {
			break
		}
		k.plan = plan{wired: c.wiring, family: c.family, shape: p.shape, affinity: c.affinityPlanOf(p), spread: c.spreadPlanOf(p)}
	}
	k.plan.touch(c.clock)
	return &k.plan
}

// touch says that the plan's tallies are in use.
func (p *plan) touch(clock int64) {
	for _, list := range [][]*tally{p.affinity.wanted, p.affinity.avoided} {
		for _, t := range list {
			t.used = clock
		}
	}
	for _, l := range p.affinity.liked {
		l.tally.used = clock
	}
	for _, list := range [][]constraint{p.spread.hard, p.spread.soft} {
		for i := range list {
			list[i].tally.used = clock
		}
	}
}

// crossOf collects the rules across nodes for a pod. A reason refuses it everywhere.
func (c *Cluster) crossOf(p *Pod) (rules crossRules, no Refusal) {
	filter := func(f func(i int) code) {
		if f != nil {
			rules.filters = append(rules.filters, f)
		}
	}
	if len(p.obj.Spec.Volumes) > 0 {
		fs, no := c.volumeRules(p)
		if no.Reason != "" {
			return rules, no
		}
		rules.filters = append(rules.filters, fs...)
	}
	plan := c.planOf(p)
	filter(plan.spread.filter(c))
	filter(plan.affinity.filter(c))
	if len(p.obj.Spec.ResourceClaims) > 0 || c.written[p.obj.UID] != nil {
		f, no := c.claimRules(p)
		if no.Reason != "" {
			return rules, no
		}
		filter(f)
	}
	if rate := plan.spread.score(c); rate != nil {
		rules.scores = append(rules.scores, crossScore{PodTopologySpread, p.profile.Weights[PodTopologySpread], rate})
	}
	if rate := plan.affinity.score(); rate != nil {
		rules.scores = append(rules.scores, crossScore{InterPodAffinity, p.profile.Weights[InterPodAffinity], rate})
	}
	return rules, Refusal{}
}

func pass(filters []func(i int) code, i int) code {
	for _, f := range filters {
		if no := f(i); no != 0 {
			return no
		}
	}
	return 0
}

// Decide chooses the feasible node with the best score; of equals the one that has been there longest.
func (c *Cluster) Decide(p *Pod) Decision { return c.DecideWith(p, Outside{}) }

// DecideWith is Decide with an extender's opinions. An error is the extender's.
func (c *Cluster) DecideWith(p *Pod, out Outside) Decision {
	c.clock++
	d := Decision{Nodes: c.ready, cluster: c}
	rules, no := c.crossOf(p)
	if no.Reason != "" {
		d.Reason, d.Plugin, d.Early = no.Reason, no.Plugin, no == c.tooEarly(p)
		return d
	}
	if len(c.waiting) > 0 {
		rules.filters = append(rules.filters, c.crowd(p))
	}
	if n := c.nominatedNode(p); n != nil && out.Filter == nil && c.refuse(p, n, p.obj.UID) == 0 && pass(rules.filters, n.index) == 0 {
		return c.choose(p, n, d) // others made room for it there
	}
	var best *node
	if p.pinned != nil {
		best = c.bestPinned(p, rules, out, &d)
	} else {
		p.shape.update(c)
		best = c.best(p, rules, out, &d)
	}
	if best == nil {
		return d
	}
	return c.choose(p, best, d)
}

// choose settles what the pod takes with it on the node.
func (c *Cluster) choose(p *Pod, n *node, d Decision) Decision {
	d.Node, d.codes, d.counts = n.name, nil, nil
	if len(p.obj.Spec.Volumes) > 0 {
		d.volumes = c.volumeChoices(p, n)
	}
	if len(p.obj.Spec.ResourceClaims) > 0 || len(p.asked.extended) > 0 {
		d.devices = c.deviceChoices(p, n)
	}
	return d
}

func (c *Cluster) nominatedNode(p *Pod) *node {
	if len(c.nominated) == 0 {
		return nil
	}
	if n := c.byName[c.nominated[p.obj.UID].node]; n != nil && n.obj != nil {
		return n
	}
	return nil
}

func (c *Cluster) best(p *Pod, rules crossRules, out Outside, d *Decision) *node {
	s := p.shape
	even := len(rules.scores) == 0 && out.Filter == nil && out.Score == nil
	for _, n := range s.uneven {
		even = even && n == 0
	}
	if even {
		at, top := -1, int64(infeasible)
		for i, score := range s.scores {
			if score > top && (len(rules.filters) == 0 || pass(rules.filters, i) == 0) {
				at, top = i, score
			}
		}
		if at >= 0 {
			return c.nodes[at]
		}
		c.explainRefusal(s, rules.filters, d)
		return nil
	}
	candidates := c.candidates[:0]
	for i, no := range s.codes {
		if no == 0 && (len(rules.filters) == 0 || pass(rules.filters, i) == 0) {
			candidates = append(candidates, int32(i))
		}
	}
	c.candidates = candidates
	candidates = c.ask(candidates, out, d)
	if len(candidates) == 0 {
		c.explainRefusal(s, rules.filters, d)
		return nil
	}
	totals := grown(&c.totals, len(candidates))
	for k, i := range candidates {
		totals[k] = s.scores[i]
	}
	raw := grown(&c.raw, len(candidates))
	for k, r := range s.raws {
		if s.uneven[k] == 0 {
			continue // the same for all
		}
		for j, i := range candidates {
			raw[j] = s.raw[k][i]
		}
		r.normalize(raw)
		addWeighted(totals, raw, p.profile.Weights[r.plugin])
	}
	for _, r := range rules.scores {
		r.rate(candidates, raw)
		addWeighted(totals, raw, r.weight)
	}
	c.addOutside(candidates, totals, out)
	return c.nodes[candidates[highest(totals)]]
}

func addWeighted(totals, raw []int64, weight int64) {
	for k := range totals {
		totals[k] += weight * raw[k]
	}
}

func highest(totals []int64) int {
	best := 0
	for k := range totals {
		if totals[k] > totals[best] {
			best = k
		}
	}
	return best
}

// grown is a slice of n elements in the place of an older one.
func grown[T any](s *[]T, n int) []T {
	if cap(*s) < n {
		*s = make([]T, n+n/4)
	}
	return (*s)[:n]
}

// ask lets an extender take candidates away.
func (c *Cluster) ask(candidates []int32, out Outside, d *Decision) []int32 {
	if out.Filter == nil || len(candidates) == 0 {
		return candidates
	}
	refused, err := out.Filter(c.names(candidates))
	if err != nil {
		d.Reason, d.Plugin = err.Error(), "extender"
		return nil
	}
	d.outside = refused
	return slices.DeleteFunc(candidates, func(i int32) bool { _, no := refused[c.nodes[i].name]; return no })
}

func (c *Cluster) addOutside(candidates []int32, totals []int64, out Outside) {
	if out.Score == nil {
		return
	}
	extra := out.Score(c.names(candidates))
	for k, i := range candidates {
		totals[k] += extra[c.nodes[i].name]
	}
}

func (c *Cluster) names(candidates []int32) []string {
	names := make([]string, len(candidates))
	for k, i := range candidates {
		names[k] = c.nodes[i].name
	}
	return names
}

// bestPinned looks only at the nodes that the pod names itself.
func (c *Cluster) bestPinned(p *Pod, rules crossRules, out Outside, d *Decision) *node {
	d.codes = make([]code, len(c.nodes))
	elsewhere := c.of(Refusal{NodeAffinity, "node(s) didn't satisfy plugin(s) [NodeAffinity]", true})
	for i, n := range c.nodes {
		if d.codes[i] = elsewhere; n == nil || n.obj == nil {
			d.codes[i] = absent
		}
	}
	var candidates []int32
	for _, name := range p.pinned {
		n := c.byName[name]
		if n == nil || n.obj == nil {
			continue
		}
		if d.codes[n.index] = c.refuse(p, n, p.obj.UID); d.codes[n.index] == 0 {
			d.codes[n.index] = pass(rules.filters, n.index)
		}
		if d.codes[n.index] == 0 {
			candidates = append(candidates, int32(n.index))
		}
	}
	candidates = c.ask(candidates, out, d)
	if len(candidates) == 0 {
		d.count()
		return nil
	}
	totals := make([]int64, len(candidates))
	for _, part := range c.parts(p, rules, candidates) {
		addWeighted(totals, part.scores, part.weight)
	}
	c.addOutside(candidates, totals, out)
	return c.nodes[candidates[highest(totals)]]
}

// part is one rule's share of the candidates' scores.
type part struct {
	plugin string
	weight int64
	scores []int64 // by candidate, normalized
}

// parts rates candidates anew, rule by rule.
func (c *Cluster) parts(p *Pod, rules crossRules, candidates []int32) []part {
	s, weights := p.shape, p.profile.Weights
	var out []part
	add := func(plugin string, rate func(n *node) int64, normalize func([]int64)) {
		if weights[plugin] == 0 {
			return
		}
		one := part{plugin, weights[plugin], make([]int64, len(candidates))}
		for k, i := range candidates {
			one.scores[k] = rate(c.nodes[i])
		}
		if normalize != nil && len(candidates) > 0 {
			normalize(one.scores)
		}
		out = append(out, one)
	}
	for _, r := range s.raws {
		add(r.plugin, r.rate, r.normalize)
	}
	add(NodeResourcesFit, func(n *node) int64 { return p.profile.Fit.scoreOf(s.sample, n) }, nil)
	for _, r := range rules.scores {
		one := part{r.plugin, r.weight, make([]int64, len(candidates))}
		if len(candidates) > 0 {
			r.rate(candidates, one.scores)
		}
		out = append(out, one)
	}
	add(BalancedAllocation, func(n *node) int64 { return balanceScore(p.profile.Balanced, s.sample, n) }, nil)
	add(ImageLocality, func(n *node) int64 { return c.imageScore(s.images, s.containers, n) }, nil)
	return out
}

// Forget drops what is remembered about a pod that is gone or no longer this scheduler's.
func (c *Cluster) Forget(uid types.UID) {
	c.unnominate(uid)
	delete(c.departing, uid)
}

// Accepts reports whether the rules about single nodes let a pod onto a node.
func (c *Cluster) Accepts(p *Pod, name string) bool {
	n := c.byName[name]
	return n != nil && n.obj != nil && c.refuse(p, n, p.obj.UID) == 0
}

// Attracts reports whether one of a pod's required affinity terms is about another pod.
func (c *Cluster) Attracts(p *Pod, other *corev1.Pod) bool {
	k := &kin{namespace: other.Namespace, labels: other.Labels}
	return slices.ContainsFunc(p.kin.terms.required, func(t *term) bool { return t.matches(k, c) })
}
