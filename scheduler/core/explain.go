package core

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Explanation says where a pod can go, and why: what the command line and the web page show.
type Explanation struct {
	Pod string `json:"pod"` // namespace/name
	// Node is where the pod is, or would go; "" if nowhere.
	Node string `json:"node,omitempty"`
	// Bound says that the pod is on Node already; everything else is as if it were to be placed now.
	Bound bool `json:"bound,omitempty"`
	// Message is what the pod's condition would say if no node is feasible.
	Message string `json:"message,omitempty"`
	// Reason refuses the pod wherever it would go.
	Reason string `json:"reason,omitempty"`
	// Victims are the pods (namespace/name) that would be evicted, and Cleared the node that this would clear.
	Victims []string `json:"victims,omitempty"`
	Cleared string   `json:"cleared,omitempty"`
	// Refused are the nodes that cannot take it, those with the same obstacles together, the fewest obstacles first.
	Refused []RefusedNodes `json:"refused,omitempty"`
	// Scores are the nodes that can, the best first.
	Scores []NodeScore `json:"scores,omitempty"`
}

// RefusedNodes are nodes with the same obstacles.
type RefusedNodes struct {
	Nodes     []string   `json:"nodes"`
	Obstacles []Obstacle `json:"obstacles"`
}

// Obstacle is one reason why nodes cannot take a pod, and what would have to change.
type Obstacle struct {
	Plugin string `json:"plugin"`
	Reason string `json:"reason"`
	Change string `json:"change,omitempty"`
	// Lasting says that evicting other pods would not help.
	Lasting bool `json:"lasting,omitempty"`
}

// NodeScore is a feasible node's score: the sum over the rules of score (0 to MaxScore) times weight.
type NodeScore struct {
	Node  string      `json:"node"`
	Total int64       `json:"total"`
	Parts []ScorePart `json:"parts"`
}

// ScorePart is one rule's share.
type ScorePart struct {
	Plugin string `json:"plugin"`
	Score  int64  `json:"score"`
	Weight int64  `json:"weight"`
}

// Explain asks every rule about every node, where Decide stops at the first objection. A bound pod is taken off its node
// meanwhile.
func (c *Cluster) Explain(obj *corev1.Pod, profile *Profile) Explanation {
	out := Explanation{Pod: obj.Namespace + "/" + obj.Name}
	if node := obj.Spec.NodeName; node != "" {
		out.Node, out.Bound = node, true
		if there := c.pods[obj.UID]; there != nil {
			c.lift(obj.UID)
			defer c.settle(there, node)
		}
		obj = obj.DeepCopy()
		obj.Spec.NodeName = ""
	}
	p := c.Pod(obj, profile)
	d := c.Decide(p)
	if !out.Bound {
		out.Node = d.Node
	}
	if d.Node == "" {
		hint := ""
		if profile.Preempt && d.Nodes > 0 {
			hint = d.Hint(p, c.explainPreemption(p, &d, &out))
		}
		out.Message = d.Message(hint)
	}
	rules, no := c.crossOf(p)
	if out.Reason = no.Reason; no.Reason != "" {
		return out
	}
	var candidates []int32
	refused := map[string]*refusedGroup{}
	for i, n := range c.nodes {
		if n == nil || n.obj == nil {
			continue
		}
		codes := c.objections(p, n, rules)
		if len(codes) == 0 {
			candidates = append(candidates, int32(i))
			continue
		}
		key := fmt.Sprint(codes)
		if refused[key] == nil {
			refused[key] = &refusedGroup{codes: codes}
		}
		refused[key].nodes = append(refused[key].nodes, n)
	}
	out.Scores = c.explainScores(p, rules, candidates)
	for _, g := range refused {
		out.Refused = append(out.Refused, c.describe(p, g))
	}
	slices.SortFunc(out.Refused, func(a, b RefusedNodes) int {
		return cmp.Or(cmp.Compare(len(a.Obstacles), len(b.Obstacles)), cmp.Compare(len(b.Nodes), len(a.Nodes)), cmp.Compare(a.Nodes[0], b.Nodes[0]))
	})
	return out
}

func (c *Cluster) explainPreemption(p *Pod, d *Decision, out *Explanation) string {
	if why := c.MayNotPreempt(p); why != "" {
		return why
	}
	s, ok, counts := c.Preempt(p, d, nil)
	if !ok {
		return d.PreemptionMessage(counts)
	}
	out.Cleared = s.Node
	for _, v := range s.Victims {
		out.Victims = append(out.Victims, v.obj.Namespace+"/"+v.obj.Name)
	}
	return ""
}

