package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// observation is what one visit knows of a workload.
type observation struct {
	namespace        string
	pods             []*corev1.Pod
	selector         labels.Selector
	current, running int32 // replicas as wanted, and as the workload's status has them
	measure          Measurements
	now              time.Time
	tolerance        tolerance
}

// proposal is what one metric asks for.
type proposal struct {
	replicas int32
	name     string
	status   autoscalingv2.MetricStatus
}

// failure is why a metric asks for nothing.
type failure struct {
	reason string
	err    error
}

// propose asks one metric.
func (o *observation) propose(ctx context.Context, m autoscalingv2.MetricSpec) (proposal, *failure) {
	var p proposal
	var err error
	reason := "InvalidMetricSourceType"
	wrap := "%w"
	switch m.Type {
	case autoscalingv2.ObjectMetricSourceType:
		reason, wrap = "FailedGetObjectMetric", "failed to get object metric value: %w"
		p, err = o.object(ctx, m.Object)
	case autoscalingv2.PodsMetricSourceType:
		reason, wrap = "FailedGetPodsMetric", "failed to get pods metric value: %w"
		p, err = o.custom(ctx, m.Pods)
	case autoscalingv2.ResourceMetricSourceType:
		reason, wrap = "FailedGetResourceMetric", fmt.Sprintf("failed to get %s resource metric value: %%w", m.Resource.Name)
		p, err = o.resource(ctx, m.Resource.Name, "", m.Resource.Target)
		p.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: m.Resource.Name, Current: p.current()}
	case autoscalingv2.ContainerResourceMetricSourceType:
		c := m.ContainerResource
		reason, wrap = "FailedGetContainerResourceMetric", fmt.Sprintf("failed to get %s container metric value: %%w", c.Container)
		p, err = o.resource(ctx, c.Name, c.Container, c.Target)
		p.status.ContainerResource = &autoscalingv2.ContainerResourceMetricStatus{Name: c.Name, Container: c.Container, Current: p.current()}
		p.status.Resource = nil
	case autoscalingv2.ExternalMetricSourceType:
		reason, wrap = "FailedGetExternalMetric", fmt.Sprintf("failed to get %s external metric value: %%w", m.External.Metric.Name)
		p, err = o.external(ctx, m.External)
	default:
		err = fmt.Errorf("unknown metric source type %q", string(m.Type))
	}
	if err != nil {
		return proposal{}, &failure{reason, fmt.Errorf(wrap, err)}
	}
	p.status.Type = m.Type
	return p, nil
}

// current is the value that resource left for whichever status it goes into.
func (p *proposal) current() autoscalingv2.MetricValueStatus {
	if p.status.Resource == nil {
		return autoscalingv2.MetricValueStatus{}
	}
	return p.status.Resource.Current
}

// resource asks for the pods' use of processor time, memory or another resource.
func (o *observation) resource(ctx context.Context, name corev1.ResourceName, container string, target autoscalingv2.MetricTarget) (p proposal, err error) {
	if target.AverageValue == nil && target.AverageUtilization == nil {
		return p, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	what := "utilization"
	if target.AverageValue != nil {
		what = "usage"
	}
	samples, err := o.measure.Resource(ctx, name, o.namespace, o.selector, container)
	if err != nil {
		return p, fmt.Errorf("failed to get %s %s: unable to get metrics for resource %s: %w", name, what, name, err)
	}
	s := sortPods(o.pods, samples, name, o.now)
	var value autoscalingv2.MetricValueStatus
	if v := target.AverageValue; v != nil {
		p.name = fmt.Sprintf("%s resource", name)
		value.AverageValue, p.replicas, err = o.mean(s, v.MilliValue())
	} else {
		p.name = fmt.Sprintf("%s resource utilization (percentage of request)", name)
		if container != "" {
			p.name = fmt.Sprintf("%s container resource utilization (percentage of request)", name)
		}
		value, p.replicas, err = o.percent(s, name, container, *target.AverageUtilization)
	}
	if err != nil {
		return proposal{}, fmt.Errorf("failed to get %s %s: %w", name, what, err)
	}
	p.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: name, Current: value}
	return p, nil
}

