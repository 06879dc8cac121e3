package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"maps"
	"strconv"

	"github.com/skiff-sh/skiff/api"
)

var replicationController = &api.Kind{
	Version: "v1", Kind: "ReplicationController",
	Plural: "replicationcontrollers", Singular: "replicationcontroller", ShortNames: []string{"rc"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "controllers",
	New:         api.New[corev1.ReplicationController], NewList: api.NewList[corev1.ReplicationControllerList],
	Validate:       api.Check(validateReplicationController),
	Warnings:       TemplateWarnings(field.NewPath("spec", "template"), true, func(x *corev1.ReplicationController) *corev1.PodTemplateSpec { return x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(func(x, _ *corev1.ReplicationController) field.ErrorList { return validateReplicationController(x) }),
	ValidateStatus: api.CheckUpdate(func(x, _ *corev1.ReplicationController) field.ErrorList {
		s := &x.Status
		return ReplicaCounts(field.NewPath("status"), s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, nil, s.ObservedGeneration)
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Desired", "integer", func(x *corev1.ReplicationController) any { return api.Int(x.Spec.Replicas) }),
		api.Col("Current", "integer", func(x *corev1.ReplicationController) any { return int64(x.Status.Replicas) }),
		api.Col("Ready", "integer", func(x *corev1.ReplicationController) any { return int64(x.Status.ReadyReplicas) }),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *corev1.ReplicationController) any { return rcContainers(x, ContainerNames) }).Wide(),
		api.Col("Images", "string", func(x *corev1.ReplicationController) any { return rcContainers(x, ContainerImages) }).Wide(),
		api.Col("Selector", "string", func(x *corev1.ReplicationController) any { return LabelText(x.Spec.Selector) }).Wide(),
	},
	FieldKeys: []string{"status.replicas"},
	Fields: api.Selectable(func(x *corev1.ReplicationController) map[string]string {
		return map[string]string{"status.replicas": strconv.Itoa(int(x.Status.Replicas))}
	}),
	Default:       api.Defaults(defaultReplicationController),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Scale(scaleReplicationController),
		api.Status(),
	},
}

var scaleReplicationController = api.ScaleOf(
	func(x *corev1.ReplicationController) (*int32, int32, string) {
		return x.Spec.Replicas, x.Status.Replicas, labels.SelectorFromSet(x.Spec.Selector).String()
	},
	func(x *corev1.ReplicationController, n *int32) { x.Spec.Replicas = n },
)

func defaultReplicationController(x *corev1.ReplicationController) {
	api.FillPtr(&x.Spec.Replicas, 1)
	t := x.Spec.Template
	if t == nil {
		return
	}
	if t.Labels != nil {
		if len(x.Spec.Selector) == 0 {
			x.Spec.Selector = maps.Clone(t.Labels)
		}
		if len(x.Labels) == 0 {
			x.Labels = maps.Clone(t.Labels)
		}
	}
	DefaultPodTemplate(t)
}

func rcContainers(x *corev1.ReplicationController, f func(*corev1.PodSpec) string) string {
	if x.Spec.Template == nil {
		return ""
	}
	return f(&x.Spec.Template.Spec)
}

func validateReplicationController(x *corev1.ReplicationController) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	errs = append(errs, NotNegative(path.Child("replicas"), x.Spec.Replicas)...)
	errs = append(errs, NotNegative(path.Child("minReadySeconds"), &x.Spec.MinReadySeconds)...)
	if len(x.Spec.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	t := x.Spec.Template
	if t == nil {
		return append(errs, field.Required(path.Child("template"), ""))
	}
	if len(x.Spec.Selector) > 0 && !labels.SelectorFromSet(x.Spec.Selector).Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, ValidatePodTemplate(path.Child("template"), t)...)
	errs = append(errs, AlwaysRestarting(path.Child("template"), t, "ReplicationController")...)
	return errs
}

// ReplicaCounts checks the status of a replica set or replication controller.
func ReplicaCounts(path *field.Path, replicas, labeled, ready, available int32, terminating *int32, generation int64) field.ErrorList {
	errs := Counts(path, Count{"replicas", int64(replicas)}, Count{"fullyLabeledReplicas", int64(labeled)}, Count{"readyReplicas", int64(ready)},
		Count{"availableReplicas", int64(available)}, Count{"observedGeneration", generation})
	if terminating != nil {
		errs = append(errs, Counts(path, Count{"terminatingReplicas", int64(*terminating)})...)
	}
	errs = append(errs, AtMost(path.Child("fullyLabeledReplicas"), labeled, replicas, "status.replicas")...)
	errs = append(errs, AtMost(path.Child("readyReplicas"), ready, replicas, "status.replicas")...)
	errs = append(errs, AtMost(path.Child("availableReplicas"), available, replicas, "status.replicas")...)
	return append(errs, AtMost(path.Child("availableReplicas"), available, ready, "readyReplicas")...)
}
