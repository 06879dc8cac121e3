package apps

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"slices"

	"github.com/skiff-sh/skiff/api"
)

var statefulSet = &api.Kind{
	Group: "apps", Version: "v1", Kind: "StatefulSet",
	Plural: "statefulsets", Singular: "statefulset", ShortNames: []string{"sts"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "statefulsets",
	New:         api.New[appsv1.StatefulSet], NewList: api.NewList[appsv1.StatefulSetList],
	ValidateName:   apivalidation.NameIsDNSLabel,
	Validate:       api.Check(validateNewStatefulSet),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "template"), false, func(x *appsv1.StatefulSet) *corev1.PodTemplateSpec { return &x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(validateStatefulSetUpdate),
	ValidateStatus: api.CheckUpdate(validateStatefulSetStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Ready", "string", func(x *appsv1.StatefulSet) any {
			return fmt.Sprintf("%d/%d", x.Status.ReadyReplicas, api.Int(x.Spec.Replicas))
		}),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *appsv1.StatefulSet) any { return core.ContainerNames(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *appsv1.StatefulSet) any { return core.ContainerImages(&x.Spec.Template.Spec) }).Wide(),
	},
	Default: api.Defaults(defaultStatefulSet),
	PrepareCreate: api.OnCreate(func(x *appsv1.StatefulSet) {
		x.Status = appsv1.StatefulSetStatus{}
		dropMaxUnavailable(x)
		core.DropDisabledInTemplate(&x.Spec.Template, nil)
	}),
	PrepareUpdate: api.OnUpdate(func(x, old *appsv1.StatefulSet) {
		if r := old.Spec.UpdateStrategy.RollingUpdate; r == nil || r.MaxUnavailable == nil {
			dropMaxUnavailable(x)
		}
		core.DropDisabledInTemplate(&x.Spec.Template, &old.Spec.Template)
	}),
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
		t.APIVersion, t.Kind = "v1", "PersistentVolumeClaim" // whatever else the user says
		core.DefaultClaim(t)
	}
}

func validateStatefulSet(x *appsv1.StatefulSet) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	switch p := s.PodManagementPolicy; p {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(path.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), p, fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	at := path.Child("updateStrategy")
	switch u := s.UpdateStrategy; u.Type {
	case appsv1.OnDeleteStatefulSetStrategyType:
		if u.RollingUpdate != nil {
			errs = append(errs, field.Invalid(at.Child("rollingUpdate"), u.RollingUpdate, "only allowed for updateStrategy 'RollingUpdate'"))
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r := u.RollingUpdate; r != nil {
			errs = append(errs, core.NotNegative(at.Child("rollingUpdate", "partition"), r.Partition)...)
		}
	case "":
		errs = append(errs, field.Required(at, ""))
	default:
		errs = append(errs, field.Invalid(at, u, "must be 'RollingUpdate' or 'OnDelete'"))
	}
	errs = append(errs, core.NotNegative(path.Child("replicas"), s.Replicas)...)
	errs = append(errs, core.NotNegative(path.Child("minReadySeconds"), &s.MinReadySeconds)...)
	if p := s.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		keep, drop := appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		errs = append(errs, core.Known(at.Child("whenDeleted"), p.WhenDeleted, keep, drop)...)
		errs = append(errs, core.Known(at.Child("whenScaled"), p.WhenScaled, keep, drop)...)
	}
	if o := s.Ordinals; o != nil {
		errs = append(errs, core.NotNegative(path.Child("ordinals", "start"), &o.Start)...)
	}
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

// validateNewStatefulSet holds what old objects are not judged by.
func validateNewStatefulSet(x *appsv1.StatefulSet) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	for i := range x.Spec.VolumeClaimTemplates {
		errs = append(errs, core.ValidateClaimSpec(path.Child("volumeClaimTemplates").Index(i).Child("spec"), &x.Spec.VolumeClaimTemplates[i].Spec)...)
	}
	errs = append(errs, validateStatefulSet(x)...)
	if n := x.Spec.ServiceName; n != "" {
		errs = append(errs, core.Label(path.Child("serviceName"), n)...)
	}
	return errs
}

// dropMaxUnavailable takes out a field that upstream's default gates switch off.
func dropMaxUnavailable(x *appsv1.StatefulSet) {
	if r := x.Spec.UpdateStrategy.RollingUpdate; r != nil {
		r.MaxUnavailable = nil
	}
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
