package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var flowSchema = &api.Kind{
	Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Kind: "FlowSchema",
	Plural: "flowschemas", Singular: "flowschema",
	StoragePath: "flowschemas",
	New:         api.New[flowcontrolv1.FlowSchema], NewList: api.NewList[flowcontrolv1.FlowSchemaList],
	Validate:       api.Check(validateFlowSchema),
	ValidateUpdate: api.CheckUpdate(func(x, _ *flowcontrolv1.FlowSchema) field.ErrorList { return validateFlowSchema(x) }),
	ValidateStatus: api.CheckUpdate(func(x, _ *flowcontrolv1.FlowSchema) field.ErrorList {
		var errs field.ErrorList
		seen := map[flowcontrolv1.FlowSchemaConditionType]bool{}
		for i, c := range x.Status.Conditions {
			at := field.NewPath("status", "conditions").Index(i).Child("type")
			if seen[c.Type] {
				errs = append(errs, field.Duplicate(at, c.Type))
			}
			seen[c.Type] = true
			errs = append(errs, core.Required(at, string(c.Type), "")...)
		}
		return errs
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("PriorityLevel", "string", func(x *flowcontrolv1.FlowSchema) any { return x.Spec.PriorityLevelConfiguration.Name }),
		api.Col("MatchingPrecedence", "string", func(x *flowcontrolv1.FlowSchema) any { return int64(x.Spec.MatchingPrecedence) }),
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
