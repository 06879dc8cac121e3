package scheduler

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// term is one inter-pod term, ready to match.
type term struct {
	topologyKey string
	namespaces  []string        // sorted
	nsSelector  labels.Selector // nil: none
	selector    labels.Selector
	weight      int64 // of preferred terms
	key         string
}

// podTerms are the inter-pod terms of one pod.
type podTerms struct{ required, requiredAnti, preferred, preferredAnti []term }

// hardWeight is what another pod's required affinity counts for in scores.
const hardWeight = 1

func termsOf(p *corev1.Pod) podTerms {
	var t podTerms
	a := p.Spec.Affinity
	if a == nil {
		return t
	}
	if a.PodAffinity != nil {
		t.required = termList(p, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.preferred = weightedList(p, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		t.requiredAnti = termList(p, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.preferredAnti = weightedList(p, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return t
}

func termList(p *corev1.Pod, in []corev1.PodAffinityTerm) []term {
	var out []term
	for i := range in {
		out = append(out, newTerm(p, &in[i], 0))
	}
	return out
}

func weightedList(p *corev1.Pod, in []corev1.WeightedPodAffinityTerm) []term {
	var out []term
	for i := range in {
		out = append(out, newTerm(p, &in[i].PodAffinityTerm, int64(in[i].Weight)))
	}
	return out
}

func newTerm(p *corev1.Pod, in *corev1.PodAffinityTerm, weight int64) term {
	t := term{topologyKey: in.TopologyKey, selector: selectorOf(in.LabelSelector), weight: weight,
		namespaces: slices.Sorted(slices.Values(in.Namespaces))}
	nsKey := "-"
	if in.NamespaceSelector != nil {
		t.nsSelector = selectorOf(in.NamespaceSelector)
		nsKey = t.nsSelector.String()
	} else if len(t.namespaces) == 0 {
		t.namespaces = []string{p.Namespace}
	}
	t.key = fmt.Sprintf("%s|%s|%s", strings.Join(t.namespaces, ","), nsKey, t.selector)
	return t
}

// matches reports whether the term is about the pod.
func (t *term) matches(p *corev1.Pod, s *state) bool {
	if !t.selector.Matches(labels.Set(p.Labels)) {
		return false
	}
	return slices.Contains(t.namespaces, p.Namespace) ||
		t.nsSelector != nil && t.nsSelector.Matches(labels.Set(s.namespaces[p.Namespace]))
}

func (s *state) termCounter(t *term) *counter {
	own := *t
	return s.counterFor("term|"+t.key, func(p *corev1.Pod) bool { return own.matches(p, s) })
}

// pair is one topology domain.
type pair struct{ key, value string }

const (
	affinityReason     = "node(s) didn't match pod affinity rules"
	antiAffinityReason = "node(s) didn't match pod anti-affinity rules"
	existingAntiReason = "node(s) didn't satisfy existing pods anti-affinity rules"
)

func podAffinityRule(p *podState, s *state) filter {
	forbidden := map[pair]bool{} // by the anti-affinity of pods that are there
	for _, other := range s.anti {
		if other.node.node == nil {
			continue
		}
		for i := range other.terms.requiredAnti {
			t := &other.terms.requiredAnti[i]
			if value, ok := other.node.node.Labels[t.topologyKey]; ok && t.matches(p.pod, s) {
				forbidden[pair{t.topologyKey, value}] = true
			}
		}
	}
	if len(forbidden)+len(p.terms.required)+len(p.terms.requiredAnti) == 0 {
		return nil
	}
	wanted, first := s.affinityDomains(p)
	var avoided []map[string]int
	for i := range p.terms.requiredAnti {
		t := &p.terms.requiredAnti[i]
		avoided = append(avoided, s.domains(s.termCounter(t), t.topologyKey, nil))
	}
	return func(n *nodeState) refusal {
		for i := range p.terms.required {
			value, ok := n.node.Labels[p.terms.required[i].topologyKey]
			if !ok || !first && wanted[i][value] == 0 {
				return refusal{affinityReason, true}
			}
		}
		for i := range p.terms.requiredAnti {
			if value, ok := n.node.Labels[p.terms.requiredAnti[i].topologyKey]; ok && avoided[i][value] > 0 {
				return refusal{antiAffinityReason, false}
			}
		}
		for f := range forbidden {
			if value, ok := n.node.Labels[f.key]; ok && value == f.value {
				return refusal{existingAntiReason, false}
			}
		}
		return refusal{}
	}
}

// affinityDomains counts, for each required term's topology, the pods that match all required terms. First says that
// there is none in the whole cluster and that the pod matches its own terms: the first of a group may go anywhere.
func (s *state) affinityDomains(p *podState) (wanted []map[string]int, first bool) {
	if len(p.terms.required) == 0 {
		return nil, false
	}
	terms := p.terms.required
	var keys []string
	for i := range terms {
		keys = append(keys, terms[i].key)
	}
	all := func(pod *corev1.Pod) bool {
		for i := range terms {
			if !terms[i].matches(pod, s) {
				return false
			}
		}
		return true
	}
	c := s.counterFor("all|"+strings.Join(keys, "|"), all)
	for i := range terms {
		wanted = append(wanted, s.domains(c, terms[i].topologyKey, nil))
	}
	return wanted, c.total == 0 && all(p.pod)
}

func podAffinityScore(p *podState, s *state) score {
	if len(p.terms.preferred)+len(p.terms.preferredAnti)+len(s.lean) == 0 {
		return nil
	}
	weights := map[pair]int64{}
	own := func(terms []term, sign int64) {
		for i := range terms {
			t := &terms[i]
			for value, count := range s.domains(s.termCounter(t), t.topologyKey, nil) {
				weights[pair{t.topologyKey, value}] += sign * t.weight * int64(count)
			}
		}
	}
	own(p.terms.preferred, 1)
	own(p.terms.preferredAnti, -1)
	theirs := func(other *podState, terms []term, weight func(*term) int64) {
		for i := range terms {
			t := &terms[i]
			if value, ok := other.node.node.Labels[t.topologyKey]; ok && t.matches(p.pod, s) {
				weights[pair{t.topologyKey, value}] += weight(t)
			}
		}
	}
	for _, other := range s.lean {
		if other.node.node == nil {
			continue
		}
		theirs(other, other.terms.required, func(*term) int64 { return hardWeight })
		theirs(other, other.terms.preferred, func(t *term) int64 { return t.weight })
		theirs(other, other.terms.preferredAnti, func(t *term) int64 { return -t.weight })
	}
	if len(weights) == 0 {
		return nil
	}
	return func(n *nodeState) int64 {
		sum := int64(0)
		for d, w := range weights {
			if n.node.Labels[d.key] == d.value {
				sum += w
			}
		}
		return sum
	}
}
