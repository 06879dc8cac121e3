package plan

import (
	"bytes"
	"reflect"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Equal is equality.Semantic.DeepEqual of what two pointers of one type point to. What they share is not looked at.
func Equal(a, b any) bool {
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if x.Kind() != reflect.Pointer || x.Type() != y.Type() || x.IsNil() || y.IsNil() {
		return apiequality.Semantic.DeepEqual(a, b)
	}
	return EqualValues(x.Elem(), y.Elem())
}

// EqualValues is Equal of two addressable values of one type.
func EqualValues(a, b reflect.Value) bool { return equal(planOf(a.Type()), a, b) }

func equal(p *plan, a, b reflect.Value) bool {
	switch p.op {
	case object:
		if p.hidden {
			break
		}
		for i := range p.fields {
			f := &p.fields[i]
			if !equal(f.plan, f.of(a), f.of(b)) {
				return false
			}
		}
		return true
	case pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return a.UnsafePointer() == b.UnsafePointer() || equal(p.elem, a.Elem(), b.Elem())
	case list:
		if a.Len() != b.Len() {
			return false
		}
		if a.Len() == 0 || a.UnsafePointer() == b.UnsafePointer() {
			return true
		}
		for i := range a.Len() {
			if !equal(p.elem, a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case dictionary:
		return equalDictionaries(p, a, b)
	case text:
		return a.String() == b.String()
	case boolean:
		return a.Bool() == b.Bool()
	case signed:
		return a.Int() == b.Int()
	case unsigned:
		return a.Uint() == b.Uint()
	case octets:
		return bytes.Equal(a.Bytes(), b.Bytes())
	case moment:
		return a.Addr().Interface().(*metav1.Time).UTC() == b.Addr().Interface().(*metav1.Time).UTC()
	case quantity:
		return a.Addr().Interface().(*resource.Quantity).Cmp(*b.Addr().Interface().(*resource.Quantity)) == 0
	case intOrString:
		return a.Equal(b)
	case fieldSet:
		return bytes.Equal(a.Addr().Interface().(*metav1.FieldsV1).Raw, b.Addr().Interface().(*metav1.FieldsV1).Raw)
	}
	return apiequality.Semantic.DeepEqual(a.Interface(), b.Interface())
}

func equalDictionaries(p *plan, a, b reflect.Value) bool {
	if a.Len() != b.Len() {
		return false
	}
	if a.Len() == 0 || a.UnsafePointer() == b.UnsafePointer() {
		return true
	}
	if x, ok := a.Interface().(map[string]string); ok {
		y := b.Interface().(map[string]string)
		for k, v := range x {
			if w, ok := y[k]; !ok || v != w {
				return false
			}
		}
		return true
	}
	addressable := func(v reflect.Value) reflect.Value {
		c := reflect.New(p.elem.typ).Elem()
		c.Set(v)
		return c
	}
	for it := a.MapRange(); it.Next(); {
		y := b.MapIndex(it.Key())
		if !y.IsValid() || !equal(p.elem, addressable(it.Value()), addressable(y)) {
			return false
		}
	}
	return true
}