// percent counts replicas for a mean use in percent of the requests, and tells the use without assumptions.
func (o *observation) percent(s sorted, name corev1.ResourceName, container string, target int32) (v autoscalingv2.MetricValueStatus, n int32, err error) {
	requests, err := requestsOf(o.pods, container, name)
	if err != nil {
		return v, 0, err
	}
	first := true
	n, err = count(o.pods, s, o.current, o.tolerance, func(samples map[string]Sample) (float64, error) {
		ratio, percent, mean, err := utilization(samples, requests, target)
		if first {
			first = false
			v = autoscalingv2.MetricValueStatus{AverageUtilization: &percent, AverageValue: resource.NewMilliQuantity(mean, resource.DecimalSI)}
		}
		return ratio, err
	}, func(pod string) int64 { return requests[pod] * int64(max(100, target)) / 100 })
	return v, n, err
}

// mean counts replicas for a mean value in thousandths, and tells the mean without assumptions.
func (o *observation) mean(s sorted, target int64) (v *resource.Quantity, n int32, err error) {
	n, err = count(o.pods, s, o.current, o.tolerance, func(samples map[string]Sample) (float64, error) {
		ratio, mean := average(samples, target)
		if v == nil {
			v = resource.NewMilliQuantity(mean, resource.DecimalSI)
		}
		return ratio, nil
	}, func(string) int64 { return target })
	return v, n, err
}

func selectorOf(s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return labels.Everything(), nil
	}
	return metav1.LabelSelectorAsSelector(s)
}

// custom asks for a metric of the pods.
func (o *observation) custom(ctx context.Context, m *autoscalingv2.PodsMetricSource) (p proposal, err error) {
	sel, err := selectorOf(m.Metric.Selector)
	if err != nil {
		return p, err
	}
	samples, err := o.measure.Pods(ctx, m.Metric.Name, o.namespace, o.selector, sel)
	if err != nil {
		return p, fmt.Errorf("unable to get metric %s: %w", m.Metric.Name, err)
	}
	if m.Target.AverageValue == nil {
		return p, errors.New("a pods metric needs an average value as its target")
	}
	value, n, err := o.mean(sortPods(o.pods, samples, "", o.now), m.Target.AverageValue.MilliValue())
	if err != nil {
		return p, err
	}
	return proposal{replicas: n, name: "pods metric " + m.Metric.Name, status: autoscalingv2.MetricStatus{Pods: &autoscalingv2.PodsMetricStatus{
		Metric: m.Metric, Current: autoscalingv2.MetricValueStatus{AverageValue: value}}}}, nil
}

// object asks for a metric of one object.
func (o *observation) object(ctx context.Context, m *autoscalingv2.ObjectMetricSource) (p proposal, err error) {
	sel, err := selectorOf(m.Metric.Selector)
	if err != nil {
		return p, err
	}
	on := m.DescribedObject
	value, err := o.measure.Object(ctx, m.Metric.Name, o.namespace, on.APIVersion, on.Kind, on.Name, sel)
	if err != nil {
		return p, fmt.Errorf("unable to get metric %s: %w on %s %s/%s", m.Metric.Name, err, on.Kind, o.namespace, on.Name)
	}
	p.status.Object = &autoscalingv2.ObjectMetricStatus{Metric: m.Metric, DescribedObject: on}
	p.name = fmt.Sprintf("%s metric %s", on.Kind, m.Metric.Name)
	switch {
	case m.Target.Type == autoscalingv2.ValueMetricType && m.Target.Value != nil:
		p.replicas = o.whole(value, m.Target.Value.MilliValue())
		p.status.Object.Current.Value = resource.NewMilliQuantity(value, resource.DecimalSI)
	case m.Target.Type == autoscalingv2.AverageValueMetricType && m.Target.AverageValue != nil:
		var each int64
		p.replicas, each = o.shared(value, m.Target.AverageValue.MilliValue())
		p.name = fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector)
		p.status.Object.Current.AverageValue = resource.NewMilliQuantity(each, resource.DecimalSI)
	default:
		return p, errors.New("invalid object metric source: neither a value target nor an average value target was set")
	}
	return p, nil
}

