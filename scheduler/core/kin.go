package core

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// kin is all pods that rules about other pods treat alike: of one namespace, with the same labels, terms, spread
// constraints and controller.
type kin struct {
	key       string
	namespace string
	labels    labels.Set
	owner     *metav1.OwnerReference // the controller
	ending    bool                   // is being deleted
	terms     podTerms
	spread    []corev1.TopologySpreadConstraint
	members   int  // bound pods
	owning    bool // its terms are known to the cluster

	adds   []contribution
	wired  int // the cluster's wiring that adds is from
	facing []*ownedTerm
	faced  int // the same for facing
	plan   plan
}

func kinKey(p *corev1.Pod, owner *metav1.OwnerReference) string {
	var b strings.Builder
	b.WriteString(p.Namespace)
	if p.DeletionTimestamp != nil {
		b.WriteString("|ending")
	}
	if owner != nil {
		b.WriteString("|" + owner.Kind + "/" + owner.Name)
	}
	b.WriteByte('|')
	switch len(p.Labels) {
	case 0:
	case 1:
		for k, v := range p.Labels {
			b.WriteString(k + "=" + v)
		}
	default:
		var space [8]string
		keys := space[:0]
		for k := range p.Labels {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			b.WriteString(k + "=" + p.Labels[k] + ",")
		}
	}
	if len(p.Spec.TopologySpreadConstraints) > 0 || p.Spec.Affinity != nil && (p.Spec.Affinity.PodAffinity != nil || p.Spec.Affinity.PodAntiAffinity != nil) {
		rest := corev1.PodSpec{TopologySpreadConstraints: p.Spec.TopologySpreadConstraints}
		if a := p.Spec.Affinity; a != nil {
			rest.Affinity = &corev1.Affinity{PodAffinity: a.PodAffinity, PodAntiAffinity: a.PodAntiAffinity}
		}
		bytes, err := rest.Marshal()
		if err != nil { // it came decoded, so it can be encoded; if not, it is kin to none
			b.WriteString("|" + string(p.UID))
		}
		b.WriteByte('|')
		b.Write(bytes)
	}
	return b.String()
}

// kinOf finds the kin of a pod; one without bound pods is made for the asking, and not kept.
func (c *Cluster) kinOf(p *corev1.Pod) *kin {
	owner := metav1.GetControllerOfNoCopy(p)
	key := kinKey(p, owner)
	if k, ok := c.kins[key]; ok {
		return k
	}
	return &kin{key: key, namespace: p.Namespace, labels: p.Labels, owner: owner, ending: p.DeletionTimestamp != nil,
		terms: termsOf(p), spread: p.Spec.TopologySpreadConstraints, wired: -1, faced: -1, plan: plan{wired: -1}}
}

// join counts a pod as a member of its kin, and leave takes it off again.
func (c *Cluster) join(p *Pod) {
	if known, ok := c.kins[p.kin.key]; ok {
		p.kin = known
	} else {
		c.kins[p.kin.key] = p.kin
	}
	p.kin.members++
	if !p.kin.owning {
		c.own(p.kin)
	}
}

func (c *Cluster) leave(p *Pod) {
	k := p.kin
	if k.members--; k.members == 0 && !c.trial {
		delete(c.kins, k.key)
		c.disown(k)
	}
}

// contributions are the tallies that a pod of a kin adds to.
func (c *Cluster) contributions(k *kin) []contribution {
	if k.wired == c.wiring {
		return k.adds
	}
	k.adds, k.wired = k.adds[:0], c.wiring
	for _, t := range c.tallies {
		if n := t.counts(k); n != 0 {
			k.adds = append(k.adds, contribution{t, n})
		}
	}
	for key, n := range k.terms.owned {
		if o := c.owned[key]; o != nil {
			k.adds = append(k.adds, contribution{o.tally, n})
		}
	}
	return k.adds
}

// ownedTerm is a term that bound pods have about others, with where they are.
type ownedTerm struct {
	term  *term
	kind  termKind
	tally *tally
	kins  int // with members
}

// own makes a kin's terms known, so that pods that they are about feel them.
func (c *Cluster) own(k *kin) {
	k.owning = true
	for _, t := range k.terms.all() {
		key := t.ownerKey()
		o, ok := c.owned[key]
		if !ok {
			o = &ownedTerm{term: t, kind: t.kind}
			o.tally = &tally{col: c.column(t.topologyKey), byNode: map[int]int64{}, counts: func(k *kin) int64 { return k.terms.owned[key] }}
			c.owned[key] = o
			c.wiring++
		}
		o.kins++
	}
}

func (c *Cluster) disown(k *kin) {
	k.owning = false
	for _, t := range k.terms.all() {
		key := t.ownerKey()
		if o := c.owned[key]; o != nil {
			if o.kins--; o.kins == 0 {
				delete(c.owned, key)
				c.wiring++
			}
		}
	}
}

// faces are the terms of bound pods that are about a kin.
func (c *Cluster) faces(k *kin) []*ownedTerm {
	if k.faced == c.wiring {
		return k.facing
	}
	k.facing, k.faced = k.facing[:0], c.wiring
	for _, key := range slices.Sorted(maps.Keys(c.owned)) {
		if o := c.owned[key]; o.term.matches(k, c) {
			k.facing = append(k.facing, o)
		}
	}
	return k.facing
}
