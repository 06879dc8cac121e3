package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
)

var componentStatus = &api.Kind{
	Version: "v1", Kind: "ComponentStatus",
	Plural: "componentstatuses", Singular: "componentstatus", ShortNames: []string{"cs"},
	Verbs: []string{"get", "list"},
	New:   api.New[corev1.ComponentStatus], NewList: api.NewList[corev1.ComponentStatusList],
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Status", "string", func(x *corev1.ComponentStatus) any { return componentHealth(x, 0) }),
		api.Col("Message", "string", func(x *corev1.ComponentStatus) any { return componentHealth(x, 1) }),
		api.Col("Error", "string", func(x *corev1.ComponentStatus) any { return componentHealth(x, 2) }),
	},
}

// componentHealth is a component's status, message and error as columns.
func componentHealth(x *corev1.ComponentStatus, column int) string {
	out := [3]string{"Unknown", "", ""}
	for _, c := range x.Conditions {
		if c.Type != corev1.ComponentHealthy {
			continue
		}
		out[0] = "Unhealthy"
		if c.Status == corev1.ConditionTrue {
			out[0] = "Healthy"
		}
		out[1], out[2] = c.Message, c.Error
	}
	return out[column]
}
