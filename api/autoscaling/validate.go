package autoscaling

import (
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

const (
	longestWindow = 3600 // seconds
	longestPeriod = 1800 // seconds
)

func validateHorizontalPodAutoscaler(x *autoscalingv2.HorizontalPodAutoscaler) field.ErrorList {
	var errs field.ErrorList
	path, s := field.NewPath("spec"), &x.Spec
	if s.MinReplicas != nil && *s.MinReplicas < 1 {
		errs = append(errs, field.Invalid(path.Child("minReplicas"), *s.MinReplicas, "must be greater than or equal to 1"))
	}
	switch {
	case s.MaxReplicas == 0:
		errs = append(errs, field.Required(path.Child("maxReplicas"), "must be set and greater than 0"))
	case s.MaxReplicas < 1:
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to 1"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(path.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, validateReference(path.Child("scaleTargetRef"), &s.ScaleTargetRef)...)
	if gv, err := schema.ParseGroupVersion(s.ScaleTargetRef.APIVersion); err == nil && gv.Group == "" && s.ScaleTargetRef.Kind != "ReplicationController" {
		errs = append(errs, field.Invalid(path.Child("scaleTargetRef", "apiVersion"), s.ScaleTargetRef.APIVersion, "apiVersion must specify API group"))
	}
	outside := false // some metric does not come from the pods themselves
	for i := range s.Metrics {
		errs = append(errs, validateMetric(path.Child("metrics").Index(i), &s.Metrics[i])...)
		outside = outside || s.Metrics[i].Type == autoscalingv2.ObjectMetricSourceType || s.Metrics[i].Type == autoscalingv2.ExternalMetricSourceType
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && len(s.Metrics) > 0 && !outside {
		errs = append(errs, field.Forbidden(path.Child("metrics"), "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	if b := s.Behavior; b != nil {
		errs = append(errs, validateRules(path.Child("behavior", "scaleUp"), b.ScaleUp)...)
		errs = append(errs, validateRules(path.Child("behavior", "scaleDown"), b.ScaleDown)...)
	}
	return errs
}

// segment checks a name that goes into a path.
func segment(path *field.Path, s, missing string) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, missing)}
	}
	return core.Problems(path, s, core.PathSegment(s, false))
}

func validateReference(path *field.Path, r *autoscalingv2.CrossVersionObjectReference) field.ErrorList {
	errs := segment(path.Child("kind"), r.Kind, "")
	errs = append(errs, segment(path.Child("name"), r.Name, "")...)
	if r.APIVersion != "" {
		if _, err := schema.ParseGroupVersion(r.APIVersion); err != nil {
			errs = append(errs, field.Invalid(path.Child("apiVersion"), r.APIVersion, err.Error()))
		}
	}
	return errs
}

func validateRules(path *field.Path, r *autoscalingv2.HPAScalingRules) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if n := r.StabilizationWindowSeconds; n != nil {
		at := path.Child("stabilizationWindowSeconds")
		if *n < 0 {
			errs = append(errs, field.Invalid(at, *n, "must be greater than or equal to zero"))
		}
		if *n > longestWindow {
			errs = append(errs, field.Invalid(at, *n, "must be less than or equal to 3600"))
		}
	}
	if p := r.SelectPolicy; p != nil {
		errs = append(errs, core.Known(path.Child("selectPolicy"), *p, autoscalingv2.DisabledPolicySelect, autoscalingv2.MaxChangePolicySelect, autoscalingv2.MinChangePolicySelect)...)
	}
	policies := path.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(policies, "must specify at least one Policy"))
	}
	for i, p := range r.Policies {
		at := policies.Index(i)
		errs = append(errs, core.Known(at.Child("type"), p.Type, autoscalingv2.PercentScalingPolicy, autoscalingv2.PodsScalingPolicy)...)
		if p.Value <= 0 {
			errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
		}
		if p.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be greater than zero"))
		}
		if p.PeriodSeconds > longestPeriod {
			errs = append(errs, field.Invalid(at.Child("periodSeconds"), p.PeriodSeconds, "must be less than or equal to 1800"))
		}
	}
	return errs
}

const missingSource = "must populate information for the given metric source"

