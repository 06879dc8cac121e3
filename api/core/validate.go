package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions here judge what many kinds have in common. Texts are upstream's: people and tests look for them.

// Problems turns the messages of a string check into errors about one field.
func Problems(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// Label checks a DNS label, Subdomain a DNS subdomain.
func Label(path *field.Path, s string) field.ErrorList {
	return Problems(path, s, validation.IsDNS1123Label(s))
}

// Subdomain checks a DNS subdomain.
func Subdomain(path *field.Path, s string) field.ErrorList {
	return Problems(path, s, validation.IsDNS1123Subdomain(s))
}

// Required reports an empty string.
func Required(path *field.Path, s, detail string) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, detail)}
	}
	return nil
}

// OneOf checks an enumerated value. Empty is Required if it is not among the valid ones.
func OneOf[T ~string](path *field.Path, v T, valid ...T) field.ErrorList {
	switch {
	case slices.Contains(valid, v):
		return nil
	case v == "":
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.NotSupported(path, v, valid)}
}

// Known checks an enumerated value that must not be empty unless that is among the valid ones: no word for missing.
func Known[T ~string](path *field.Path, v T, valid ...T) field.ErrorList {
	if slices.Contains(valid, v) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, v, valid)}
}

// NotNegative checks a count, if it is there.
func NotNegative[T int32 | int64](path *field.Path, n *T) field.ErrorList {
	if n == nil {
		return nil
	}
	return apivalidation.ValidateNonnegativeField(int64(*n), path)
}

// NotNegativeInteger is NotNegative in the words of newer rules.
func NotNegativeInteger(path *field.Path, n int64) field.ErrorList {
	if n >= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, n, "must be a non-negative integer")}
}

// Count is one number of a status.
type Count struct {
	Field string
	N     int64
}

// Counts checks that no number of a status is negative.
func Counts(path *field.Path, counts ...Count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counts {
		errs = append(errs, apivalidation.ValidateNonnegativeField(c.N, path.Child(c.Field))...)
	}
	return errs
}

// AtMost reports a number of a status that is greater than another, whose name is of.
func AtMost(path *field.Path, n, most int32, of string) field.ErrorList {
	if n > most {
		return field.ErrorList{field.Invalid(path, n, "cannot be greater than "+of)}
	}
	return nil
}

// NotDecremented checks a status's count of name collisions.
func NotDecremented(path *field.Path, now, old *int32) field.ErrorList {
	var errs field.ErrorList
	if now != nil {
		errs = apivalidation.ValidateNonnegativeField(int64(*now), path)
	}
	if old != nil && (now == nil || *now < *old) {
		n := int32(0)
		if now != nil {
			n = *now
		}
		errs = append(errs, field.Invalid(path, n, "cannot be decremented"))
	}
	return errs
}

// Immutable reports a changed field.
func Immutable(path *field.Path, now, old any) field.ErrorList {
	return apivalidation.ValidateImmutableField(now, old, path)
}

// Port checks a port number.
func Port(path *field.Path, n int32) field.ErrorList {
	return Problems(path, n, validation.IsValidPortNum(int(n)))
}

// PortOrName checks a number or a port's name.
func PortOrName(path *field.Path, p intstr.IntOrString) field.ErrorList {
	if p.Type == intstr.String {
		return Problems(path, p.StrVal, validation.IsValidPortName(p.StrVal))
	}
	return Port(path, p.IntVal)
}

// CountOrPercent checks a count that is not negative, or a percentage.
func CountOrPercent(path *field.Path, v *intstr.IntOrString) field.ErrorList {
	switch {
	case v == nil:
		return nil
	case v.Type == intstr.String:
		return Problems(path, *v, validation.IsValidPercent(v.StrVal))
	}
	return apivalidation.ValidateNonnegativeField(int64(v.IntVal), path)
}

// AtMostAll reports a percentage above 100.
func AtMostAll(path *field.Path, v *intstr.IntOrString) field.ErrorList {
	if v == nil || v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return nil
	}
	var n int
	if _, err := fmt.Sscanf(strings.TrimSuffix(v.StrVal, "%"), "%d", &n); err == nil && n <= 100 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, *v, "must not be greater than 100%")}
}

// IsZero reports whether a count or percentage is none at all.
func IsZero(v *intstr.IntOrString) bool {
	if v == nil {
		return true
	}
	if v.Type == intstr.String {
		return strings.TrimLeft(strings.TrimSuffix(v.StrVal, "%"), "0") == ""
	}
	return v.IntVal == 0
}

// LabelSelector checks a selector.
func LabelSelector(path *field.Path, s *metav1.LabelSelector) field.ErrorList {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, path)
}

// MatchTemplate checks that a workload's selector is there, is not empty and picks the pods of its template. kind
// is the word of the message.
func MatchTemplate(path *field.Path, s *metav1.LabelSelector, t *corev1.PodTemplateSpec, kind string) field.ErrorList {
	var errs field.ErrorList
	if s == nil && kind != "daemonset" {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	errs = append(errs, LabelSelector(path.Child("selector"), s)...)
	if s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path.Child("selector"), s, "empty selector is invalid for "+kind))
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		switch kind {
		case "statefulset":
			errs = append(errs, field.Invalid(path.Child("selector"), s, ""))
		case "deployment":
			errs = append(errs, field.Invalid(path.Child("selector"), s, "invalid label selector"))
		}
		return errs
	}
	if !sel.Empty() && !sel.Matches(labelSet(t.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// ValidatePodTemplate checks a pod template.
func ValidatePodTemplate(path *field.Path, t *corev1.PodTemplateSpec) field.ErrorList {
	errs := metavalidation.ValidateLabels(t.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(t.Annotations, path.Child("annotations"))...)
	errs = append(errs, ValidatePodSpec(path.Child("spec"), &t.Spec)...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// validateTemplateMeta checks the labels and annotations that objects made from a template will have.
func validateTemplateMeta(path *field.Path, m *metav1.ObjectMeta) field.ErrorList {
	errs := apivalidation.ValidateAnnotations(m.Annotations, path.Child("annotations"))
	return append(errs, metavalidation.ValidateLabels(m.Labels, path.Child("labels"))...)
}

// AlwaysRestarting checks a template whose pods must never end by themselves.
func AlwaysRestarting(path *field.Path, t *corev1.PodTemplateSpec, kind string) field.ErrorList {
	var errs field.ErrorList
	if p := t.Spec.RestartPolicy; p != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), p, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

type labelSet map[string]string

func (l labelSet) Has(k string) bool              { _, ok := l[k]; return ok }
func (l labelSet) Get(k string) string            { return l[k] }
func (l labelSet) Lookup(k string) (string, bool) { v, ok := l[k]; return v, ok }

// PathSegment checks a name that may be anything that fits between two slashes of a path: a row's ValidateName.
func PathSegment(name string, prefix bool) []string {
	var out []string
	if !prefix && (name == "." || name == "..") {
		return []string{fmt.Sprintf("may not be '%s'", name)}
	}
	for _, illegal := range []string{"/", "%"} {
		if strings.Contains(name, illegal) {
			out = append(out, fmt.Sprintf("may not contain '%s'", illegal))
		}
	}
	return out
}
