package resource

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	dracel "k8s.io/dynamic-resource-allocation/cel"

	"github.com/skiff-sh/skiff/api/core"
)

// The functions here judge what claims, their templates and device classes ask for.

func validateDeviceClass(x, old *resourcev1.DeviceClass) field.ErrorList {
	path := field.NewPath("spec")
	var stored []resourcev1.DeviceSelector
	if old != nil {
		stored = old.Spec.Selectors
	}
	errs := validateSelectors(path.Child("selectors"), x.Spec.Selectors, stored)
	for i := range x.Spec.Config {
		errs = append(errs, validateConfig(path.Child("config").Index(i), &x.Spec.Config[i].DeviceConfiguration)...)
	}
	if n := x.Spec.ExtendedResourceName; n != nil && !core.IsExtendedResource(corev1.ResourceName(*n)) {
		errs = append(errs, field.Invalid(path.Child("extendedResourceName"), *n, "must be a valid extended resource name"))
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
		if a := c.MatchAttribute; a != nil {
			errs = append(errs, validateFullName(at.Child("matchAttribute"), string(*a))...)
		}
	}
	for i := range s.Devices.Config {
		c, at := &s.Devices.Config[i], path.Child("config").Index(i)
		errs = append(errs, validateNames(at.Child("requests"), c.Requests, known)...)
		errs = append(errs, validateConfig(at, &c.DeviceConfiguration)...)
	}
	return errs
}

// validateFullName checks the name of an attribute, with its domain.
func validateFullName(path *field.Path, name string) field.ErrorList {
	domain, id, full := strings.Cut(name, "/")
	if !full {
		errs := validateID(path, name)
		return append(errs, field.Invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
	}
	var errs field.ErrorList
	if domain == "" {
		errs = append(errs, field.Required(path, "the domain must not be empty"))
	} else {
		if len(domain) > resourcev1.DeviceMaxDomainLength {
			errs = append(errs, field.TooLong(path, "", resourcev1.DeviceMaxDomainLength))
		}
		errs = append(errs, core.Subdomain(path, domain)...)
	}
	if id == "" {
		return append(errs, field.Required(path, "the name must not be empty"))
	}
	return append(errs, validateID(path, id)...)
}

func validateID(path *field.Path, id string) field.ErrorList {
	if len(id) > resourcev1.DeviceMaxIDLength {
		return field.ErrorList{field.TooLong(path, "", resourcev1.DeviceMaxIDLength)}
	}
	return core.Problems(path, id, validation.IsCIdentifier(id))
}

// validateNames checks a list of requests' names against those that there are.
func validateNames(path *field.Path, names []string, known map[string]bool) field.ErrorList {
	var errs field.ErrorList
	for i, n := range names {
		at := path.Index(i)
		if parts := strings.Split(n, "/"); len(parts) <= 2 {
			for _, part := range parts {
				errs = append(errs, core.Label(at, part)...)
			}
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

// validateSelectors compiles the expressions of selectors. Those that are stored need not fit into what new ones may use.
func validateSelectors(path *field.Path, list, stored []resourcev1.DeviceSelector) field.ErrorList {
	var errs field.ErrorList
	env := environment.NewExpressions
	if equality.Semantic.DeepEqual(list, stored) {
		env = environment.StoredExpressions
	}
	for i, s := range list {
		at := path.Index(i).Child("cel")
		if s.CEL == nil {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		at = at.Child("expression")
		if len(s.CEL.Expression) > resourcev1.CELSelectorExpressionMaxLength {
			errs = append(errs, field.TooLong(at, "", resourcev1.CELSelectorExpressionMaxLength))
			continue
		}
		r := dracel.GetCompiler(dracel.Features{EnableConsumableCapacity: true}).CompileCELExpression(s.CEL.Expression, dracel.Options{EnvType: &env})
		switch {
		case r.Error == nil && r.MaxCost > resourcev1.CELSelectorExpressionMaxCost:
			errs = append(errs, field.Forbidden(at, "too complex, exceeds cost limit"))
		case r.Error == nil:
		case r.Error.Type == apiservercel.ErrorTypeInvalid:
			errs = append(errs, field.Invalid(at, s.CEL.Expression, r.Error.Detail))
		case r.Error.Type == apiservercel.ErrorTypeRequired:
			errs = append(errs, field.Required(at, r.Error.Detail))
		default:
			errs = append(errs, field.InternalError(at, r.Error))
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
		errs = append(errs, validateSelectors(at.Child("selectors"), e.Selectors, nil)...)
		errs = append(errs, validateTolerations(at.Child("tolerations"), e.Tolerations)...)
	}
	for i := range r.FirstAvailable {
		f, at := &r.FirstAvailable[i], path.Child("firstAvailable").Index(i)
		errs = append(errs, core.Label(at.Child("name"), f.Name)...)
		errs = append(errs, validateWanted(at, f.DeviceClassName, f.AllocationMode, f.Count)...)
		errs = append(errs, validateSelectors(at.Child("selectors"), f.Selectors, nil)...)
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
