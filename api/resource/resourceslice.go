package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"github.com/skiff-sh/skiff/api"
)

var resourceSlice = &api.Kind{
	Group: "resource.k8s.io", Version: "v1", Kind: "ResourceSlice",
	Plural: "resourceslices", Singular: "resourceslice",
	StoragePath: "resourceslices",
	New:         api.New[resourcev1.ResourceSlice], NewList: api.NewList[resourcev1.ResourceSliceList],
	Validate:       api.Check(validateResourceSlice),
	ValidateUpdate: api.CheckUpdate(validateResourceSliceUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Node", "string", func(x *resourcev1.ResourceSlice) any { return sliceNode(x) }),
		api.Col("Driver", "string", func(x *resourcev1.ResourceSlice) any { return x.Spec.Driver }),
		api.Col("Pool", "string", func(x *resourcev1.ResourceSlice) any { return x.Spec.Pool.Name }),
		api.AgeColumn(),
	},
	FieldKeys: []string{"spec.driver", "spec.nodeName"},
	Fields: api.Selectable(func(x *resourcev1.ResourceSlice) map[string]string {
		node := ""
		if x.Spec.NodeName != nil {
			node = *x.Spec.NodeName
		}
		return map[string]string{"spec.driver": x.Spec.Driver, "spec.nodeName": node}
	}),
	HasGeneration: true, UnconditionalUpdate: true,
}

func sliceNode(x *resourcev1.ResourceSlice) string {
	if x.Spec.NodeName == nil {
		return ""
	}
	return *x.Spec.NodeName
}
