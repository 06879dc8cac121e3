package resource

import (
	"fmt"
	"regexp"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

func validateResourceSlice(x *resourcev1.ResourceSlice) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateSliceHead(path, &x.Spec)
	return append(errs, validateSliceBody(path, &x.Spec)...)
}

func validateSliceHead(path *field.Path, s *resourcev1.ResourceSliceSpec) field.ErrorList {
	errs := core.CSIDriverName(path.Child("driver"), s.Driver)
	return append(errs, validatePool(path.Child("pool"), &s.Pool)...)
}

func validateSliceBody(path *field.Path, s *resourcev1.ResourceSliceSpec) field.ErrorList {
	errs := validateSliceNodes(path, s)
	names := map[string]bool{}
	for i := range s.Devices {
		d, at := &s.Devices[i], path.Child("devices").Index(i)
		errs = append(errs, core.Label(at.Child("name"), d.Name)...)
		if names[d.Name] {
			errs = append(errs, field.Duplicate(at, d.Name))
		}
		names[d.Name] = true
		for name, a := range d.Attributes {
			errs = append(errs, validateAttribute(at.Child("attributes").Key(string(name)), &a)...)
		}
	}
	return errs
}

func validateResourceSliceUpdate(x, old *resourcev1.ResourceSlice) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateSliceHead(path, &x.Spec)
	errs = append(errs, core.Immutable(path.Child("pool", "name"), x.Spec.Pool.Name, old.Spec.Pool.Name)...)
	errs = append(errs, core.Immutable(path.Child("driver"), x.Spec.Driver, old.Spec.Driver)...)
	if was, now := old.Spec.NodeName, x.Spec.NodeName; was != nil || now != nil {
		errs = append(errs, core.Immutable(path.Child("nodeName"), now, was)...)
	}
	return append(errs, validateSliceBody(path, &x.Spec)...)
}

// validatePool checks a pool, whose name is one DNS subdomain or several with slashes between them.
func validatePool(path *field.Path, p *resourcev1.ResourcePool) field.ErrorList {
	errs := validatePoolName(path.Child("name"), p.Name)
	if p.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(path.Child("resourceSliceCount"), p.ResourceSliceCount, "must be greater than zero"))
	}
	if p.Generation < 0 {
		errs = append(errs, field.Invalid(path.Child("generation"), p.Generation, "must be greater than or equal to zero"))
	}
	return errs
}

func validatePoolName(path *field.Path, name string) field.ErrorList {
	const longest = 253
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > longest {
		errs = append(errs, field.TooLong(path, "", longest))
	}
	for part := range strings.SplitSeq(name, "/") {
		errs = append(errs, core.Subdomain(path, part)...)
	}
	return errs
}

// validateSliceNodes checks that a slice says in just one way which nodes have its devices.
func validateSliceNodes(path *field.Path, s *resourcev1.ResourceSliceSpec) field.ErrorList {
	const choice = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
	var errs field.ErrorList
	var set []string
	if n := s.NodeName; n != nil {
		if *n == "" {
			errs = append(errs, field.Invalid(path.Child("nodeName"), *n, "must be either unset or set to a non-empty string"))
		} else {
			set = append(set, "`nodeName`")
			errs = append(errs, core.Subdomain(path.Child("nodeName"), *n)...)
		}
	}
	if n := s.NodeSelector; n != nil {
		set = append(set, "`nodeSelector`")
		errs = append(errs, core.ValidateNodeSelector(path.Child("nodeSelector"), n)...)
		if len(n.NodeSelectorTerms) != 1 {
			errs = append(errs, field.Invalid(path.Child("nodeSelector", "nodeSelectorTerms"), n.NodeSelectorTerms, "must have exactly one node selector term"))
		}
	}
	for _, flag := range []struct {
		name string
		on   *bool
	}{{"allNodes", s.AllNodes}, {"perDeviceNodeSelection", s.PerDeviceNodeSelection}} {
		switch {
		case flag.on == nil:
		case *flag.on:
			set = append(set, "`"+flag.name+"`")
		default:
			errs = append(errs, field.Invalid(path.Child(flag.name), false, "must be either unset or set to true"))
		}
	}
	switch len(set) {
	case 0:
		errs = append(errs, field.Required(path, choice))
	case 1:
	default:
		errs = append(errs, field.Invalid(path, "{"+strings.Join(set, ", ")+"}", choice+", but multiple fields are set"))
	}
	return errs
}

// semantic is a version as semver.org 2.0.0 writes it.
var semantic = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
	`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)

// validateAttribute checks that an attribute has one value, which is not too long.
func validateAttribute(path *field.Path, a *resourcev1.DeviceAttribute) field.ErrorList {
	var errs field.ErrorList
	n := 0
	for _, set := range []bool{a.StringValue != nil, a.VersionValue != nil, a.IntValue != nil, a.BoolValue != nil, a.StringValues != nil, a.IntValues != nil, a.BoolValues != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		shown := any("")
		if n > 1 {
			shown = fmt.Sprintf("%d values", n)
		}
		errs = append(errs, field.Invalid(path, shown, "exactly one value must be specified"))
	}
	if s := a.StringValue; s != nil && len(*s) > resourcev1.DeviceAttributeMaxValueLength {
		errs = append(errs, field.TooLong(path.Child("string"), *s, resourcev1.DeviceAttributeMaxValueLength))
	}
	if v := a.VersionValue; v != nil {
		if !semantic.MatchString(*v) {
			errs = append(errs, field.Invalid(path.Child("version"), *v, "must be a string compatible with semver.org spec 2.0.0"))
		}
		if len(*v) > resourcev1.DeviceAttributeMaxValueLength {
			errs = append(errs, field.TooLong(path.Child("version"), *v, resourcev1.DeviceAttributeMaxValueLength))
		}
	}
	return errs
}
