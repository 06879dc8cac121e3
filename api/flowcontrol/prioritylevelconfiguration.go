package flowcontrol

import (
	"fmt"
	"math"

	"github.com/skiff-sh/skiff/api/core"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var priorityLevelConfiguration = &api.Kind{
	Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Kind: "PriorityLevelConfiguration",
	Plural: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
	StoragePath: "prioritylevelconfigurations",
	New:         api.New[flowcontrolv1.PriorityLevelConfiguration], NewList: api.NewList[flowcontrolv1.PriorityLevelConfigurationList],
	Validate:       api.Check(validatePriorityLevelConfiguration),
	ValidateStatus: api.CheckUpdate(validateLevelStatus),
	ValidateUpdate: api.CheckUpdate(func(x, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
		return validatePriorityLevelConfiguration(x)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Type", "string", func(x *flowcontrolv1.PriorityLevelConfiguration) any { return string(x.Spec.Type) }),
		api.Col("NominalConcurrencyShares", "string", func(x *flowcontrolv1.PriorityLevelConfiguration) any { return shares(x) }),
		api.Col("Queues", "string", func(x *flowcontrolv1.PriorityLevelConfiguration) any {
			return queuing(x, func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.Queues })
		}),
		api.Col("HandSize", "string", func(x *flowcontrolv1.PriorityLevelConfiguration) any {
			return queuing(x, func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.HandSize })
		}),
		api.Col("QueueLengthLimit", "string", func(x *flowcontrolv1.PriorityLevelConfiguration) any {
			return queuing(x, func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.QueueLengthLimit })
		}),
		api.AgeColumn(),
	},
	Default:       api.Defaults(defaultPriorityLevelConfiguration),
	HasGeneration: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultPriorityLevelConfiguration(x *flowcontrolv1.PriorityLevelConfiguration) {
	if e := x.Spec.Exempt; e != nil {
		api.FillPtr(&e.NominalConcurrencyShares, 0)
		api.FillPtr(&e.LendablePercent, 0)
	}
	if l := x.Spec.Limited; l != nil {
		api.FillPtr(&l.NominalConcurrencyShares, 30)
		api.FillPtr(&l.LendablePercent, 0)
		if q := l.LimitResponse.Queuing; q != nil {
			api.Fill(&q.HandSize, 8)
			api.Fill(&q.Queues, 64)
			api.Fill(&q.QueueLengthLimit, 50)
		}
	}
}

func shares(x *flowcontrolv1.PriorityLevelConfiguration) any {
	if x.Spec.Limited == nil || x.Spec.Limited.NominalConcurrencyShares == nil {
		return "<none>"
	}
	return *x.Spec.Limited.NominalConcurrencyShares
}

func queuing(x *flowcontrolv1.PriorityLevelConfiguration, f func(*flowcontrolv1.QueuingConfiguration) int32) any {
	if x.Spec.Limited == nil || x.Spec.Limited.LimitResponse.Queuing == nil {
		return "<none>"
	}
	return f(x.Spec.Limited.LimitResponse.Queuing)
}

func validatePriorityLevelConfiguration(x *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	path := field.NewPath("spec")
	errs := core.OneOf(path.Child("type"), x.Spec.Type, flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)
	switch x.Spec.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if x.Spec.Limited != nil {
			errs = append(errs, field.Forbidden(path.Child("limited"), "must be nil if the type is not Limited"))
		}
		if e := x.Spec.Exempt; e != nil {
			errs = append(errs, validateShares(path.Child("exempt"), e.NominalConcurrencyShares, e.LendablePercent)...)
		}
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if x.Spec.Exempt != nil {
			errs = append(errs, field.Forbidden(path.Child("exempt"), "must be nil if the type is Limited"))
		}
		if x.Spec.Limited == nil {
			errs = append(errs, field.Required(path.Child("limited"), "must not be empty when type is Limited"))
		} else {
			errs = append(errs, validateLimited(path.Child("limited"), x.Spec.Limited)...)
		}
	}
	return errs
}

// validateShares checks how much of the server's concurrency a level has and how much of it others may borrow.
func validateShares(path *field.Path, shares, lendable *int32) field.ErrorList {
	var errs field.ErrorList
	if shares != nil && *shares < 0 {
		errs = append(errs, field.Invalid(path.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		errs = append(errs, field.Invalid(path.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(path *field.Path, l *flowcontrolv1.LimitedPriorityLevelConfiguration) field.ErrorList {
	errs := validateShares(path, l.NominalConcurrencyShares, l.LendablePercent)
	if b := l.BorrowingLimitPercent; b != nil && *b < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), *b, "if specified, must be a non-negative integer"))
	}
	at, q := path.Child("limitResponse"), l.LimitResponse.Queuing
	errs = append(errs, core.OneOf(at.Child("type"), l.LimitResponse.Type, flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)...)
	switch l.LimitResponse.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if q != nil {
			errs = append(errs, field.Forbidden(at.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited"))
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if q == nil {
			errs = append(errs, field.Required(at.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited"))
		} else {
			errs = append(errs, validateQueuing(at.Child("queuing"), q)...)
		}
	}
	return errs
}

// validateQueuing checks the queues. A hand of them is dealt to each flow from one hash of 60 bits.
func validateQueuing(path *field.Path, q *flowcontrolv1.QueuingConfiguration) field.ErrorList {
	const mostQueues, hashBits = 10 * 1000 * 1000, 60
	var errs field.ErrorList
	if q.QueueLengthLimit <= 0 {
		errs = append(errs, field.Invalid(path.Child("queueLengthLimit"), q.QueueLengthLimit, "must be positive"))
	}
	if q.Queues <= 0 {
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, "must be positive"))
	} else if q.Queues > mostQueues {
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", mostQueues)))
	}
	hand := path.Child("handSize")
	switch {
	case q.HandSize <= 0:
		errs = append(errs, field.Invalid(hand, q.HandSize, "must be positive"))
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	case handBits(q.Queues, q.HandSize) > hashBits:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, hashBits)))
	}
	return errs
}

// handBits is how many bits tell one hand from any other.
func handBits(queues, hand int32) int {
	bits := 0.0
	for i := range hand {
		if bits += math.Log2(float64(queues - i)); bits > 64 {
			break
		}
	}
	return int(math.Ceil(bits))
}

// validateLevelStatus checks that every condition has a type of its own.
func validateLevelStatus(x, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	var errs field.ErrorList
	seen := map[flowcontrolv1.PriorityLevelConfigurationConditionType]bool{}
	for i, c := range x.Status.Conditions {
		at := field.NewPath("status", "conditions").Index(i).Child("type")
		errs = append(errs, core.Required(at, string(c.Type), "")...)
		if seen[c.Type] {
			errs = append(errs, field.Duplicate(at, c.Type))
		}
		seen[c.Type] = true
	}
	return errs
}