type refusedGroup struct {
	codes []code
	nodes []*node
}

// objections are all rules' refusals of a node.
func (c *Cluster) objections(p *Pod, n *node, rules crossRules) []code {
	var out []code
	add := func(no code) {
		if no != 0 && !slices.Contains(out, no) {
			out = append(out, no)
		}
	}
	as := n
	if waiting := c.waiting[n.index]; len(waiting) > 0 {
		if with := n.with(waiting, p.priority, p.obj.UID); with != nil {
			as = with
		}
	}
	for _, f := range p.shape.filters {
		add(f(as))
	}
	for _, f := range rules.filters {
		add(f(n.index))
	}
	return out
}

func (c *Cluster) explainScores(p *Pod, rules crossRules, candidates []int32) []NodeScore {
	out := make([]NodeScore, len(candidates))
	for k, i := range candidates {
		out[k].Node = c.nodes[i].name
	}
	for _, part := range c.parts(p, rules, candidates) {
		for k := range out {
			out[k].Total += part.weight * part.scores[k]
			out[k].Parts = append(out[k].Parts, ScorePart{part.plugin, part.scores[k], part.weight})
		}
	}
	slices.SortStableFunc(out, func(a, b NodeScore) int { return cmp.Compare(b.Total, a.Total) })
	return out
}

func (c *Cluster) describe(p *Pod, g *refusedGroup) RefusedNodes {
	var out RefusedNodes
	for _, n := range g.nodes {
		out.Nodes = append(out.Nodes, n.name)
	}
	slices.Sort(out.Nodes)
	for _, no := range g.codes {
		f := c.list[no]
		for _, reason := range f.Reasons() {
			out.Obstacles = append(out.Obstacles, Obstacle{f.Plugin, reason, c.remedy(p, g.nodes, f.Plugin, reason), f.Lasting})
		}
	}
	return out
}

// remedy says what would have to change for the nodes to take the pod; "" if the reason says it all.
func (c *Cluster) remedy(p *Pod, nodes []*node, plugin, reason string) string {
	switch plugin {
	case NodeUnschedulable:
		return "uncordon it: kubectl uncordon " + nodes[0].name
	case NodeName:
		return "spec.nodeName of the pod asks for " + p.obj.Spec.NodeName
	case TaintToleration:
		return c.taintRemedy(p, nodes)
	case NodeAffinity:
		return c.labelRemedy(p, nodes)
	case NodePorts:
		return portRemedy(p, nodes)
	case NodeResourcesFit:
		return fitRemedy(p, nodes, reason)
	case PodTopologySpread:
		return c.spreadRemedy(p, nodes)
	case InterPodAffinity:
		return c.nearRemedy(p, nodes, reason)
	case NodeVolumeLimits:
		return "detach volumes from the node, or raise the limit that its CSI driver reports"
	case VolumeBinding:
		return c.volumeRemedy(p)
	case DynamicResources:
		return "free devices on the node that satisfy the pod's resource claims, or add some"
	}
	return ""
}

func (c *Cluster) taintRemedy(p *Pod, nodes []*node) string {
	seen := map[string]bool{}
	for _, n := range nodes {
		for i := range n.obj.Spec.Taints {
			if t := &n.obj.Spec.Taints[i]; t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p.obj.Spec.Tolerations, t) {
				seen[t.ToString()] = true
			}
		}
	}
	return "tolerate, or remove from the node, " + strings.Join(slices.Sorted(maps.Keys(seen)), ", ")
}

func (c *Cluster) labelRemedy(p *Pod, nodes []*node) string {
	var lacking []string
	for _, key := range slices.Sorted(maps.Keys(p.obj.Spec.NodeSelector)) {
		want := p.obj.Spec.NodeSelector[key]
		if have, ok := nodes[0].obj.Labels[key]; !ok {
			lacking = append(lacking, fmt.Sprintf("%s=%s (it has no %s)", key, want, key))
		} else if have != want {
			lacking = append(lacking, fmt.Sprintf("%s=%s (it has %s)", key, want, have))
		}
	}
	if len(lacking) > 0 {
		return "label the node " + strings.Join(lacking, ", ")
	}
	if names, ok := pinned(&p.obj.Spec); ok {
		return "the pod is for " + strings.Join(names, ", ") + " alone"
	}
	return "change the node's labels, or the pod's required node affinity"
}

