package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
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
	if len(x.Spec.Limits) == 0 {
		x.Spec.Limits = nil
	}
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
	for i := range x.Spec.Limits {
		l, at := &x.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, metavalidation.ValidateLabelName(string(l.Type), at.Child("type"))...)
		if seen[l.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), l.Type))
		}
		seen[l.Type] = true
		if l.Type == corev1.LimitTypePod {
			for _, f := range []struct {
				name string
				list corev1.ResourceList
			}{{"default", l.Default}, {"defaultRequest", l.DefaultRequest}} {
				if len(f.list) > 0 {
					errs = append(errs, field.Forbidden(at.Child(f.name), "may not be specified when `type` is 'Pod'"))
				}
			}
		}
		names := sets.Set[corev1.ResourceName]{}
		for _, list := range []corev1.ResourceList{l.Max, l.Min, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
			names = names.Union(sets.KeySet(list))
		}
		for _, name := range sets.List(names) {
			errs = append(errs, validateLimits(at, name, l)...)
		}
	}
	return errs
}

// validateLimits checks that the bounds of one resource are in order: min <= defaultRequest <= default <= max.
func validateLimits(path *field.Path, name corev1.ResourceName, l *corev1.LimitRangeItem) field.ErrorList {
	var errs field.ErrorList
	ordered := func(lowWord, highWord string, lows, highs corev1.ResourceList, blame string, blameHigh bool) {
		low, ok1 := lows[name]
		high, ok2 := highs[name]
		if !ok1 || !ok2 || low.Cmp(high) <= 0 {
			return
		}
		shown := low.String()
		if blameHigh {
			shown = high.String()
		}
		errs = append(errs, field.Invalid(path.Child(blame).Key(string(name)), shown, fmt.Sprintf("%s value %s is greater than %s value %s", lowWord, low.String(), highWord, high.String())))
	}
	ordered("min", "max", l.Min, l.Max, "min", false)
	ordered("min", "default request", l.Min, l.DefaultRequest, "defaultRequest", true)
	ordered("default request", "max", l.DefaultRequest, l.Max, "defaultRequest", false)
	ordered("default request", "default limit", l.DefaultRequest, l.Default, "defaultRequest", false)
	ordered("min", "default", l.Min, l.Default, "default", false)
	ordered("default", "max", l.Default, l.Max, "default", true)
	ratio, ok := l.MaxLimitRequestRatio[name]
	if !ok {
		return errs
	}
	at := path.Child("maxLimitRequestRatio").Key(string(name))
	if ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		errs = append(errs, field.Invalid(at, ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String())))
	}
	low, ok1 := l.Min[name]
	high, ok2 := l.Max[name]
	if ok1 && ok2 && !low.IsZero() {
		if most := high.AsApproximateFloat64() / low.AsApproximateFloat64(); ratio.AsApproximateFloat64() > most {
			errs = append(errs, field.Invalid(at, ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), most)))
		}
	}
	return errs
}
