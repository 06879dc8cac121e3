package core

import (
	"strings"
)

// Refusal is why a node was refused; the zero value is none.
type Refusal struct {
	Plugin string // upstream's name of the rule
	Reason string // in upstream's words; several are joined by newlines and counted separately in messages
	// Lasting says that evicting pods from the node would not help.
	Lasting bool
}

// code stands for a Refusal in the arrays over all nodes; 0 is none.
type code uint16

// refusals gives each distinct refusal a code.
type refusals struct {
	list  []Refusal
	codes map[Refusal]code
}

func newRefusals() refusals {
	return refusals{list: []Refusal{{}}, codes: map[Refusal]code{{}: 0}}
}

// of is a refusal's code. There are few distinct ones; should a rule make up too many, the rest share one text for each
// rule.
func (r *refusals) of(f Refusal) code {
	if c, ok := r.codes[f]; ok {
		return c
	}
	if len(r.list) >= 1<<15 {
		f.Reason = "node(s) were refused by " + f.Plugin
		if c, ok := r.codes[f]; ok {
			return c
		}
	}
	c := code(len(r.list))
	r.list = append(r.list, f)
	r.codes[f] = c
	return c
}

// Reasons are the parts of a refusal's text that messages count by themselves.
func (f Refusal) Reasons() []string { return strings.Split(f.Reason, "\n") }
