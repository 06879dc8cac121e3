package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
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
	ValidateName: PathSegment,
	Validate:     api.Check(func(e *corev1.Event) field.ErrorList { return ValidateEvent(e, "reportingComponent") }),
	ValidateUpdate: api.CheckUpdate(func(e, _ *corev1.Event) field.ErrorList {
		return ValidateEvent(e, "reportingComponent")
	}),
	Columns: eventColumns,
}

// ValidateEvent holds in both APIs of events. One with an eventTime says more of itself, and one without must be where
// its object is. Events of objects without a namespace are in "default" or, of components, "kube-system". controller is
// what the API calls the field of the reporting controller.
func ValidateEvent(e *corev1.Event, controller string) field.ErrorList {
	about := e.InvolvedObject.Namespace
	elsewhere := about == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem ||
		about != "" && about != e.Namespace && e.EventTime.IsZero()
	var errs field.ErrorList
	if elsewhere {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), about, "does not match event.namespace"))
	}
	if e.EventTime.IsZero() {
		return errs
	}
	return append(errs, validateEventWords(e, controller)...)
}

// validateEventWords checks what an event with an eventTime must say.
func validateEventWords(e *corev1.Event, controller string) field.ErrorList {
	var errs field.ErrorList
	const most = 128
	if e.ReportingController == "" {
		errs = append(errs, field.Required(field.NewPath(controller), ""))
	}
	errs = append(errs, Problems(field.NewPath(controller), e.ReportingController, validation.IsQualifiedName(e.ReportingController))...)
	for _, f := range []struct{ name, value string }{{"reportingInstance", e.ReportingInstance}, {"action", e.Action}, {"reason", e.Reason}} {
		at := field.NewPath(f.name)
		errs = append(errs, Required(at, f.value, "")...)
		if len(f.value) > most {
			errs = append(errs, field.Invalid(at, "", fmt.Sprintf("can have at most %d characters", most)))
		}
	}
	return errs
}
