package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
)

var binding = &api.Kind{
	Version: "v1", Kind: "Binding",
	Plural: "bindings", Singular: "binding", Namespaced: true,
	Verbs: []string{"create"},
	New:   api.New[corev1.Binding],
}
