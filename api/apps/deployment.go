package apps

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"maps"

	"github.com/skiff-sh/skiff/api"
)

var deployment = &api.Kind{
	Group: "apps", Version: "v1", Kind: "Deployment",
	Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "deployments",
	New:         api.New[appsv1.Deployment], NewList: api.NewList[appsv1.DeploymentList],
	Validate:       api.Check(validateDeployment),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "template"), true, func(x *appsv1.Deployment) *corev1.PodTemplateSpec { return &x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(validateDeploymentUpdate),
	ValidateStatus: api.CheckUpdate(validateDeploymentStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Ready", "string", func(x *appsv1.Deployment) any {
			return fmt.Sprintf("%d/%d", x.Status.ReadyReplicas, api.Int(x.Spec.Replicas))
		}),
		api.Col("Up-to-date", "string", func(x *appsv1.Deployment) any { return int64(x.Status.UpdatedReplicas) }),
		api.Col("Available", "string", func(x *appsv1.Deployment) any { return int64(x.Status.AvailableReplicas) }),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *appsv1.Deployment) any { return core.ContainerNames(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *appsv1.Deployment) any { return core.ContainerImages(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Selector", "string", func(x *appsv1.Deployment) any { return metav1.FormatLabelSelector(x.Spec.Selector) }).Wide(),
	},
	Default: api.Defaults(defaultDeployment),
	PrepareCreate: api.OnCreate(func(x *appsv1.Deployment) {
		x.Status = appsv1.DeploymentStatus{}
		core.DropDisabledInTemplate(&x.Spec.Template, nil)
	}),
	PrepareUpdate: api.OnUpdate(func(x, old *appsv1.Deployment) {
		core.DropDisabledInTemplate(&x.Spec.Template, &old.Spec.Template)
		if !maps.Equal(x.Annotations, old.Annotations) { // they count here
			x.Generation = old.Generation + 1
		}
	}),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Scale(scaleDeployment),
		api.Status(),
	},
}

var scaleDeployment = api.ScaleOf(
	func(x *appsv1.Deployment) (*int32, int32, string) {
		return x.Spec.Replicas, x.Status.Replicas, api.SelectorText(x.Spec.Selector)
	},
	func(x *appsv1.Deployment, n *int32) { x.Spec.Replicas = n },
)

func defaultDeployment(x *appsv1.Deployment) {
	api.FillPtr(&x.Spec.Replicas, 1)
	api.FillPtr(&x.Spec.RevisionHistoryLimit, 10)
	api.FillPtr(&x.Spec.ProgressDeadlineSeconds, 600)
	s := &x.Spec.Strategy
	api.Fill(&s.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if s.Type == appsv1.RollingUpdateDeploymentStrategyType {
		api.FillPtr(&s.RollingUpdate, appsv1.RollingUpdateDeployment{})
		api.FillPtr(&s.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		api.FillPtr(&s.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	core.DefaultPodTemplate(&x.Spec.Template)
}

func validateDeployment(x *appsv1.Deployment) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	errs = append(errs, core.NotNegative(path.Child("replicas"), s.Replicas)...)
	errs = append(errs, core.MatchTemplate(path, s.Selector, &s.Template, "deployment")...)
	errs = append(errs, core.ValidatePodTemplate(path.Child("template"), &s.Template)...)
	errs = append(errs, core.AlwaysRestarting(path.Child("template"), &s.Template, "ReplicaSet")...)
	errs = append(errs, validateStrategy(path.Child("strategy"), &s.Strategy)...)
	errs = append(errs, core.NotNegative(path.Child("minReadySeconds"), &s.MinReadySeconds)...)
	errs = append(errs, core.NotNegative(path.Child("revisionHistoryLimit"), s.RevisionHistoryLimit)...)
	if d := s.ProgressDeadlineSeconds; d != nil {
		errs = append(errs, core.NotNegative(path.Child("progressDeadlineSeconds"), d)...)
		if *d <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *d, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateDeploymentUpdate(x, old *appsv1.Deployment) field.ErrorList {
	errs := validateDeployment(x)
	errs = append(errs, core.Immutable(field.NewPath("spec", "selector"), x.Spec.Selector, old.Spec.Selector)...)
	return errs
}

func validateStrategy(path *field.Path, s *appsv1.DeploymentStrategy) field.ErrorList {
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(path.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
	default:
		return field.ErrorList{field.NotSupported(path, *s, []appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
	if s.RollingUpdate == nil {
		return field.ErrorList{field.Required(path.Child("rollingUpdate"), "this should be defaulted and never be nil")}
	}
	at, r := path.Child("rollingUpdate"), s.RollingUpdate
	errs := core.CountOrPercent(at.Child("maxUnavailable"), r.MaxUnavailable)
	errs = append(errs, core.CountOrPercent(at.Child("maxSurge"), r.MaxSurge)...)
	if core.IsZero(r.MaxUnavailable) && core.IsZero(r.MaxSurge) {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), r.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, core.AtMostAll(at.Child("maxUnavailable"), r.MaxUnavailable)...)
}
