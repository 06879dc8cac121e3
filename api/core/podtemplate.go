package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var podTemplate = &api.Kind{
	Version: "v1", Kind: "PodTemplate",
	Plural: "podtemplates", Singular: "podtemplate", Namespaced: true,
	StoragePath: "podtemplates",
	New:         api.New[corev1.PodTemplate], NewList: api.NewList[corev1.PodTemplateList],
	Validate:       api.Check(validatePodTemplate),
	Warnings:       TemplateWarnings(field.NewPath("template"), false, func(x *corev1.PodTemplate) *corev1.PodTemplateSpec { return &x.Template }),
	ValidateUpdate: api.CheckUpdate(func(x, _ *corev1.PodTemplate) field.ErrorList { return validatePodTemplate(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Containers", "string", func(x *corev1.PodTemplate) any { return ContainerNames(&x.Template.Spec) }),
		api.Col("Images", "string", func(x *corev1.PodTemplate) any { return ContainerImages(&x.Template.Spec) }),
		api.Col("Pod Labels", "string", func(x *corev1.PodTemplate) any { return LabelText(x.Template.Labels) }),
	},
	Default:       api.Defaults(defaultPodTemplate),
	HasGeneration: true, UnconditionalUpdate: true,
}

func defaultPodTemplate(x *corev1.PodTemplate) {
	DefaultPodTemplate(&x.Template)
}

func validatePodTemplate(x *corev1.PodTemplate) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, ValidatePodTemplate(field.NewPath("template"), &x.Template)...)
	return errs
}
