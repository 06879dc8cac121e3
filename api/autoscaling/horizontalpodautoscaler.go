package autoscaling

import (
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

// defaultUtilization is the processor's, in percent of what pods ask for.
const defaultUtilization = 80

var horizontalPodAutoscaler = &api.Kind{
	Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler",
	Plural: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", ShortNames: []string{"hpa"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "horizontalpodautoscalers",
	New:         api.New[autoscalingv2.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv2.HorizontalPodAutoscalerList],
	Validate: api.Check(validateHorizontalPodAutoscaler),
	ValidateUpdate: api.CheckUpdate(func(x, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
		return validateHorizontalPodAutoscaler(x)
	}),
	ValidateStatus: api.CheckUpdate(func(x, _ *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
		return core.Counts(field.NewPath("status"), core.Count{Field: "currentReplicas", N: int64(x.Status.CurrentReplicas)},
			core.Count{Field: "desiredReplicas", N: int64(x.Status.DesiredReplicas)})
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Reference", "string", func(x *autoscalingv2.HorizontalPodAutoscaler) any {
			return x.Spec.ScaleTargetRef.Kind + "/" + x.Spec.ScaleTargetRef.Name
		}),
		api.Col("Targets", "string", func(x *autoscalingv2.HorizontalPodAutoscaler) any { return targetsText(x) }),
		api.Col("MinPods", "string", func(x *autoscalingv2.HorizontalPodAutoscaler) any { return minPods(x) }),
		api.Col("MaxPods", "string", func(x *autoscalingv2.HorizontalPodAutoscaler) any { return int64(x.Spec.MaxReplicas) }),
		api.Col("Replicas", "string", func(x *autoscalingv2.HorizontalPodAutoscaler) any { return int64(x.Status.CurrentReplicas) }),
		api.AgeColumn(),
	},
	Default:             api.Defaults(defaultHorizontalPodAutoscaler),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultHorizontalPodAutoscaler(x *autoscalingv2.HorizontalPodAutoscaler) {
	api.FillPtr(&x.Spec.MinReplicas, 1)
	if len(x.Spec.Metrics) == 0 {
		x.Spec.Metrics = []autoscalingv2.MetricSpec{cpuMetric(defaultUtilization)}
	}
	if b := x.Spec.Behavior; b != nil {
		b.ScaleUp = defaultRules(b.ScaleUp, autoscalingv2.HPAScalingRules{
			StabilizationWindowSeconds: api.Ptr(int32(0)),
			Policies: []autoscalingv2.HPAScalingPolicy{
				{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
				{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
			},
		})
		b.ScaleDown = defaultRules(b.ScaleDown, autoscalingv2.HPAScalingRules{
			Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}},
		})
	}
}

func defaultRules(r *autoscalingv2.HPAScalingRules, d autoscalingv2.HPAScalingRules) *autoscalingv2.HPAScalingRules {
	if r == nil {
		r = &autoscalingv2.HPAScalingRules{}
	}
	api.FillPtr(&r.SelectPolicy, autoscalingv2.MaxChangePolicySelect)
	if r.StabilizationWindowSeconds == nil {
		r.StabilizationWindowSeconds = d.StabilizationWindowSeconds
	}
	if r.Policies == nil {
		r.Policies = d.Policies
	}
	return r
}
