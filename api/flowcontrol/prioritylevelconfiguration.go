package flowcontrol

import (
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
	Validate: api.Check(validatePriorityLevelConfiguration),
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
	var errs field.ErrorList
	errs = append(errs, core.OneOf(field.NewPath("spec", "type"), x.Spec.Type, flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited)...)
	return errs
}
