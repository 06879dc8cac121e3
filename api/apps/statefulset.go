package apps

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"slices"

	"github.com/skiff-sh/skiff/api"
)

var statefulSet = &api.Kind{
	Group: "apps", Version: "v1", Kind: "StatefulSet",
	Plural: "statefulsets", Singular: "statefulset", ShortNames: []string{"sts"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "statefulsets",
	New:         api.New[appsv1.StatefulSet], NewList: api.NewList[appsv1.StatefulSetList],
	Validate:       api.Check(validateStatefulSet),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "template"), false, func(x *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(validateStatefulSetUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Ready", "string", func(x *appsv1.StatefulSet) any {
			return fmt.Sprintf("%d/%d", x.Status.ReadyReplicas, api.Int(x.Spec.Replicas))
		}),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *appsv1.StatefulSet) any { return core.ContainerNames(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *appsv1.StatefulSet) any { return core.ContainerImages(&x.Spec.Template.Spec) }).Wide(),
	},
	Default:       api.Defaults(defaultStatefulSet),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Scale(scaleStatefulSet),
		api.Status(),
	},
}

var scaleStatefulSet = api.ScaleOf(
	func(x *appsv1.StatefulSet) (*int32, int32, string) {
		return x.Spec.Replicas, x.Status.Replicas, api.SelectorText(x.Spec.Selector)
	},
	func(x *appsv1.StatefulSet, n *int32) { x.Spec.Replicas = n },
)

func defaultStatefulSet(x *appsv1.StatefulSet) {
	s := &x.Spec
	api.Fill(&s.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	api.Fill(&s.UpdateStrategy.Type, appsv1.RollingUpdateStatefulSetStrategyType)
	if s.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		api.FillPtr(&s.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
		api.FillPtr(&s.UpdateStrategy.RollingUpdate.Partition, 0)
	}
	api.FillPtr(&s.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	api.Fill(&s.PersistentVolumeClaimRetentionPolicy.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	api.Fill(&s.PersistentVolumeClaimRetentionPolicy.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	api.FillPtr(&s.Replicas, 1)
	api.FillPtr(&s.RevisionHistoryLimit, 10)
	core.DefaultPodTemplate(&s.Template)
	for i := range s.VolumeClaimTemplates {
		t := &s.VolumeClaimTemplates[i]
		api.Fill(&t.APIVersion, "v1")
		api.Fill(&t.Kind, "PersistentVolumeClaim")
		core.DefaultClaim(t)
	}
}

func validateStatefulSet(x *appsv1.StatefulSet) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	errs = append(errs, core.OneOf(path.Child("podManagementPolicy"), s.PodManagementPolicy, appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)...)
	at := path.Child("updateStrategy")
	switch u := s.UpdateStrategy; u.Type {
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			errs = append(errs, field.Invalid(at.Child("rollingUpdate"), u.RollingUpdate, "only allowed for updateStrategy 'RollingUpdate'"))
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r := u.RollingUpdate; r != nil {
			errs = append(errs, core.NotNegative(at.Child("rollingUpdate", "partition"), r.Partition)...)
			errs = append(errs, core.CountOrPercent(at.Child("rollingUpdate", "maxUnavailable"), r.MaxUnavailable)...)
		}
	case "":
		errs = append(errs, field.Required(at, ""))
	default:
		errs = append(errs, field.Invalid(at, u, "must be 'RollingUpdate' or 'OnDelete'"))
	}
	errs = append(errs, core.NotNegative(path.Child("replicas"), s.Replicas)...)
	errs = append(errs, core.NotNegative(path.Child("minReadySeconds"), &s.MinReadySeconds)...)
	errs = append(errs, core.NotNegative(path.Child("revisionHistoryLimit"), s.RevisionHistoryLimit)...)
	errs = append(errs, core.MatchTemplate(path, s.Selector, &s.Template, "statefulset")...)
	t := s.Template.DeepCopy()
	for i := range s.VolumeClaimTemplates { // claims stand in for volumes of their name
		t.Spec.Volumes = slices.DeleteFunc(t.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == s.VolumeClaimTemplates[i].Name })
		t.Spec.Volumes = append(t.Spec.Volumes, corev1.Volume{Name: s.VolumeClaimTemplates[i].Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: s.VolumeClaimTemplates[i].Name}}})
	}
	errs = append(errs, core.ValidatePodTemplate(path.Child("template"), t)...)
	errs = append(errs, core.AlwaysRestarting(path.Child("template"), t, "StatefulSet")...)
	return errs
}

func validateStatefulSetUpdate(x, old *appsv1.StatefulSet) field.ErrorList {
	errs := validateStatefulSet(x)
	now := x.Spec.DeepCopy()
	now.Replicas, now.Template, now.UpdateStrategy = old.Spec.Replicas, old.Spec.Template, old.Spec.UpdateStrategy
	now.MinReadySeconds, now.Ordinals = old.Spec.MinReadySeconds, old.Spec.Ordinals
	now.RevisionHistoryLimit = old.Spec.RevisionHistoryLimit
	now.PersistentVolumeClaimRetentionPolicy = old.Spec.PersistentVolumeClaimRetentionPolicy
	if !equality.Semantic.DeepEqual(*now, old.Spec) {
		errs = append(errs, field.Forbidden(field.NewPath("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"))
	}
	return errs
}