func portRemedy(p *Pod, nodes []*node) string {
	for _, other := range nodes[0].pods {
		for _, taken := range other.ports {
			if slices.ContainsFunc(p.ports, taken.conflicts) {
				return fmt.Sprintf("%d/%s is taken on %s by %s/%s", taken.port, taken.protocol, nodes[0].name, other.obj.Namespace, other.obj.Name)
			}
		}
	}
	return ""
}

// fitRemedy names the node of the group that comes nearest.
func fitRemedy(p *Pod, nodes []*node, reason string) string {
	if reason == "Too many pods" {
		return fmt.Sprintf("%s takes %d pods, and has as many", nodes[0].name, nodes[0].has.pods)
	}
	name := corev1.ResourceName(strings.TrimPrefix(reason, "Insufficient "))
	best := slices.MaxFunc(nodes, func(a, b *node) int {
		return cmp.Compare(a.has.of(name)-a.used.of(name), b.has.of(name)-b.used.of(name))
	})
	want, has, free := p.asked.of(name), best.has.of(name), best.has.of(name)-best.used.of(name)
	text := fmt.Sprintf("it asks for %s; %s has %s free of %s", amountText(name, want), best.name, amountText(name, free), amountText(name, has))
	if want > has {
		return text + ", too little even if it were empty"
	}
	return text
}

func amountText(name corev1.ResourceName, n int64) string {
	switch name {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(n, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return resource.NewQuantity(n, resource.BinarySI).String()
	}
	return fmt.Sprint(n)
}

func (c *Cluster) spreadRemedy(p *Pod, nodes []*node) string {
	hard := c.planOf(p).spread.hard
	for k := range hard {
		t := hard[k].tally
		id := t.col.byNode[nodes[0].index]
		if id == none {
			return "label the node with " + t.col.key
		}
		lowest, emptiest := int64(-1), ""
		for d, n := range t.nodes {
			if n > 0 && (lowest < 0 || t.domains[d] < lowest) {
				lowest, emptiest = t.domains[d], t.col.values[d]
			}
		}
		if t.in(id)+hard[k].self-max(lowest, 0) > hard[k].maxSkew {
			return fmt.Sprintf("%s=%s would have %d of the pods, %s has %d; the skew may be %d", t.col.key, t.col.values[id], t.in(id)+hard[k].self, emptiest, max(lowest, 0), hard[k].maxSkew)
		}
	}
	return ""
}

func (c *Cluster) nearRemedy(p *Pod, nodes []*node, reason string) string {
	near := func(t *term, o *Pod) bool {
		col := c.column(t.topologyKey)
		id := col.byNode[nodes[0].index]
		return o.node != nil && id != none && col.byNode[o.node.index] == id
	}
	for _, uid := range slices.Sorted(maps.Keys(c.pods)) {
		o := c.pods[uid]
		for _, t := range p.kin.terms.requiredAnti {
			if strings.Contains(reason, "match pod anti-affinity") && near(t, o) && t.matches(o.kin, c) {
				return fmt.Sprintf("it keeps away from %s/%s, which is in the same %s as %s", o.obj.Namespace, o.obj.Name, t.topologyKey, nodes[0].name)
			}
		}
		for _, t := range o.kin.terms.requiredAnti {
			if strings.Contains(reason, "existing pods") && near(t, o) && t.matches(p.kin, c) {
				return fmt.Sprintf("%s/%s, in the same %s as %s, keeps pods like it away", o.obj.Namespace, o.obj.Name, t.topologyKey, nodes[0].name)
			}
		}
	}
	if len(p.kin.terms.required) > 0 && strings.Contains(reason, "match pod affinity") {
		t := p.kin.terms.required[0]
		return fmt.Sprintf("it wants a pod with %s in the same %s", t.selector, t.topologyKey)
	}
	return ""
}

func (c *Cluster) volumeRemedy(p *Pod) string {
	v, _ := c.volumesOf(p)
	var names []string
	for _, claim := range v.waiting {
		names = append(names, claim.Name)
	}
	for _, volume := range v.bound {
		names = append(names, volume.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return "its volumes: " + strings.Join(names, ", ")
}
