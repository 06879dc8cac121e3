package autoscaling

import (
	"fmt"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

func minPods(x *autoscalingv2.HorizontalPodAutoscaler) any {
	if x.Spec.MinReplicas == nil {
		return "<unset>"
	}
	return fmt.Sprint(*x.Spec.MinReplicas)
}

// targetsText shows the first two metrics: now/wanted.
func targetsText(x *autoscalingv2.HorizontalPodAutoscaler) string {
	var list []string
	for i, m := range x.Spec.Metrics {
		var now *autoscalingv2.MetricValueStatus
		if i < len(x.Status.CurrentMetrics) {
			now = valueOf(x.Status.CurrentMetrics[i])
		}
		list = append(list, targetText(m, now))
	}
	switch {
	case len(list) == 0:
		return "<none>"
	case len(list) > 2:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:2], ", "), len(list)-2)
	}
	return strings.Join(list, ", ")
}

func valueOf(s autoscalingv2.MetricStatus) *autoscalingv2.MetricValueStatus {
	switch {
	case s.Resource != nil:
		return &s.Resource.Current
	case s.ContainerResource != nil:
		return &s.ContainerResource.Current
	case s.Pods != nil:
		return &s.Pods.Current
	case s.Object != nil:
		return &s.Object.Current
	case s.External != nil:
		return &s.External.Current
	}
	return nil
}

func targetText(m autoscalingv2.MetricSpec, now *autoscalingv2.MetricValueStatus) string {
	var t autoscalingv2.MetricTarget
	label := ""
	switch {
	case m.Resource != nil:
		t, label = m.Resource.Target, string(m.Resource.Name)+": "
	case m.ContainerResource != nil:
		t, label = m.ContainerResource.Target, string(m.ContainerResource.Name)+": "
	case m.Pods != nil:
		t = m.Pods.Target
	case m.Object != nil:
		t = m.Object.Target
	case m.External != nil:
		t = m.External.Target
	default:
		return "<unknown type>"
	}
	if now == nil {
		now = &autoscalingv2.MetricValueStatus{}
	}
	switch {
	case t.AverageValue != nil:
		return label + quantityText(now.AverageValue) + "/" + t.AverageValue.String() + average(m)
	case t.AverageUtilization != nil:
		have := "<unknown>"
		if now.AverageUtilization != nil {
			have = fmt.Sprintf("%d%%", *now.AverageUtilization)
		}
		return fmt.Sprintf("%s%s/%d%%", label, have, *t.AverageUtilization)
	case t.Value != nil:
		return label + quantityText(now.Value) + "/" + t.Value.String()
	}
	return label + "<unknown>/<auto>"
}

func average(m autoscalingv2.MetricSpec) string {
	if m.External != nil || m.Object != nil {
		return " (avg)"
	}
	return ""
}

func quantityText(q *resource.Quantity) string {
	if q == nil {
		return "<unknown>"
	}
	return q.String()
}
