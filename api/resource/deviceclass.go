package resource

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var deviceClass = &api.Kind{
	Group: "resource.k8s.io", Version: "v1", Kind: "DeviceClass",
	Plural: "deviceclasses", Singular: "deviceclass",
	StoragePath: "deviceclasses",
	New:         api.New[resourcev1.DeviceClass], NewList: api.NewList[resourcev1.DeviceClassList],
	Validate:       api.Check(func(x *resourcev1.DeviceClass) field.ErrorList { return validateDeviceClass(x, nil) }),
	ValidateUpdate: api.CheckUpdate(validateDeviceClass),
	HasGeneration:  true, UnconditionalUpdate: true,
}
