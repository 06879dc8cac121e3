package core

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
)

var eventColumns = []api.Column{
	api.ColAt("Last Seen", func(e *corev1.Event, now time.Time) any {
		last := firstSeen(e)
		if !e.LastTimestamp.IsZero() {
			last = e.LastTimestamp
		}
		if e.Series != nil {
			last = metav1.NewTime(e.Series.LastObservedTime.Time)
		}
		return api.Age(last, now)
	}),
	api.Col("Type", "string", func(e *corev1.Event) any { return e.Type }),
	api.Col("Reason", "string", func(e *corev1.Event) any { return e.Reason }),
	api.Col("Object", "string", func(e *corev1.Event) any {
		if e.InvolvedObject.Name == "" {
			return strings.ToLower(e.InvolvedObject.Kind)
		}
		return strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name
	}),
	api.Col("Subobject", "string", func(e *corev1.Event) any { return e.InvolvedObject.FieldPath }).Wide(),
	api.Col("Source", "string", func(e *corev1.Event) any { return sourceText(e) }).Wide(),
	api.Col("Message", "string", func(e *corev1.Event) any { return strings.TrimSpace(e.Message) }),
	api.ColAt("First Seen", func(e *corev1.Event, now time.Time) any { return api.Age(firstSeen(e), now) }).Wide(),
	api.Col("Count", "string", func(e *corev1.Event) any {
		if e.Series != nil {
			return int64(e.Series.Count)
		}
		return int64(max(e.Count, 1))
	}).Wide(),
	func() api.Column { c := api.NameColumn(); c.Priority = 1; return c }(),
}

func firstSeen(e *corev1.Event) metav1.Time {
	if e.FirstTimestamp.IsZero() {
		return metav1.NewTime(e.EventTime.Time)
	}
	return e.FirstTimestamp
}

func sourceText(e *corev1.Event) string {
	component := e.Source.Component
	if component == "" {
		component = e.ReportingController
	}
	host := e.Source.Host
	if host == "" {
		host = e.ReportingInstance
	}
	if host == "" {
		return component
	}
	return fmt.Sprintf("%s, %s", component, host)
}
