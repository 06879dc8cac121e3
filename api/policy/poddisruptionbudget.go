package policy

import (
	"github.com/skiff-sh/skiff/api/core"
	policyv1 "k8s.io/api/policy/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var podDisruptionBudget = &api.Kind{
	Group: "policy", Version: "v1", Kind: "PodDisruptionBudget",
	Plural: "poddisruptionbudgets", Singular: "poddisruptionbudget", ShortNames: []string{"pdb"}, Namespaced: true,
	StoragePath: "poddisruptionbudgets",
	New:         api.New[policyv1.PodDisruptionBudget], NewList: api.NewList[policyv1.PodDisruptionBudgetList],
	Validate:       api.Check(validatePodDisruptionBudget),
	ValidateUpdate: api.CheckUpdate(func(x, _ *policyv1.PodDisruptionBudget) field.ErrorList { return validatePodDisruptionBudget(x) }),
	ValidateName:   core.PathSegment,
	ValidateStatus: api.CheckUpdate(validatePodDisruptionBudgetStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Min Available", "string", func(x *policyv1.PodDisruptionBudget) any { return countText(x.Spec.MinAvailable) }),
		api.Col("Max Unavailable", "string", func(x *policyv1.PodDisruptionBudget) any { return countText(x.Spec.MaxUnavailable) }),
		api.Col("Allowed Disruptions", "integer", func(x *policyv1.PodDisruptionBudget) any { return int64(x.Status.DisruptionsAllowed) }),
		api.AgeColumn(),
	},
	HasGeneration: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func validatePodDisruptionBudgetStatus(x, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	path, s := field.NewPath("status"), &x.Status
	errs := metavalidation.ValidateConditions(s.Conditions, path.Child("conditions"))
	return append(errs, core.Counts(path, core.Count{Field: "disruptionsAllowed", N: int64(s.DisruptionsAllowed)},
		core.Count{Field: "currentHealthy", N: int64(s.CurrentHealthy)}, core.Count{Field: "desiredHealthy", N: int64(s.DesiredHealthy)},
		core.Count{Field: "expectedPods", N: int64(s.ExpectedPods)})...)
}

func countText(n *intstr.IntOrString) string {
	if n == nil {
		return "N/A"
	}
	return n.String()
}

func validatePodDisruptionBudget(x *policyv1.PodDisruptionBudget) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if x.Spec.MinAvailable != nil && x.Spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, x.Spec, "minAvailable and maxUnavailable cannot be both set"))
	}
	errs = append(errs, core.CountOrPercent(path.Child("minAvailable"), x.Spec.MinAvailable)...)
	errs = append(errs, core.AtMostAll(path.Child("minAvailable"), x.Spec.MinAvailable)...)
	errs = append(errs, core.CountOrPercent(path.Child("maxUnavailable"), x.Spec.MaxUnavailable)...)
	errs = append(errs, core.AtMostAll(path.Child("maxUnavailable"), x.Spec.MaxUnavailable)...)
	errs = append(errs, core.LabelSelector(path.Child("selector"), x.Spec.Selector)...)
	if p := x.Spec.UnhealthyPodEvictionPolicy; p != nil {
		errs = append(errs, core.Known(path.Child("unhealthyPodEvictionPolicy"), *p, policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}
