package events

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var event = &api.Kind{
	Group: "events.k8s.io", Version: "v1", Kind: "Event",
	Plural: "events", Singular: "event", ShortNames: []string{"ev"}, Namespaced: true,
	StoragePath: "events",
	New:         api.New[eventsv1.Event], NewList: api.NewList[eventsv1.EventList],
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
	Hub: core.Event, ToHub: toCore, FromHub: fromCore,
	Validate: api.Check(validate), ValidateUpdate: api.CheckUpdate(validateUpdate),
	Columns: api.ThroughHub(core.Event.Columns, toCore),
	FieldKeys: []string{"reason", "regarding.apiVersion", "regarding.fieldPath", "regarding.kind", "regarding.name",
		"regarding.namespace", "regarding.resourceVersion", "regarding.uid", "reportingController", "type"},
	Fields: api.Selectable(func(e *eventsv1.Event) map[string]string {
		return map[string]string{
			"reason":                    e.Reason,
			"regarding.apiVersion":      e.Regarding.APIVersion,
			"regarding.fieldPath":       e.Regarding.FieldPath,
			"regarding.kind":            e.Regarding.Kind,
			"regarding.name":            e.Regarding.Name,
			"regarding.namespace":       e.Regarding.Namespace,
			"regarding.resourceVersion": e.Regarding.ResourceVersion,
			"regarding.uid":             string(e.Regarding.UID),
			"reportingController":       e.ReportingController,
			"type":                      e.Type,
		}
	}),
}

func toCore(o api.Object) (api.Object, error) {
	e := o.(*eventsv1.Event).DeepCopy()
	c := &corev1.Event{
		ObjectMeta:     e.ObjectMeta,
		InvolvedObject: e.Regarding,
		Reason:         e.Reason,
		Message:        e.Note,
		Source:         e.DeprecatedSource,
		FirstTimestamp: e.DeprecatedFirstTimestamp,
		LastTimestamp:  e.DeprecatedLastTimestamp,
		Count:          e.DeprecatedCount,
		Type:           e.Type,
		EventTime:      e.EventTime,
		Action:         e.Action,
		Related:        e.Related,

		ReportingController: e.ReportingController,
		ReportingInstance:   e.ReportingInstance,
	}
	if e.Series != nil {
		c.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	c.SetGroupVersionKind(core.Event.GroupVersionKind())
	return c, nil
}

func fromCore(o api.Object) (api.Object, error) {
	c := o.(*corev1.Event).DeepCopy()
	e := &eventsv1.Event{
		ObjectMeta:          c.ObjectMeta,
		EventTime:           c.EventTime,
		ReportingController: c.ReportingController,
		ReportingInstance:   c.ReportingInstance,
		Action:              c.Action,
		Reason:              c.Reason,
		Regarding:           c.InvolvedObject,
		Related:             c.Related,
		Note:                c.Message,
		Type:                c.Type,

		DeprecatedSource:         c.Source,
		DeprecatedFirstTimestamp: c.FirstTimestamp,
		DeprecatedLastTimestamp:  c.LastTimestamp,
		DeprecatedCount:          c.Count,
	}
	if c.Series != nil {
		e.Series = &eventsv1.EventSeries{Count: c.Series.Count, LastObservedTime: c.Series.LastObservedTime}
	}
	e.SetGroupVersionKind(eventsv1.SchemeGroupVersion.WithKind("Event"))
	return e, nil
}
