package core

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// requirement is one expression of a node selector over a column. Which values satisfy it is worked out once for each
// value, not for each node.
type requirement struct {
	col     *column
	accepts func(value string) bool
	missing bool // whether nodes without the label satisfy it
	known   []bool
	one     string // the only value that satisfies it, if single
	id      int32  // of that value, once there is a node that has it
	single  bool
}

func (r *requirement) match(i int) bool {
	id := r.col.byNode[i]
	if id == none {
		return r.missing
	}
	if r.single {
		if r.id == none {
			if at, ok := r.col.ids[r.one]; ok {
				r.id = at
			}
		}
		return r.id == id
	}
	for int(id) >= len(r.known) {
		r.known = append(r.known, r.accepts(r.col.values[len(r.known)]))
	}
	return r.known[id]
}

// nodeTerm is expressions that must all hold. The zero value, and an invalid one, match nothing.
type nodeTerm struct {
	valid bool
	all   []requirement
}

func (t *nodeTerm) match(i int) bool {
	for k := range t.all {
		if !t.all[k].match(i) {
			return false
		}
	}
	return t.valid
}

// nodeSelector matches a node by index: one of the terms, if there are any, and all of the labels. Nil matches all.
type nodeSelector struct {
	labels nodeTerm
	terms  []nodeTerm
	either bool // terms count
}

func (s *nodeSelector) match(i int) bool {
	if s == nil {
		return true
	}
	if !s.labels.match(i) {
		return false
	}
	if !s.either {
		return true
	}
	for k := range s.terms {
		if s.terms[k].match(i) {
			return true
		}
	}
	return false
}

// selectorOf compiles a node selector; nil is nil.
func (c *Cluster) selectorOf(s *corev1.NodeSelector) *nodeSelector {
	if s == nil {
		return nil
	}
	out := &nodeSelector{labels: nodeTerm{valid: true}, either: true}
	for i := range s.NodeSelectorTerms {
		out.terms = append(out.terms, c.termOf(&s.NodeSelectorTerms[i]))
	}
	return out
}

// requiredSelector compiles what a pod demands of its node's labels: nil if nothing.
func (c *Cluster) requiredSelector(p *corev1.PodSpec) *nodeSelector {
	var required *corev1.NodeSelector
	if p.Affinity != nil && p.Affinity.NodeAffinity != nil {
		required = p.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	if required == nil && len(p.NodeSelector) == 0 {
		return nil
	}
	out := c.selectorOf(required)
	if out == nil {
		out = &nodeSelector{labels: nodeTerm{valid: true}}
	}
	for key, value := range p.NodeSelector {
		out.labels.all = append(out.labels.all, requirement{col: c.column(key), single: true, one: value, id: none})
	}
	return out
}

func (c *Cluster) termOf(t *corev1.NodeSelectorTerm) nodeTerm {
	out := nodeTerm{valid: len(t.MatchExpressions)+len(t.MatchFields) > 0}
	for i := range t.MatchExpressions {
		e := &t.MatchExpressions[i]
		r, ok := c.requirementOf(e.Key, e)
		out.valid = out.valid && ok
		out.all = append(out.all, r)
	}
	for i := range t.MatchFields {
		e := &t.MatchFields[i]
		r, ok := c.requirementOf(nameColumn, e)
		ok = ok && e.Key == "metadata.name" && len(e.Values) == 1 && (e.Operator == corev1.NodeSelectorOpIn || e.Operator == corev1.NodeSelectorOpNotIn)
		out.valid = out.valid && ok
		out.all = append(out.all, r)
	}
	return out
}

func (c *Cluster) requirementOf(key string, e *corev1.NodeSelectorRequirement) (requirement, bool) {
	r := requirement{col: c.column(key), accepts: func(string) bool { return false }}
	values := e.Values
	switch e.Operator {
	case corev1.NodeSelectorOpIn:
		if len(values) == 1 {
			r.single, r.one, r.id = true, values[0], none
		}
		r.accepts = func(v string) bool { return slices.Contains(values, v) }
		return r, len(values) > 0
	case corev1.NodeSelectorOpNotIn:
		r.accepts, r.missing = func(v string) bool { return !slices.Contains(values, v) }, true
		return r, len(values) > 0
	case corev1.NodeSelectorOpExists:
		r.accepts = func(string) bool { return true }
		return r, len(values) == 0
	case corev1.NodeSelectorOpDoesNotExist:
		r.missing = true
		return r, len(values) == 0
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(values) != 1 {
			return r, false
		}
		limit, err := strconv.ParseInt(values[0], 10, 64)
		more := e.Operator == corev1.NodeSelectorOpGt
		r.accepts = func(v string) bool {
			n, err := strconv.ParseInt(v, 10, 64)
			return err == nil && (more && n > limit || !more && n < limit)
		}
		return r, err == nil
	}
	return r, false
}

// pinned are the nodes that a pod names itself in every term of its node affinity, as a daemon set's pods do. ok is false
// for a pod that may go elsewhere.
func pinned(p *corev1.PodSpec) (names []string, ok bool) {
	if p.Affinity == nil || p.Affinity.NodeAffinity == nil || p.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil, false
	}
	terms := p.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	for i := range terms {
		here := len(names)
		for _, f := range terms[i].MatchFields {
			if f.Key == "metadata.name" && f.Operator == corev1.NodeSelectorOpIn {
				names = append(names, f.Values...)
			}
		}
		if len(names) == here {
			return nil, false
		}
	}
	slices.Sort(names)
	return slices.Compact(names), len(terms) > 0
}
