package apps

import (
	"github.com/skiff-sh/skiff/api/core"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var replicaSet = &api.Kind{
	Group: "apps", Version: "v1", Kind: "ReplicaSet",
	Plural: "replicasets", Singular: "replicaset", ShortNames: []string{"rs"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "replicasets",
	New:         api.New[appsv1.ReplicaSet], NewList: api.NewList[appsv1.ReplicaSetList],
	Validate:       api.Check(validateReplicaSet),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "template"), true, func(x *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(validateReplicaSetUpdate),
	ValidateStatus: api.CheckUpdate(validateReplicaSetStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Desired", "integer", func(x *appsv1.ReplicaSet) any { return api.Int(x.Spec.Replicas) }),
		api.Col("Current", "integer", func(x *appsv1.ReplicaSet) any { return int64(x.Status.Replicas) }),
		api.Col("Ready", "integer", func(x *appsv1.ReplicaSet) any { return int64(x.Status.ReadyReplicas) }),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *appsv1.ReplicaSet) any { return core.ContainerNames(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *appsv1.ReplicaSet) any { return core.ContainerImages(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Selector", "string", func(x *appsv1.ReplicaSet) any { return metav1.FormatLabelSelector(x.Spec.Selector) }).Wide(),
	},
	Default: api.Defaults(defaultReplicaSet),
	PrepareCreate: api.OnCreate(func(x *appsv1.ReplicaSet) {
		x.Status = appsv1.ReplicaSetStatus{}
		core.DropDisabledInTemplate(&x.Spec.Template, nil)
	}),
	PrepareUpdate: api.OnUpdate(func(x, old *appsv1.ReplicaSet) { core.DropDisabledInTemplate(&x.Spec.Template, &old.Spec.Template) }),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Scale(scaleReplicaSet),
		api.Status(),
	},
}

var scaleReplicaSet = api.ScaleOf(
	func(x *appsv1.ReplicaSet) (*int32, int32, string) {
		return x.Spec.Replicas, x.Status.Replicas, api.SelectorText(x.Spec.Selector)
	},
	func(x *appsv1.ReplicaSet, n *int32) { x.Spec.Replicas = n },
)

func defaultReplicaSet(x *appsv1.ReplicaSet) {
	api.FillPtr(&x.Spec.Replicas, 1)
	core.DefaultPodTemplate(&x.Spec.Template)
}

func validateReplicaSet(x *appsv1.ReplicaSet) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	errs = append(errs, core.NotNegative(path.Child("replicas"), s.Replicas)...)
	errs = append(errs, core.NotNegative(path.Child("minReadySeconds"), &s.MinReadySeconds)...)
	errs = append(errs, core.MatchTemplate(path, s.Selector, &s.Template, "deployment")...)
	errs = append(errs, core.ValidatePodTemplate(path.Child("template"), &s.Template)...)
	errs = append(errs, core.AlwaysRestarting(path.Child("template"), &s.Template, "ReplicaSet")...)
	return errs
}

func validateReplicaSetUpdate(x, old *appsv1.ReplicaSet) field.ErrorList {
	errs := validateReplicaSet(x)
	errs = append(errs, core.Immutable(field.NewPath("spec", "selector"), x.Spec.Selector, old.Spec.Selector)...)
	return errs
}