func validateMetric(path *field.Path, m *autoscalingv2.MetricSpec) field.ErrorList {
	sources := []struct {
		t     autoscalingv2.MetricSourceType
		name  string
		set   bool
		check func(*field.Path) field.ErrorList
	}{
		{autoscalingv2.ObjectMetricSourceType, "object", m.Object != nil, func(at *field.Path) field.ErrorList { return validateObjectMetric(at, m.Object) }},
		{autoscalingv2.ExternalMetricSourceType, "external", m.External != nil, func(at *field.Path) field.ErrorList { return validateExternalMetric(at, m.External) }},
		{autoscalingv2.PodsMetricSourceType, "pods", m.Pods != nil, func(at *field.Path) field.ErrorList { return validatePodsMetric(at, m.Pods) }},
		{autoscalingv2.ResourceMetricSourceType, "resource", m.Resource != nil, func(at *field.Path) field.ErrorList {
			errs := core.Required(at.Child("name"), string(m.Resource.Name), "must specify a resource name")
			return append(errs, validateUtilization(at.Child("target"), &m.Resource.Target)...)
		}},
		{autoscalingv2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(at *field.Path) field.ErrorList { return validateContainerMetric(at, m.ContainerResource) }},
	}
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric source type"))
	}
	known := false
	for _, s := range sources {
		if s.t == m.Type {
			known = true
			if !s.set {
				errs = append(errs, field.Required(path.Child(s.name), missingSource))
			}
		}
	}
	if !known {
		errs = append(errs, core.Known(path.Child("type"), m.Type, autoscalingv2.ContainerResourceMetricSourceType, autoscalingv2.ExternalMetricSourceType,
			autoscalingv2.ObjectMetricSourceType, autoscalingv2.PodsMetricSourceType, autoscalingv2.ResourceMetricSourceType)...)
	}
	for _, s := range sources {
		if !s.set {
			continue
		}
		if known && s.t != m.Type {
			errs = append(errs, field.Forbidden(path.Child(s.name), "must populate the given metric source only"))
		}
		errs = append(errs, s.check(path.Child(s.name))...)
	}
	return errs
}

func validateIdentifier(path *field.Path, m *autoscalingv2.MetricIdentifier) field.ErrorList {
	return segment(path.Child("name"), m.Name, "must specify a metric name") // nobody looks at the selector here
}

func validateTarget(path *field.Path, t *autoscalingv2.MetricTarget) field.ErrorList {
	var errs field.ErrorList
	switch t.Type {
	case autoscalingv2.UtilizationMetricType, autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType:
	case "":
		errs = append(errs, field.Required(path.Child("type"), "must specify a metric target type"))
		fallthrough
	default:
		errs = append(errs, field.Invalid(path.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	if t.AverageUtilization != nil && *t.AverageUtilization < 1 {
		errs = append(errs, field.Invalid(path.Child("averageUtilization"), *t.AverageUtilization, "must be greater than 0"))
	}
	positive := func(name string, q *resource.Quantity) {
		if q != nil && q.Sign() != 1 {
			errs = append(errs, field.Invalid(path.Child(name), q.String(), "must be positive"))
		}
	}
	positive("value", t.Value)
	positive("averageValue", t.AverageValue)
	return errs
}

func validateUtilization(path *field.Path, t *autoscalingv2.MetricTarget) field.ErrorList {
	errs := validateTarget(path, t)
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		errs = append(errs, field.Required(path.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case t.AverageUtilization != nil && t.AverageValue != nil:
		errs = append(errs, field.Forbidden(path.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func validateObjectMetric(path *field.Path, m *autoscalingv2.ObjectMetricSource) field.ErrorList {
	errs := validateReference(path.Child("describedObject"), &m.DescribedObject)
	errs = append(errs, validateIdentifier(path.Child("metric"), &m.Metric)...)
	errs = append(errs, validateTarget(path.Child("target"), &m.Target)...)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		errs = append(errs, field.Required(path.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func validateExternalMetric(path *field.Path, m *autoscalingv2.ExternalMetricSource) field.ErrorList {
	errs := validateIdentifier(path.Child("metric"), &m.Metric)
	errs = append(errs, validateTarget(path.Child("target"), &m.Target)...)
	switch {
	case m.Target.Value == nil && m.Target.AverageValue == nil:
		errs = append(errs, field.Required(path.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
	case m.Target.Value != nil && m.Target.AverageValue != nil:
		errs = append(errs, field.Forbidden(path.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func validatePodsMetric(path *field.Path, m *autoscalingv2.PodsMetricSource) field.ErrorList {
	errs := validateIdentifier(path.Child("metric"), &m.Metric)
	errs = append(errs, validateTarget(path.Child("target"), &m.Target)...)
	if m.Target.AverageValue == nil {
		errs = append(errs, field.Required(path.Child("target", "averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

func validateContainerMetric(path *field.Path, m *autoscalingv2.ContainerResourceMetricSource) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("name")
	if name := string(m.Name); name == "" {
		errs = append(errs, field.Required(at, "must specify a resource name"))
	} else {
		errs = append(errs, core.Problems(at, name, validation.IsQualifiedName(name))...)
		switch {
		case strings.Contains(name, "/"):
			if !core.IsExtendedResource(m.Name) {
				errs = append(errs, field.Invalid(at, name, "doesn't follow extended resource name standard"))
			}
		case name != "cpu" && name != "memory" && name != "ephemeral-storage" && !strings.HasPrefix(name, corev1.ResourceHugePagesPrefix):
			errs = append(errs, field.Invalid(at, name, "must be a standard resource for containers"))
		}
	}
	if m.Container == "" {
		errs = append(errs, field.Required(path.Child("container"), "must specify a container"))
	} else {
		errs = append(errs, core.Label(path.Child("container"), m.Container)...)
	}
	return append(errs, validateUtilization(path.Child("target"), &m.Target)...)
}
