package resource

import (
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

// The functions here judge what claims, their templates and device classes ask for. The expressions of selectors are
// left to the scheduler, which compiles them.

func validateDeviceClass(x *resourcev1.DeviceClass) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateSelectors(path.Child("selectors"), x.Spec.Selectors)
	for i := range x.Spec.Config {
		errs = append(errs, validateConfig(path.Child("config").Index(i), &x.Spec.Config[i].DeviceConfiguration)...)
	}
	return errs
}

func validateResourceClaim(x *resourcev1.ResourceClaim) field.ErrorList {
	return validateClaimSpec(field.NewPath("spec"), &x.Spec)
}

func validateResourceClaimTemplate(x *resourcev1.ResourceClaimTemplate) field.ErrorList {
	path := field.NewPath("spec")
	errs := metavalidation.ValidateLabels(x.Spec.Labels, path.Child("metadata", "labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(x.Spec.Annotations, path.Child("metadata", "annotations"))...)
	return append(errs, validateClaimSpec(path.Child("spec"), &x.Spec.Spec)...)
}

func validateClaimSpec(path *field.Path, s *resourcev1.ResourceClaimSpec) field.ErrorList {
	path = path.Child("devices")
	var errs field.ErrorList
	known := map[string]bool{} // requests, and subrequests as request/subrequest
	for i := range s.Devices.Requests {
		r, at := &s.Devices.Requests[i], path.Child("requests").Index(i)
		errs = append(errs, validateRequest(at, r)...)
		if known[r.Name] {
			errs = append(errs, field.Duplicate(at, r.Name))
		}
		known[r.Name] = true
		for _, f := range r.FirstAvailable {
			known[r.Name+"/"+f.Name] = true
		}
	}
	for i := range s.Devices.Constraints {
		c, at := &s.Devices.Constraints[i], path.Child("constraints").Index(i)
		errs = append(errs, validateNames(at.Child("requests"), c.Requests, known)...)
		if c.MatchAttribute == nil && c.DistinctAttribute == nil {
			errs = append(errs, field.Required(at, `exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set`))
		}
	}
	for i := range s.Devices.Config {
		c, at := &s.Devices.Config[i], path.Child("config").Index(i)
		errs = append(errs, validateNames(at.Child("requests"), c.Requests, known)...)
		errs = append(errs, validateConfig(at, &c.DeviceConfiguration)...)
	}
	return errs
}

// validateNames checks a list of requests' names against those that there are.
func validateNames(path *field.Path, names []string, known map[string]bool) field.ErrorList {
	var errs field.ErrorList
	for i, n := range names {
		at := path.Index(i)
		for part := range strings.SplitSeq(n, "/") {
			errs = append(errs, core.Label(at, part)...)
		}
		if !known[n] {
			errs = append(errs, field.Invalid(at, n, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
		if slices.Contains(names[:i], n) {
			errs = append(errs, field.Duplicate(at, n))
		}
	}
	return errs
}

func validateConfig(path *field.Path, c *resourcev1.DeviceConfiguration) field.ErrorList {
	at := path.Child("opaque")
	if c.Opaque == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	errs := core.CSIDriverName(at.Child("driver"), c.Opaque.Driver)
	if len(c.Opaque.Parameters.Raw) == 0 {
		errs = append(errs, field.Required(at.Child("parameters"), ""))
	}
	return errs
}

func validateSelectors(path *field.Path, list []resourcev1.DeviceSelector) field.ErrorList {
	var errs field.ErrorList
	for i, s := range list {
		if s.CEL == nil {
			errs = append(errs, field.Required(path.Index(i).Child("cel"), ""))
		}
	}
	return errs
}

func validateRequest(path *field.Path, r *resourcev1.DeviceRequest) field.ErrorList {
	errs := core.Label(path.Child("name"), r.Name)
	const choice = "exactly one of `exactly` or `firstAvailable` is required"
	switch e := r.Exactly; {
	case e == nil && len(r.FirstAvailable) == 0:
		errs = append(errs, field.Required(path, choice))
	case e != nil && len(r.FirstAvailable) > 0:
		errs = append(errs, field.Invalid(path, "", choice+", but multiple fields are set"))
	case e != nil:
		at := path.Child("exactly")
		errs = append(errs, validateWanted(at, e.DeviceClassName, e.AllocationMode, e.Count)...)
		errs = append(errs, validateSelectors(at.Child("selectors"), e.Selectors)...)
		errs = append(errs, validateTolerations(at.Child("tolerations"), e.Tolerations)...)
	}
	for i := range r.FirstAvailable {
		f, at := &r.FirstAvailable[i], path.Child("firstAvailable").Index(i)
		errs = append(errs, core.Label(at.Child("name"), f.Name)...)
		errs = append(errs, validateWanted(at, f.DeviceClassName, f.AllocationMode, f.Count)...)
		errs = append(errs, validateSelectors(at.Child("selectors"), f.Selectors)...)
		errs = append(errs, validateTolerations(at.Child("tolerations"), f.Tolerations)...)
		if slices.ContainsFunc(r.FirstAvailable[:i], func(o resourcev1.DeviceSubRequest) bool { return o.Name == f.Name }) {
			errs = append(errs, field.Duplicate(at, f.Name))
		}
	}
	return errs
}

// validateWanted checks how many devices of which class are asked for.
func validateWanted(path *field.Path, class string, mode resourcev1.DeviceAllocationMode, count int64) field.ErrorList {
	at := path.Child("deviceClassName")
	var errs field.ErrorList
	if class == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, core.Subdomain(at, class)...)
	}
	switch mode {
	case resourcev1.DeviceAllocationModeExactCount:
		if count <= 0 {
			errs = append(errs, field.Invalid(path.Child("count"), count, "must be greater than zero"))
		}
	case resourcev1.DeviceAllocationModeAll:
		if count != 0 {
			errs = append(errs, field.Invalid(path.Child("count"), count, "must not be specified when allocationMode is 'All'"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("allocationMode"), mode, []resourcev1.DeviceAllocationMode{resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount}))
	}
	return errs
}

func validateTolerations(path *field.Path, list []resourcev1.DeviceToleration) field.ErrorList {
	var errs field.ErrorList
	for i, t := range list {
		at := path.Index(i)
		if t.Key != "" {
			errs = append(errs, metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		}
		errs = append(errs, core.Known(at.Child("operator"), t.Operator, resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
		if t.Effect != "" {
			errs = append(errs, core.Known(at.Child("effect"), t.Effect, resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone)...)
		}
	}
	return errs
}

// validateResourceClaimStatus judges what the scheduler, the drivers and the controller write: an allocation is only ever
// made or taken back whole.
func validateResourceClaimStatus(x, old *resourcev1.ResourceClaim) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	uids := map[types.UID]bool{}
	for i, c := range x.Status.ReservedFor {
		at := path.Child("reservedFor").Index(i)
		errs = append(errs, core.Required(at.Child("resource"), c.Resource, "")...)
		errs = append(errs, core.Required(at.Child("name"), c.Name, "")...)
		errs = append(errs, core.Required(at.Child("uid"), string(c.UID), "")...)
		if uids[c.UID] {
			errs = append(errs, field.Duplicate(at, c.UID))
		}
		uids[c.UID] = true
	}
	now, was := x.Status.Allocation, old.Status.Allocation
	if now == nil {
		if len(x.Status.ReservedFor) > 0 {
			errs = append(errs, field.Forbidden(path.Child("reservedFor"), "may not be specified when `allocated` is not set"))
		}
		return errs
	}
	for i, d := range x.Status.Devices {
		if !slices.ContainsFunc(now.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
			return r.Driver == d.Driver && r.Pool == d.Pool && r.Device == d.Device
		}) {
			errs = append(errs, field.Invalid(path.Child("devices").Index(i), d, "must be an allocated device in the claim"))
		}
	}
	if was != nil {
		errs = append(errs, core.Immutable(path.Child("allocation"), now, was)...)
	}
	return errs
}