// external asks for a metric of something outside.
func (o *observation) external(ctx context.Context, m *autoscalingv2.ExternalMetricSource) (p proposal, err error) {
	sel, err := selectorOf(m.Metric.Selector)
	if err != nil {
		return p, err
	}
	values, err := o.measure.External(ctx, m.Metric.Name, o.namespace, sel)
	if err != nil {
		return p, fmt.Errorf("failed to get external metric %s: unable to get external metric %s/%s/%+v: %w", m.Metric.Name, o.namespace, m.Metric.Name, m.Metric.Selector, err)
	}
	var sum int64
	for _, v := range values {
		sum += v
	}
	p.name = fmt.Sprintf("external metric %s(%+v)", m.Metric.Name, m.Metric.Selector)
	p.status.External = &autoscalingv2.ExternalMetricStatus{Metric: m.Metric}
	switch {
	case m.Target.AverageValue != nil:
		var each int64
		p.replicas, each = o.shared(sum, m.Target.AverageValue.MilliValue())
		p.status.External.Current.AverageValue = resource.NewMilliQuantity(each, resource.DecimalSI)
	case m.Target.Value != nil:
		p.replicas = o.whole(sum, m.Target.Value.MilliValue())
		p.status.External.Current.Value = resource.NewMilliQuantity(sum, resource.DecimalSI)
	default:
		return p, errors.New("invalid external metric source: neither a value target nor an average value target was set")
	}
	return p, nil
}

// whole counts replicas for a value that they all work on together.
func (o *observation) whole(value, target int64) int32 {
	ratio := float64(value) / float64(target)
	switch {
	case o.current == 0:
		return toReplicas(ratio)
	case o.tolerance.covers(ratio):
		return o.current
	}
	return toReplicas(ratio * float64(readyPods(o.pods)))
}

// shared counts replicas for a value that is divided among them, and tells each one's share.
func (o *observation) shared(value, target int64) (n int32, each int64) {
	n = o.running
	if n == 0 || !o.tolerance.covers(float64(value)/(float64(target)*float64(n))) {
		n = toReplicas(float64(value) / float64(target))
	}
	if o.running > 0 {
		each = int64(math.Ceil(float64(value) / float64(o.running)))
	}
	return n, each
}

// all asks every metric and takes the largest proposal. A metric that fails keeps the others from shrinking the
// workload; if all fail there is none (-1).
func (o *observation) all(ctx context.Context, specs []autoscalingv2.MetricSpec) (best proposal, statuses []autoscalingv2.MetricStatus, failures []*failure, err error) {
	best.replicas = -1
	statuses = make([]autoscalingv2.MetricStatus, len(specs))
	for i, m := range specs {
		p, f := o.propose(ctx, m)
		if f != nil {
			failures = append(failures, f)
			continue
		}
		statuses[i] = p.status
		if p.replicas > best.replicas {
			best = p
		}
	}
	if len(failures) > 0 {
		err = fmt.Errorf("invalid metrics (%v invalid out of %v), first error is: %v", len(failures), len(specs), failures[0].err)
		if len(failures) == len(specs) || best.replicas < o.current {
			best = proposal{replicas: -1}
		}
	}
	return best, statuses, failures, err
}

// toleranceOf is an autoscaler's tolerance, for each direction its own or the default.
func toleranceOf(b *autoscalingv2.HorizontalPodAutoscalerBehavior) tolerance {
	of := func(r *autoscalingv2.HPAScalingRules) float64 {
		if r == nil || r.Tolerance == nil {
			return defaultTolerance
		}
		return r.Tolerance.AsApproximateFloat64()
	}
	if b == nil {
		return tolerance{defaultTolerance, defaultTolerance}
	}
	return tolerance{down: of(b.ScaleDown), up: of(b.ScaleUp)}
}

func join(names []string) string { return "[" + strings.Join(names, " ") + "]" }
