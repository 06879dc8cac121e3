package apps

import (
	"github.com/skiff-sh/skiff/api/core"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strconv"

	"github.com/skiff-sh/skiff/api"
)

var daemonSet = &api.Kind{
	Group: "apps", Version: "v1", Kind: "DaemonSet",
	Plural: "daemonsets", Singular: "daemonset", ShortNames: []string{"ds"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "daemonsets",
	New:         api.New[appsv1.DaemonSet], NewList: api.NewList[appsv1.DaemonSetList],
	Validate:       api.Check(validateDaemonSet),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "template"), false, func(x *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(validateDaemonSetUpdate),
	ValidateStatus: api.CheckUpdate(validateDaemonSetStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Desired", "integer", func(x *appsv1.DaemonSet) any { return int64(x.Status.DesiredNumberScheduled) }),
		api.Col("Current", "integer", func(x *appsv1.DaemonSet) any { return int64(x.Status.CurrentNumberScheduled) }),
		api.Col("Ready", "integer", func(x *appsv1.DaemonSet) any { return int64(x.Status.NumberReady) }),
		api.Col("Up-to-date", "integer", func(x *appsv1.DaemonSet) any { return int64(x.Status.UpdatedNumberScheduled) }),
		api.Col("Available", "integer", func(x *appsv1.DaemonSet) any { return int64(x.Status.NumberAvailable) }),
		api.Col("Node Selector", "string", func(x *appsv1.DaemonSet) any { return core.LabelText(x.Spec.Template.Spec.NodeSelector) }),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *appsv1.DaemonSet) any { return core.ContainerNames(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *appsv1.DaemonSet) any { return core.ContainerImages(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Selector", "string", func(x *appsv1.DaemonSet) any { return metav1.FormatLabelSelector(x.Spec.Selector) }).Wide(),
	},
	Default: api.Defaults(defaultDaemonSet),
	PrepareCreate: api.OnCreate(func(x *appsv1.DaemonSet) {
		x.Status = appsv1.DaemonSetStatus{}
		x.Annotations[appsv1.DeprecatedTemplateGeneration] = "1"
		core.DropDisabledInTemplate(&x.Spec.Template, nil)
	}),
	PrepareUpdate: api.OnUpdate(updateDaemonSet),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultDaemonSet(x *appsv1.DaemonSet) {
	s := &x.Spec.UpdateStrategy
	api.Fill(&s.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if s.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		api.FillPtr(&s.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		api.FillPtr(&s.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		api.FillPtr(&s.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	api.FillPtr(&x.Spec.RevisionHistoryLimit, 10)
	core.DefaultPodTemplate(&x.Spec.Template)
	if _, ok := x.Annotations[appsv1.DeprecatedTemplateGeneration]; !ok {
		if x.Annotations == nil {
			x.Annotations = map[string]string{}
		}
		x.Annotations[appsv1.DeprecatedTemplateGeneration] = "0"
	}
}

// updateDaemonSet counts the changes of the template in the annotation that clients of the first versions read.
func updateDaemonSet(x, old *appsv1.DaemonSet) {
	core.DropDisabledInTemplate(&x.Spec.Template, &old.Spec.Template)
	n, err := strconv.ParseInt(old.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		n = 0
	}
	if !equality.Semantic.DeepEqual(x.Spec.Template, old.Spec.Template) {
		n++
	}
	x.Annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
}

func validateDaemonSet(x *appsv1.DaemonSet) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	errs = append(errs, core.MatchTemplate(path, s.Selector, &s.Template, "daemonset")...)
	errs = append(errs, core.ValidatePodTemplate(path.Child("template"), &s.Template)...)
	errs = append(errs, core.AlwaysRestarting(path.Child("template"), &s.Template, "DaemonSet")...)
	errs = append(errs, core.NotNegative(path.Child("minReadySeconds"), &s.MinReadySeconds)...)
	errs = append(errs, core.NotNegative(path.Child("revisionHistoryLimit"), s.RevisionHistoryLimit)...)
	at := path.Child("updateStrategy")
	switch u := s.UpdateStrategy; {
	case u.Type == appsv1.OnDeleteDaemonSetStrategyType:
	case u.Type != appsv1.RollingUpdateDaemonSetStrategyType:
		errs = append(errs, field.NotSupported(at, u, []appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType}))
	case u.RollingUpdate == nil:
		errs = append(errs, field.Required(at.Child("rollingUpdate"), ""))
	default:
		at, r := at.Child("rollingUpdate"), u.RollingUpdate
		errs = append(errs, core.CountOrPercent(at.Child("maxUnavailable"), r.MaxUnavailable)...)
		errs = append(errs, core.AtMostAll(at.Child("maxUnavailable"), r.MaxUnavailable)...)
		errs = append(errs, core.CountOrPercent(at.Child("maxSurge"), r.MaxSurge)...)
		errs = append(errs, core.AtMostAll(at.Child("maxSurge"), r.MaxSurge)...)
		switch none, noSurge := core.IsZero(r.MaxUnavailable), core.IsZero(r.MaxSurge); {
		case none && noSurge:
			errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
		case !none && !noSurge:
			errs = append(errs, field.Invalid(at.Child("maxSurge"), r.MaxSurge, "may not be set when maxUnavailable is non-zero"))
		}
	}
	return errs
}

func validateDaemonSetUpdate(x, old *appsv1.DaemonSet) field.ErrorList {
	errs := core.Immutable(field.NewPath("spec", "selector"), x.Spec.Selector, old.Spec.Selector)
	return append(errs, validateDaemonSet(x)...)
}
