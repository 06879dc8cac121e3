package scheduling

import (
	schedulingv1alpha2 "k8s.io/api/scheduling/v1alpha2"

	"github.com/skiff-sh/skiff/api"
)

// PodGroup is the row of pods that are placed together (KEP-4671). It is alpha and in no table: servers that have it serve it
// only behind the gate GenericWorkload.
var PodGroup = &api.Kind{
	Group: "scheduling.k8s.io", Version: "v1alpha2", Kind: "PodGroup",
	Plural: "podgroups", Singular: "podgroup", Namespaced: true, StoragePath: "podgroups",
	New: api.New[schedulingv1alpha2.PodGroup], NewList: api.NewList[schedulingv1alpha2.PodGroupList],
}
