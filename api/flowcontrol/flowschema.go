package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var flowSchema = &api.Kind{
	Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Kind: "FlowSchema",
	Plural: "flowschemas", Singular: "flowschema",
	StoragePath: "flowschemas",
	New:         api.New[flowcontrolv1.FlowSchema], NewList: api.NewList[flowcontrolv1.FlowSchemaList],
	Validate:       api.Check(validateFlowSchema),
	ValidateUpdate: api.CheckUpdate(func(x, _ *flowcontrolv1.FlowSchema) field.ErrorList { return validateFlowSchema(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("PriorityLevel", "string", func(x *flowcontrolv1.FlowSchema) any { return x.Spec.PriorityLevelConfiguration.Name }),
		api.Col("MatchingPrecedence", "integer", func(x *flowcontrolv1.FlowSchema) any { return int64(x.Spec.MatchingPrecedence) }),
		api.Col("DistinguisherMethod", "string", func(x *flowcontrolv1.FlowSchema) any { return distinguisher(x) }),
		api.AgeColumn(),
		api.Col("MissingPL", "string", func(x *flowcontrolv1.FlowSchema) any { return missingLevel(x) }),
	},
	Default:       api.Defaults(defaultFlowSchema),
	HasGeneration: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultFlowSchema(x *flowcontrolv1.FlowSchema) {
	api.Fill(&x.Spec.MatchingPrecedence, 1000)
}

func distinguisher(x *flowcontrolv1.FlowSchema) string {
	if x.Spec.DistinguisherMethod == nil {
		return "<none>"
	}
	return string(x.Spec.DistinguisherMethod.Type)
}

func missingLevel(x *flowcontrolv1.FlowSchema) string {
	for _, c := range x.Status.Conditions {
		if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
			return string(c.Status)
		}
	}
	return "?"
}
