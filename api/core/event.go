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
	Validate: api.Check(validateEvent),
	Columns:  eventColumns,
}

// validateEvent checks that the event is where its object is; objects without a namespace have theirs in "default" or,
// for components, "kube-system".
// validateEvent judges an event of the older API, which says less of itself where it has no eventTime.
func validateEvent(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("involvedObject", "namespace")
	switch about := e.InvolvedObject.Namespace; {
	case about == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem:
		errs = append(errs, field.Invalid(path, about, "does not match event.namespace"))
	case about != "" && about != e.Namespace:
		errs = append(errs, field.Invalid(path, about, "does not match event.namespace"))
	}
	if e.EventTime.IsZero() {
		return errs
	}
	return append(errs, validateEventWords(e)...)
}

// validateEventWords checks what an event with an eventTime must say.
func validateEventWords(e *corev1.Event) field.ErrorList {
	var errs field.ErrorList
	const most = 128
	if e.ReportingController == "" {
		errs = append(errs, field.Required(field.NewPath("reportingComponent"), ""))
	}
	errs = append(errs, Problems(field.NewPath("reportingComponent"), e.ReportingController, validation.IsQualifiedName(e.ReportingController))...)
	for _, f := range []struct{ name, value string }{{"reportingInstance", e.ReportingInstance}, {"action", e.Action}, {"reason", e.Reason}} {
		at := field.NewPath(f.name)
		errs = append(errs, Required(at, f.value, "")...)
		if len(f.value) > most {
			errs = append(errs, field.Invalid(at, "", fmt.Sprintf("can have at most %d characters", most)))
		}
	}
	return errs
}
