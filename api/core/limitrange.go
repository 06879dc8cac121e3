package core

import (
	"fmt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var limitRange = &api.Kind{
	Version: "v1", Kind: "LimitRange",
	Plural: "limitranges", Singular: "limitrange", ShortNames: []string{"limits"}, Namespaced: true,
	StoragePath: "limitranges",
	New:         api.New[corev1.LimitRange], NewList: api.NewList[corev1.LimitRangeList],
	Validate:       api.Check(validateLimitRange),
	ValidateUpdate: api.CheckUpdate(func(x, _ *corev1.LimitRange) field.ErrorList { return validateLimitRange(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.CreatedColumn(),
	},
	Default:             api.Defaults(defaultLimitRange),
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
}

func defaultLimitRange(x *corev1.LimitRange) {
	for i := range x.Spec.Limits {
		l := &x.Spec.Limits[i]
		if l.Type != corev1.LimitTypeContainer {
			continue
		}
		l.Default = fillFrom(l.Default, l.Max)
		l.DefaultRequest = fillFrom(l.DefaultRequest, l.Default)
		l.DefaultRequest = fillFrom(l.DefaultRequest, l.Min)
	}
}

// fillFrom adds to list what it lacks and from has.
func fillFrom(list, from corev1.ResourceList) corev1.ResourceList {
	for name, q := range from {
		if _, ok := list[name]; ok {
			continue
		}
		if list == nil {
			list = corev1.ResourceList{}
		}
		list[name] = q.DeepCopy()
	}
	return list
}

func validateLimitRange(x *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.LimitType]bool{}
	for i, l := range x.Spec.Limits {
		at := field.NewPath("spec", "limits").Index(i)
		if seen[l.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), l.Type))
		}
		seen[l.Type] = true
		if l.Type == corev1.LimitTypePod && len(l.Default)+len(l.DefaultRequest) > 0 {
			errs = append(errs, field.Forbidden(at.Child("default"), "may not be specified when `type` is 'Pod'"))
		}
		for name, high := range l.Max {
			if low, ok := l.Min[name]; ok && low.Cmp(high) > 0 {
				errs = append(errs, field.Invalid(at.Child("min").Key(string(name)), low, fmt.Sprintf("min value %s is greater than max value %s", low.String(), high.String())))
			}
			if d, ok := l.Default[name]; ok && d.Cmp(high) > 0 {
				errs = append(errs, field.Invalid(at.Child("default").Key(string(name)), d, fmt.Sprintf("default value %s is greater than max value %s", d.String(), high.String())))
			}
		}
		for name, d := range l.DefaultRequest {
			if high, ok := l.Default[name]; ok && d.Cmp(high) > 0 {
				errs = append(errs, field.Invalid(at.Child("defaultRequest").Key(string(name)), d, fmt.Sprintf("default request value %s is greater than default limit value %s", d.String(), high.String())))
			}
		}
	}
	return errs
}
