package resource

import (
	"github.com/skiff-sh/skiff/api/core"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var resourceClaim = &api.Kind{
	Group: "resource.k8s.io", Version: "v1", Kind: "ResourceClaim",
	Plural: "resourceclaims", Singular: "resourceclaim", Namespaced: true,
	StoragePath: "resourceclaims",
	New:         api.New[resourcev1.ResourceClaim], NewList: api.NewList[resourcev1.ResourceClaimList],
	Validate:       api.Check(validateResourceClaim),
	ValidateUpdate: api.CheckUpdate(validateResourceClaimUpdate),
	ValidateStatus: api.CheckUpdate(validateResourceClaimStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("State", "string", func(x *resourcev1.ResourceClaim) any { return state(x) }),
		api.AgeColumn(),
	},
	Default:             api.Defaults(defaultResourceClaim),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultResourceClaim(x *resourcev1.ResourceClaim) {
	defaultClaim(&x.Spec)
}

func defaultClaim(s *resourcev1.ResourceClaimSpec) {
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			defaultAllocation(&e.AllocationMode, &e.Count, e.Tolerations)
		}
		for j := range r.FirstAvailable {
			f := &r.FirstAvailable[j]
			defaultAllocation(&f.AllocationMode, &f.Count, f.Tolerations)
		}
	}
}

func defaultAllocation(mode *resourcev1.DeviceAllocationMode, count *int64, tolerations []resourcev1.DeviceToleration) {
	api.Fill(mode, resourcev1.DeviceAllocationModeExactCount)
	if *mode == resourcev1.DeviceAllocationModeExactCount {
		api.Fill(count, 1)
	}
	for i := range tolerations {
		api.Fill(&tolerations[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}

func state(x *resourcev1.ResourceClaim) string {
	var s []string
	if x.DeletionTimestamp != nil {
		s = append(s, "deleted")
	}
	if x.Status.Allocation == nil && x.DeletionTimestamp == nil {
		s = append(s, "pending")
	} else if x.Status.Allocation != nil {
		s = append(s, "allocated")
		if len(x.Status.ReservedFor) > 0 {
			s = append(s, "reserved")
		}
	}
	return strings.Join(s, ",")
}

func validateResourceClaimUpdate(x, old *resourcev1.ResourceClaim) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, core.Immutable(field.NewPath("spec"), x.Spec, old.Spec)...)
	return errs
}
