package scheduler

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// constraint is one topology spread constraint, ready to match.
type constraint struct {
	corev1.TopologySpreadConstraint
	selector labels.Selector
}

// The spread that pods of a service or a controller get when they ask for none, as upstream's system defaults.
var systemDefault = []corev1.TopologySpreadConstraint{
	{TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 3},
	{TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 5},
}

func constraintsOf(p *podState, s *state, when corev1.UnsatisfiableConstraintAction) []constraint {
	var out []constraint
	for _, c := range p.pod.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != when {
			continue
		}
		sel := selectorOf(c.LabelSelector)
		for _, key := range c.MatchLabelKeys {
			if value, ok := p.pod.Labels[key]; ok {
				if r, err := labels.NewRequirement(key, "=", []string{value}); err == nil {
					sel = sel.Add(*r)
				}
			}
		}
		out = append(out, constraint{c, sel})
	}
	if len(p.pod.Spec.TopologySpreadConstraints) == 0 && when == corev1.ScheduleAnyway {
		if sel := s.volumes.siblings(p.pod); sel != nil {
			for _, c := range systemDefault {
				out = append(out, constraint{c, sel})
			}
		}
	}
	return out
}

func (s *state) spreadCounter(namespace string, sel labels.Selector) *counter {
	return s.counterFor("spread|"+namespace+"|"+sel.String(), func(p *corev1.Pod) bool {
		return p.DeletionTimestamp == nil && p.Namespace == namespace && sel.Matches(labels.Set(p.Labels))
	})
}

// eligible says which nodes count for a constraint: those with all of the pod's topology keys that its affinity and,
// if asked for, its tolerations let it onto.
func eligible(p *podState, c *constraint, keys []constraint) func(*nodeState) bool {
	required := nodeaffinity.GetRequiredNodeAffinity(p.pod)
	return func(n *nodeState) bool {
		for i := range keys {
			if _, ok := n.node.Labels[keys[i].TopologyKey]; !ok {
				return false
			}
		}
		if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
			if ok, _ := required.Match(n.node); !ok {
				return false
			}
		}
		if c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
			for i := range n.node.Spec.Taints {
				t := &n.node.Spec.Taints[i]
				if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p.pod.Spec.Tolerations, t) {
					return false
				}
			}
		}
		return true
	}
}

func spreadRule(p *podState, s *state) filter {
	constraints := constraintsOf(p, s, corev1.DoNotSchedule)
	if len(constraints) == 0 {
		return nil
	}
	counts := make([]map[string]int, len(constraints))
	lowest := make([]int, len(constraints))
	for i := range constraints {
		c := &constraints[i]
		counts[i] = s.domains(s.spreadCounter(p.pod.Namespace, c.selector), c.TopologyKey, eligible(p, c, constraints))
		lowest[i] = math.MaxInt
		for _, n := range counts[i] {
			lowest[i] = min(lowest[i], n)
		}
		if c.MinDomains != nil && len(counts[i]) < int(*c.MinDomains) || len(counts[i]) == 0 {
			lowest[i] = 0
		}
	}
	return func(n *nodeState) refusal {
		for i := range constraints {
			c := &constraints[i]
			value, ok := n.node.Labels[c.TopologyKey]
			if !ok {
				return refusal{"node(s) didn't match pod topology spread constraints (missing required label)", true}
			}
			self := 0
			if c.selector.Matches(labels.Set(p.pod.Labels)) {
				self = 1
			}
			if counts[i][value]+self-lowest[i] > int(c.MaxSkew) {
				return refusal{"node(s) didn't match pod topology spread constraints", false}
			}
		}
		return refusal{}
	}
}

// spreadScore counts the pod's like in each node's domains, weighing a topology by its number of domains; fewer is better.
func spreadScore(p *podState, s *state) score {
	constraints := constraintsOf(p, s, corev1.ScheduleAnyway)
	if len(constraints) == 0 {
		return nil
	}
	counts := make([]map[string]int, len(constraints))
	weights := make([]float64, len(constraints))
	for i := range constraints {
		c := &constraints[i]
		// The defaults do not leave out nodes that lack one of the labels.
		var keys []constraint
		if len(p.pod.Spec.TopologySpreadConstraints) > 0 {
			keys = constraints
		}
		counts[i] = s.domains(s.spreadCounter(p.pod.Namespace, c.selector), c.TopologyKey, eligible(p, c, keys))
		weights[i] = math.Log(float64(len(counts[i]) + 2))
	}
	return func(n *nodeState) int64 {
		sum := 0.0
		for i := range constraints {
			if value, ok := n.node.Labels[constraints[i].TopologyKey]; ok {
				sum += float64(counts[i][value])*weights[i] + float64(constraints[i].MaxSkew-1)
			}
		}
		return int64(math.Round(sum))
	}
}
