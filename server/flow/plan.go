package flow

import (
	"cmp"
	"slices"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	upstream "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"
)

// levelSpec is what a PriorityLevelConfiguration says.
type levelSpec struct {
	name   string
	uid    []string // as a header's values
	exempt bool
	shares int
	// lendable is the percentage of the nominal seats that others may use, borrowing the most that may be borrowed, in
	// percent of the nominal seats; negative is as many as there are.
	lendable, borrowing int
	// queues is 0 for a level that turns away what finds no seat; a flow has a hand of them, each of at most length.
	queues, hand, length int
}

// schemaSpec is what a FlowSchema says, ready to be matched.
type schemaSpec struct {
	name  string
	uid   []string
	level string
	rules []rule
	by    flowcontrolv1.FlowDistinguisherMethodType // "" is all the same flow
}

// read is everything that the objects say.
type read struct {
	levels  []levelSpec
	schemas []schemaSpec // in the order in which they are tried
	// dangling are the schemas' names whose level is missing or broken; false for the others.
	dangling map[string]bool
}

// digest reads the objects. A broken level is as good as none, and a schema without a level matches nothing. The mandatory
// objects are there even when nobody has stored them yet.
func digest(levels []*flowcontrolv1.PriorityLevelConfiguration, schemas []*flowcontrolv1.FlowSchema) read {
	out := read{dangling: map[string]bool{}}
	known := map[string]bool{}
	add := func(o *flowcontrolv1.PriorityLevelConfiguration) {
		if s, ok := readLevel(o); ok && !known[s.name] {
			known[s.name] = true
			out.levels = append(out.levels, s)
		}
	}
	for _, o := range levels {
		add(o)
	}
	for _, o := range upstream.MandatoryPriorityLevelConfigurations {
		add(o)
	}
	sorted := slices.Clone(schemas)
	slices.SortFunc(sorted, func(a, b *flowcontrolv1.FlowSchema) int {
		return cmp.Or(cmp.Compare(a.Spec.MatchingPrecedence, b.Spec.MatchingPrecedence), cmp.Compare(a.Name, b.Name))
	})
	mandatory := map[string]bool{}
	for _, o := range sorted {
		out.dangling[o.Name] = !known[o.Spec.PriorityLevelConfiguration.Name]
		if !out.dangling[o.Name] {
			out.schemas = append(out.schemas, readSchema(o))
			mandatory[o.Name] = true
		}
	}
	if o := upstream.MandatoryFlowSchemaExempt; !mandatory[o.Name] {
		out.schemas = slices.Insert(out.schemas, 0, readSchema(o))
	}
	if o := upstream.MandatoryFlowSchemaCatchAll; !mandatory[o.Name] {
		out.schemas = append(out.schemas, readSchema(o))
	}
	return out
}

func readLevel(o *flowcontrolv1.PriorityLevelConfiguration) (levelSpec, bool) {
	s := levelSpec{name: o.Name, uid: []string{string(o.UID)}, borrowing: -1}
	exempt := o.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt
	switch o.Spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		e := o.Spec.Exempt
		if !exempt || o.Spec.Limited != nil {
			return s, false
		}
		s.exempt = true
		if e != nil {
			s.shares, s.lendable = value(e.NominalConcurrencyShares, 0), value(e.LendablePercent, 0)
		}
		return s, true
	case flowcontrolv1.PriorityLevelEnablementLimited:
		l := o.Spec.Limited
		if exempt || l == nil || o.Spec.Exempt != nil {
			return s, false
		}
		s.shares, s.lendable, s.borrowing = value(l.NominalConcurrencyShares, 30), value(l.LendablePercent, 0), value(l.BorrowingLimitPercent, -1)
		q := l.LimitResponse.Queuing
		if (l.LimitResponse.Type == flowcontrolv1.LimitResponseTypeReject) != (q == nil) {
			return s, false
		}
		if q != nil {
			s.queues, s.hand, s.length = int(q.Queues), int(q.HandSize), int(q.QueueLengthLimit)
			if _, err := shufflesharding.NewDealer(s.queues, s.hand); err != nil || s.length < 1 {
				return s, false
			}
		}
		return s, true
	}
	return s, false
}

func value(p *int32, otherwise int) int {
	if p == nil {
		return otherwise
	}
	return int(*p)
}

func readSchema(o *flowcontrolv1.FlowSchema) schemaSpec {
	s := schemaSpec{name: o.Name, uid: []string{string(o.UID)}, level: o.Spec.PriorityLevelConfiguration.Name}
	if m := o.Spec.DistinguisherMethod; m != nil {
		s.by = m.Type
	}
	for i := range o.Spec.Rules {
		s.rules = append(s.rules, readRule(&o.Spec.Rules[i]))
	}
	return s
}
