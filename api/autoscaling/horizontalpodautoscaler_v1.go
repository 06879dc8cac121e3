package autoscaling

import (
	autoscalingv1 "k8s.io/api/autoscaling/v1"

	"github.com/skiff-sh/skiff/api"
)

var horizontalPodAutoscalerV1 = &api.Kind{
	Group: "autoscaling", Version: "v1", Kind: "HorizontalPodAutoscaler",
	Plural: "horizontalpodautoscalers", Singular: "horizontalpodautoscaler", ShortNames: []string{"hpa"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "horizontalpodautoscalers",
	New:         api.New[autoscalingv1.HorizontalPodAutoscaler], NewList: api.NewList[autoscalingv1.HorizontalPodAutoscalerList],
	Default:             api.Defaults(defaultV1),
	UnconditionalUpdate: true,
	Hub:                 horizontalPodAutoscaler, ToHub: v1ToV2, FromHub: v2ToV1,
	Columns: api.ThroughHub(horizontalPodAutoscaler.Columns, v1ToV2),
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultV1(x *autoscalingv1.HorizontalPodAutoscaler) {
	api.FillPtr(&x.Spec.MinReplicas, 1)
}
