package rest

import (
	"reflect"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec/plan"
)

// This file is what the server does to the parts of an object that all kinds have.

// keepMeta gives an update the metadata that a client cannot change or may leave out.
func keepMeta(obj, old api.Object) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	if old.GetDeletionTimestamp() != nil {
		obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	}
	if obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	if obj.GetGenerateName() == "" {
		obj.SetGenerateName(old.GetGenerateName())
	}
	obj.SetGeneration(old.GetGeneration())
	obj.SetSelfLink("")
	obj.SetResourceVersion(old.GetResourceVersion())
}

func validateMeta(k *api.Kind, obj api.Object) field.ErrorList {
	name := apivalidation.NameIsDNSSubdomain
	if k.ValidateName != nil {
		name = k.ValidateName
	}
	return apivalidation.ValidateObjectMetaAccessor(obj, k.Namespaced, name, field.NewPath("metadata"))
}

func validateMetaUpdate(obj, old api.Object) field.ErrorList {
	return apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, field.NewPath("metadata"))
}

// statusOf is the status field of a built-in object.
func statusOf(obj api.Object) (reflect.Value, bool) {
	v := reflect.ValueOf(obj).Elem()
	if v.Kind() != reflect.Struct {
		return v, false
	}
	f := v.FieldByName("Status")
	return f, f.IsValid()
}

// copyStatus sets dst's status to src's. They share it afterwards.
func copyStatus(dst, src api.Object) {
	if d, ok := dst.(*unstructured.Unstructured); ok {
		if s, ok := src.(*unstructured.Unstructured).Object["status"]; ok {
			d.Object["status"] = s
		} else {
			delete(d.Object, "status")
		}
		return
	}
	d, ok := statusOf(dst)
	if s, has := statusOf(src); ok && has {
		d.Set(s)
	}
}

// outside calls f with the place of every field of a built-in object but its metadata and status.
func outside(obj api.Object, f func(i int)) {
	t := reflect.TypeOf(obj).Elem()
	for i := range t.NumField() {
		switch t.Field(i).Name {
		case "TypeMeta", "ObjectMeta", "Status":
		default:
			f(i)
		}
	}
}

// onlyStatus leaves a built-in object nothing but its metadata and status.
func onlyStatus(obj api.Object) {
	v := reflect.ValueOf(obj).Elem()
	outside(obj, func(i int) { v.Field(i).SetZero() })
}

// keepOutside gives a built-in object src's fields outside metadata and status. They share them afterwards.
func keepOutside(dst, src api.Object) {
	d, s := reflect.ValueOf(dst).Elem(), reflect.ValueOf(src).Elem()
	outside(dst, func(i int) { d.Field(i).Set(s.Field(i)) })
}

// sameOutsideStatus reports whether two objects differ in nothing but metadata and status, which is what
// metadata.generation counts.
//
// status says that the kind has a status beside its spec; a custom resource without the subresource has none.
func sameOutsideStatus(a, b api.Object, status bool) bool {
	if u, ok := a.(*unstructured.Unstructured); ok {
		return sameMaps(u.Object, b.(*unstructured.Unstructured).Object, status)
	}
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	same := true
	outside(a, func(i int) { same = same && plan.EqualValues(va.Field(i), vb.Field(i)) })
	return same
}

func sameMaps(a, b map[string]any, status bool) bool {
	strip := func(m map[string]any) map[string]any {
		out := map[string]any{}
		for k, v := range m {
			if k != "metadata" && (k != "status" || !status) && k != "apiVersion" && k != "kind" {
				out[k] = v
			}
		}
		return out
	}
	return apiequality.Semantic.DeepEqual(strip(a), strip(b))
}

// unchanged reports whether a write would change nothing but the times of managed fields. Where it would change only
// those, obj gets the old ones back.
func unchanged(obj, old api.Object) bool {
	if a, ok := obj.(interface{ Size() int }); ok {
		if b, ok := old.(interface{ Size() int }); ok {
			// Times are of the same length nearly always, so different sizes mean a change.
			if d := a.Size() - b.Size(); d > 64 || d < -64 {
				return false
			}
		}
	}
	now, before := obj.GetManagedFields(), old.GetManagedFields()
	if !sameManaged(now, before) {
		return false
	}
	obj.SetManagedFields(before)
	if plan.Equal(obj, old) {
		return true
	}
	obj.SetManagedFields(now)
	return false
}

// sameManaged compares managed fields without their times and order.
func sameManaged(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	used := make([]bool, len(b))
next:
	for _, x := range a {
		for i, y := range b {
			if used[i] {
				continue
			}
			x.Time, y.Time = nil, nil
			if apiequality.Semantic.DeepEqual(x, y) {
				used[i] = true
				continue next
			}
		}
		return false
	}
	return true
}
