package scheduling

import (
	"github.com/skiff-sh/skiff/api/core"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var priorityClass = &api.Kind{
	Group: "scheduling.k8s.io", Version: "v1", Kind: "PriorityClass",
	Plural: "priorityclasses", Singular: "priorityclass", ShortNames: []string{"pc"},
	StoragePath: "priorityclasses",
	New:         api.New[schedulingv1.PriorityClass], NewList: api.NewList[schedulingv1.PriorityClassList],
	Validate:       api.Check(validatePriorityClass),
	ValidateUpdate: api.CheckUpdate(validatePriorityClassUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Value", "integer", func(x *schedulingv1.PriorityClass) any { return int64(x.Value) }),
		api.Col("Global-Default", "boolean", func(x *schedulingv1.PriorityClass) any { return x.GlobalDefault }),
		api.AgeColumn(),
		api.Col("PreemptionPolicy", "string", func(x *schedulingv1.PriorityClass) any { return preemption(x) }),
	},
	PrepareCreate:       api.OnCreate(createPriorityClass),
	Default:             api.Defaults(defaultPriorityClass),
	UnconditionalUpdate: true,
}

func defaultPriorityClass(x *schedulingv1.PriorityClass) {
	api.FillPtr(&x.PreemptionPolicy, corev1.PreemptLowerPriority)
}

func createPriorityClass(x *schedulingv1.PriorityClass) {
	x.Generation = 1
}

func preemption(x *schedulingv1.PriorityClass) string {
	if x.PreemptionPolicy == nil {
		return ""
	}
	return string(*x.PreemptionPolicy)
}

func validatePriorityClass(x *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if x.Value > 1000000000 && !strings.HasPrefix(x.Name, "system-") {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "maximum allowed value of a user defined priority is 1000000000"))
	}
	if strings.HasPrefix(x.Name, "system-") && x.Name != SystemClusterCritical && x.Name != SystemNodeCritical {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with 'system-' prefix are reserved for system use only"))
	}
	if p := x.PreemptionPolicy; p != nil {
		at := field.NewPath("preemptionPolicy")
		switch *p {
		case corev1.PreemptLowerPriority, corev1.PreemptNever:
		case "":
			errs = append(errs, field.Required(at, ""))
		default:
			e := field.NotSupported(at, *p, []corev1.PreemptionPolicy{})
			e.Detail = `supported values: "PreemptLowerPriority", "Never"` // in this order, as upstream has it
			errs = append(errs, e)
		}
	}
	return errs
}

func validatePriorityClassUpdate(x, old *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if x.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	if x.PreemptionPolicy != nil && old.PreemptionPolicy != nil && *x.PreemptionPolicy != *old.PreemptionPolicy {
		errs = append(errs, core.Immutable(field.NewPath("preemptionPolicy"), x.PreemptionPolicy, old.PreemptionPolicy)...)
	}
	return errs
}

// The two priority classes that every cluster has.
const (
	SystemClusterCritical = "system-cluster-critical"
	SystemNodeCritical    = "system-node-critical"
)
