package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

type termKind byte

const (
	required termKind = iota
	requiredAnti
	preferred
	preferredAnti
)

// term is one inter-pod term, ready to match.
type term struct {
	kind        termKind
	topologyKey string
	namespaces  []string        // sorted
	nsSelector  labels.Selector // nil: none
	selector    labels.Selector
	weight      int64  // of preferred terms
	key         string // what it is about
}

// podTerms are the inter-pod terms of a pod.
type podTerms struct {
	required, requiredAnti, preferred, preferredAnti []*term
	owned                                            map[string]int64 // how often each is there, by ownerKey
}

func (t *podTerms) all() []*term {
	return slices.Concat(t.required, t.requiredAnti, t.preferred, t.preferredAnti)
}

func termsOf(p *corev1.Pod) podTerms {
	var t podTerms
	a := p.Spec.Affinity
	if a == nil || a.PodAffinity == nil && a.PodAntiAffinity == nil {
		return t
	}
	if a.PodAffinity != nil {
		t.required = termList(p, required, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.preferred = weightedList(p, preferred, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a.PodAntiAffinity != nil {
		t.requiredAnti = termList(p, requiredAnti, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		t.preferredAnti = weightedList(p, preferredAnti, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	t.owned = map[string]int64{}
	for _, one := range t.all() {
		t.owned[one.ownerKey()]++
	}
	return t
}

func termList(p *corev1.Pod, kind termKind, in []corev1.PodAffinityTerm) []*term {
	var out []*term
	for i := range in {
		out = append(out, newTerm(p, kind, &in[i], 0))
	}
	return out
}

func weightedList(p *corev1.Pod, kind termKind, in []corev1.WeightedPodAffinityTerm) []*term {
	var out []*term
	for i := range in {
		out = append(out, newTerm(p, kind, &in[i].PodAffinityTerm, int64(in[i].Weight)))
	}
	return out
}

// newTerm makes a term ready. The API server has merged matchLabelKeys and mismatchLabelKeys into the selector; where it
// did not (a manifest that was never created), they are merged here.
func newTerm(p *corev1.Pod, kind termKind, in *corev1.PodAffinityTerm, weight int64) *term {
	t := &term{kind: kind, topologyKey: in.TopologyKey, selector: labelSelector(in.LabelSelector), weight: weight,
		namespaces: slices.Sorted(slices.Values(in.Namespaces))}
	if in.LabelSelector != nil {
		t.selector = withKeys(t.selector, p.Labels, in.MatchLabelKeys, "in")
		t.selector = withKeys(t.selector, p.Labels, in.MismatchLabelKeys, "notin")
	}
	nsKey := "-"
	if in.NamespaceSelector != nil {
		t.nsSelector = labelSelector(in.NamespaceSelector)
		nsKey = t.nsSelector.String()
	} else if len(t.namespaces) == 0 {
		t.namespaces = []string{p.Namespace}
	}
	t.key = fmt.Sprintf("%s|%s|%s", strings.Join(t.namespaces, ","), nsKey, t.selector)
	return t
}

func (t *term) ownerKey() string {
	return fmt.Sprintf("%d|%s|%d|%s", t.kind, t.topologyKey, t.weight, t.key)
}

// matches reports whether the term is about pods of a kin.
func (t *term) matches(k *kin, c *Cluster) bool {
	if !slices.Contains(t.namespaces, k.namespace) && (t.nsSelector == nil || !t.nsSelector.Matches(labels.Set(c.namespaces[k.namespace]))) {
		return false
	}
	return t.selector.Matches(k.labels)
}

// labelSelector is a selector ready to match; one that is invalid or missing matches nothing.
func labelSelector(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

// withKeys demands of a selector that labels have the value that the pod has, or have not.
func withKeys(sel labels.Selector, own map[string]string, keys []string, op string) labels.Selector {
	for _, key := range keys {
		value, ok := own[key]
		if !ok {
			continue
		}
		operator := metav1.LabelSelectorOpIn
		if op == "notin" {
			operator = metav1.LabelSelectorOpNotIn
		}
		more := labelSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: operator, Values: []string{value}}}})
		if !strings.Contains(sel.String(), more.String()) {
			sel = and(sel, more)
		}
	}
	return sel
}

func (c *Cluster) termTally(t *term) *tally {
	return c.tallyFor("term|"+t.topologyKey+"|"+t.key, c.column(t.topologyKey), nil, func(k *kin) int64 {
		if t.matches(k, c) {
			return 1
		}
		return 0
	})
}

// affinityPlan is the tallies behind the inter-pod terms that concern a pod.
type affinityPlan struct {
	wanted   []*tally // of pods that match all required terms, by the topology of each
	selfish  bool     // the pod matches its own required terms: the first of a group may go anywhere
	avoided  []*tally // of pods that required anti-affinity terms match
	shunning []*tally // of pods that will not have it near
	liked    []liking
}

// liking is what a pod in the same domain is worth.
type liking struct {
	tally  *tally
	weight int64
}

func (c *Cluster) affinityPlanOf(p *Pod) affinityPlan {
	var plan affinityPlan
	k, terms := p.kin, &p.kin.terms
	if p.profile.Filters[InterPodAffinity] {
		plan.wanted, plan.selfish = c.wantedTallies(k)
		for _, t := range terms.requiredAnti {
			plan.avoided = append(plan.avoided, c.termTally(t))
		}
		for _, o := range c.faces(k) {
			if o.kind == requiredAnti {
				plan.shunning = append(plan.shunning, o.tally)
			}
		}
	}
	if p.profile.Weights[InterPodAffinity] == 0 {
		return plan
	}
	for _, t := range terms.preferred {
		plan.liked = append(plan.liked, liking{c.termTally(t), t.weight})
	}
	for _, t := range terms.preferredAnti {
		plan.liked = append(plan.liked, liking{c.termTally(t), -t.weight})
	}
	if len(plan.liked) == 0 && p.profile.IgnorePreferredTermsOfExistingPods {
		return plan
	}
	for _, o := range c.faces(k) {
		weight := o.term.weight
		switch o.kind {
		case required:
			weight = p.profile.HardPodAffinityWeight
		case requiredAnti:
			weight = 0
		case preferredAnti:
			weight = -weight
		}
		if weight != 0 {
			plan.liked = append(plan.liked, liking{o.tally, weight})
		}
	}
	return plan
}

func (c *Cluster) wantedTallies(k *kin) (wanted []*tally, selfish bool) {
	terms := k.terms.required
	if len(terms) == 0 {
		return nil, false
	}
	var keys []string
	for _, t := range terms {
		keys = append(keys, t.key)
	}
	all := func(other *kin) int64 {
		for _, t := range terms {
			if !t.matches(other, c) {
				return 0
			}
		}
		return 1
	}
	for _, t := range terms {
		wanted = append(wanted, c.tallyFor("all|"+t.topologyKey+"|"+strings.Join(keys, "|"), c.column(t.topologyKey), nil, all))
	}
	return wanted, all(k) > 0
}

// filter judges nodes by the pods around them; nil if nobody minds.
func (plan *affinityPlan) filter(c *Cluster) func(i int) code {
	wanted, avoided := plan.wanted, plan.avoided
	shunning := make([]*tally, 0, len(plan.shunning))
	for _, t := range plan.shunning {
		if t.sum > 0 {
			shunning = append(shunning, t)
		}
	}
	if len(wanted)+len(avoided)+len(shunning) == 0 {
		return nil
	}
	first := plan.selfish
	for _, t := range wanted {
		first = first && t.sum == 0
	}
	noAffinity := c.of(Refusal{InterPodAffinity, "node(s) didn't match pod affinity rules", true})
	noAnti := c.of(Refusal{InterPodAffinity, "node(s) didn't match pod anti-affinity rules", false})
	noExisting := c.of(Refusal{InterPodAffinity, "node(s) didn't satisfy existing pods anti-affinity rules", false})
	return func(i int) code {
		for _, t := range wanted {
			if id := t.col.byNode[i]; id == none || !first && t.in(id) == 0 {
				return noAffinity
			}
		}
		for _, t := range avoided {
			if t.in(t.col.byNode[i]) > 0 {
				return noAnti
			}
		}
		for _, t := range shunning {
			if t.in(t.col.byNode[i]) > 0 {
				return noExisting
			}
		}
		return 0
	}
}

// score rates nodes by the pods around them; nil if nobody has a preference.
func (plan *affinityPlan) score() func(candidates []int32, out []int64) {
	var liked []liking
	for _, l := range plan.liked {
		if l.tally.sum > 0 {
			liked = append(liked, l)
		}
	}
	if len(liked) == 0 {
		return nil
	}
	return func(candidates []int32, out []int64) {
		clear(out)
		for _, l := range liked {
			byNode, domains, weight := l.tally.col.byNode, l.tally.domains, l.weight
			for k, i := range candidates {
				if id := byNode[i]; id >= 0 && int(id) < len(domains) {
					out[k] += weight * domains[id]
				}
			}
		}
		spanToHundred(out)
	}
}
