package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

// Event is the stored form of events; events.k8s.io serves the same objects in another shape.
var Event = &api.Kind{
	Version: "v1", Kind: "Event",
	Plural: "events", Singular: "event", ShortNames: []string{"ev"}, Namespaced: true,
	StoragePath: "events",
	New:         api.New[corev1.Event], NewList: api.NewList[corev1.EventList],
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
	FieldKeys: []string{"involvedObject.apiVersion", "involvedObject.fieldPath", "involvedObject.kind",
		"involvedObject.name", "involvedObject.namespace", "involvedObject.resourceVersion", "involvedObject.uid",
		"reason", "reportingComponent", "source", "type"},
	Fields: api.Selectable(func(e *corev1.Event) map[string]string {
		source := e.Source.Component
		if source == "" {
			source = e.ReportingController
		}
		return map[string]string{
			"involvedObject.apiVersion":      e.InvolvedObject.APIVersion,
			"involvedObject.fieldPath":       e.InvolvedObject.FieldPath,
			"involvedObject.kind":            e.InvolvedObject.Kind,
			"involvedObject.name":            e.InvolvedObject.Name,
			"involvedObject.namespace":       e.InvolvedObject.Namespace,
			"involvedObject.resourceVersion": e.InvolvedObject.ResourceVersion,
			"involvedObject.uid":             string(e.InvolvedObject.UID),
			"reason":                         e.Reason,
			"reportingComponent":             e.ReportingController,
			"source":                         source,
			"type":                           e.Type,
		}
	}),
	Validate: api.Check(validateEvent),
	Columns:  eventColumns,
}

// validateEvent checks that the event is where its object is; objects without a namespace have theirs in "default" or,
// for components, "kube-system".
func validateEvent(e *corev1.Event) field.ErrorList {
	path := field.NewPath("involvedObject", "namespace")
	switch about := e.InvolvedObject.Namespace; {
	case about == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem:
		return field.ErrorList{field.Invalid(path, about, "does not match event.namespace")}
	case about != "" && about != e.Namespace:
		return field.ErrorList{field.Invalid(path, about, "does not match event.namespace")}
	}
	return nil
}
