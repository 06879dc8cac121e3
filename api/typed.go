package api

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions here let rows be written with functions on Go types: a row's fields take Object, and nearly every
// function that fills them knows its type.

// New makes an empty object: New[corev1.Pod] is a row's New.
func New[T any, P interface {
	*T
	Object
}]() Object {
	return P(new(T))
}

// NewList makes an empty list: NewList[corev1.PodList] is a row's NewList.
func NewList[T any, P interface {
	*T
	runtime.Object
}]() runtime.Object {
	return P(new(T))
}

// Defaults is a row's Default.
func Defaults[T Object](f func(T)) func(Object) { return func(o Object) { f(o.(T)) } }

// OnCreate is a row's PrepareCreate.
func OnCreate[T Object](f func(T)) func(context.Context, Object) {
	return func(_ context.Context, o Object) { f(o.(T)) }
}

// OnUpdate is a row's PrepareUpdate.
func OnUpdate[T Object](f func(obj, old T)) func(context.Context, Object, Object) {
	return func(_ context.Context, o, old Object) { f(o.(T), old.(T)) }
}

// Check is a row's Validate.
func Check[T Object](f func(T) field.ErrorList) func(Object) field.ErrorList {
	return func(o Object) field.ErrorList { return f(o.(T)) }
}

// CheckUpdate is a row's ValidateUpdate or ValidateStatus.
func CheckUpdate[T Object](f func(obj, old T) field.ErrorList) func(obj, old Object) field.ErrorList {
	return func(o, old Object) field.ErrorList { return f(o.(T), old.(T)) }
}

// Selectable is a row's Fields.
func Selectable[T Object](f func(T) map[string]string) func(Object) map[string]string {
	return func(o Object) map[string]string { return f(o.(T)) }
}

// Status is the usual status subresource.
func Status() Subresource { return part(StatusSub, "status", "get", "patch", "update") }

// PartOf is another named view of the parent.
func PartOf(name string, verbs ...string) Subresource { return part(PartSub, name, verbs...) }

func part(t SubresourceType, name string, verbs ...string) Subresource {
	return Subresource{Name: name, Type: t, Verbs: verbs}
}

// Connect is a stream or proxy whose options are a kind of the core group.
func Connect(name, kind string, verbs ...string) Subresource {
	return Subresource{Name: name, Type: ConnectSub, Version: "v1", Kind: kind, Verbs: verbs}
}

// Action is a subresource that a body is posted to.
func Action[T any, P interface {
	*T
	runtime.Object
}](name, group, version, kind string) Subresource {
	return Subresource{Name: name, Type: ActionSub, Group: group, Version: version, Kind: kind,
		Verbs: []string{"create"}, New: func() runtime.Object { return P(new(T)) }}
}

// Scale is the scale subresource.
func Scale(m *ScaleMapping) Subresource {
	return Subresource{Name: "scale", Type: ScaleSub, Group: "autoscaling", Version: "v1", Kind: "Scale",
		Verbs: []string{"get", "patch", "update"}, Scale: m}
}

// ScaleOf makes a mapping from two functions on the type. get returns the wanted and the present number of replicas
// and the selector of the pods as text.
func ScaleOf[T Object](get func(T) (spec *int32, status int32, selector string), set func(T, *int32)) *ScaleMapping {
	return &ScaleMapping{
		Get: func(o Object) (int32, int32, string) {
			spec, status, selector := get(o.(T))
			if spec == nil {
				return 0, status, selector
			}
			return *spec, status, selector
		},
		Set: func(o Object, n int32) { set(o.(T), &n) },
	}
}

// SelectorText writes a label selector the way Scale and printer columns show it; "" selects nothing or is invalid.
func SelectorText(s *metav1.LabelSelector) string {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	return sel.String()
}
