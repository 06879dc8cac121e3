package codec

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
)

// Convert turns an object into another row's version of the same kind by way of the hub. The argument is not changed,
// but is returned as it is if it is of that version already.
func Convert(obj api.Object, from, to *api.Kind) (api.Object, error) {
	switch {
	case from == to:
		return obj, nil
	case from.CRD && to.FromHub != nil: // any version becomes any other in one step
		return to.FromHub(obj)
	case from.CRD:
		return from.ToHub(obj)
	}
	var err error
	if from.Hub != nil {
		if obj, err = from.ToHub(obj); err != nil {
			return nil, err
		}
		from = from.Hub
		obj.GetObjectKind().SetGroupVersionKind(from.GroupVersionKind())
	}
	if from == to {
		return obj, nil
	}
	if to.Hub != from {
		return nil, fmt.Errorf("%s does not convert to %s", from, to)
	}
	if obj, err = to.FromHub(obj); err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(to.GroupVersionKind())
	return obj, nil
}

// Converter is runtime.ObjectConvertor over a table. Objects of the wanted version are returned as they are.
type Converter struct{ Table *api.Table }

func (c Converter) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	in, want, err := Target(in, gv)
	if err != nil {
		return nil, err
	}
	gvk := in.GetObjectKind().GroupVersionKind()
	from, ok := c.Table.Kind(gvk)
	if !ok {
		if want == gvk {
			return typed(in, gvk)
		}
		return nil, runtime.NewNotRegisteredErrForKind("table", gvk)
	}
	to, ok := c.Table.Kind(want)
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("table", want)
	}
	if u, ok := in.(runtime.Unstructured); ok && !from.CRD {
		obj := from.New()
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), obj); err != nil {
			return nil, err
		}
		in = obj
	}
	obj, ok := in.(api.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object", in)
	}
	return Convert(obj, from, to)
}

// Target says which version of the object a versioner asks for. An object that stands for another, which is made when it is
// asked for (the field manager's), is replaced by that.
func Target(in runtime.Object, gv runtime.GroupVersioner) (obj runtime.Object, want schema.GroupVersionKind, err error) {
	if lazy, ok := in.(interface {
		Object() (runtime.Object, error)
	}); ok {
		if in, err = lazy.Object(); err != nil {
			return nil, want, err
		}
	}
	gvk := in.GetObjectKind().GroupVersionKind()
	if want, ok := gv.KindForGroupVersionKinds([]schema.GroupVersionKind{gvk}); ok {
		return in, want, nil
	}
	if v, ok := gv.(schema.GroupVersion); ok {
		return in, v.WithKind(gvk.Kind), nil
	}
	return nil, want, runtime.NewNotRegisteredErrForTarget("table", nil, gv)
}

// typed turns an unstructured object whose kind is in the scheme, but in no row (Scale), into its Go type.
func typed(in runtime.Object, gvk schema.GroupVersionKind) (runtime.Object, error) {
	u, ok := in.(runtime.Unstructured)
	if !ok || !Scheme().Recognizes(gvk) {
		return in, nil
	}
	obj, err := Scheme().New(gvk)
	if err != nil {
		return nil, err
	}
	return obj, runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), obj)
}

func (c Converter) Convert(in, out, context any) error {
	return fmt.Errorf("conversion into a given object is not supported")
}

func (c Converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

// Default makes Converter a runtime.ObjectDefaulter.
func (c Converter) Default(in runtime.Object) {
	if obj, ok := in.(api.Object); ok {
		if k, ok := c.Table.Of(obj); ok && k.Default != nil {
			k.Default(obj)
		}
	}
}

// New makes Converter a runtime.ObjectCreater.
func (c Converter) New(gvk schema.GroupVersionKind) (runtime.Object, error) {
	k, ok := c.Table.Kind(gvk)
	if !ok {
		obj, err := Scheme().New(gvk)
		if err == nil {
			obj.GetObjectKind().SetGroupVersionKind(gvk)
		}
		return obj, err
	}
	obj := k.New()
	obj.GetObjectKind().SetGroupVersionKind(gvk)
	return obj, nil
}
