package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var namespace = &api.Kind{
	Version: "v1", Kind: "Namespace",
	Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
	StoragePath: "namespaces",
	Verbs:       []string{"create", "delete", "get", "list", "patch", "update", "watch"},
	New:         api.New[corev1.Namespace], NewList: api.NewList[corev1.NamespaceList],
	ValidateName: apivalidation.NameIsDNSLabel,
	Validate: api.Check(func(x *corev1.Namespace) field.ErrorList {
		var errs field.ErrorList
		for _, f := range x.Spec.Finalizers {
			at, name := field.NewPath("spec", "finalizers"), string(f)
			problems := validation.IsQualifiedName(name)
			if errs = append(errs, Problems(at, name, problems)...); !strings.Contains(name, "/") && f != corev1.FinalizerKubernetes {
				errs = append(errs, field.Invalid(at, name, "name is neither a standard finalizer name nor is it fully qualified"))
			}
		}
		return errs
	}),
	ValidateStatus: api.CheckUpdate(func(x, _ *corev1.Namespace) field.ErrorList {
		at, phase := field.NewPath("status", "Phase"), x.Status.Phase
		switch deleted := x.DeletionTimestamp != nil; {
		case !deleted && phase != corev1.NamespaceActive:
			return field.ErrorList{field.Invalid(at, phase, "may only be 'Active' if `deletionTimestamp` is empty")}
		case deleted && phase != corev1.NamespaceTerminating:
			return field.ErrorList{field.Invalid(at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
		}
		return nil
	}),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Status", "string", func(x *corev1.Namespace) any { return string(x.Status.Phase) }),
		api.AgeColumn(),
	},
	FieldKeys: []string{"name", "status.phase"},
	Fields: api.Selectable(func(x *corev1.Namespace) map[string]string {
		return map[string]string{"name": x.Name, "status.phase": string(x.Status.Phase)}
	}),
	PrepareCreate:       api.OnCreate(createNamespace),
	Default:             api.Defaults(defaultNamespace),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.PartOf("finalize", "update"),
		api.Status(),
	},
}

func defaultNamespace(x *corev1.Namespace) {
	if x.Name != "" && x.Labels[corev1.LabelMetadataName] != x.Name {
		if x.Labels == nil {
			x.Labels = map[string]string{}
		}
		x.Labels[corev1.LabelMetadataName] = x.Name
	}
	api.Fill(&x.Status.Phase, corev1.NamespaceActive)
}

func createNamespace(x *corev1.Namespace) {
	x.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	defaultNamespace(x) // again, now that a generated name is known
}
