package rest

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/kube-openapi/pkg/spec3"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/openapi"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/request"
)

// This file keeps metadata.managedFields: who set which field, for server-side apply.

type managerKey struct {
	k   *api.Kind
	gvk schema.GroupVersionKind
	sub string
}

// manager is the field manager of a row or of one of its subresources. For scale, gvk is autoscaling/v1 Scale.
func (r *REST) manager(k *api.Kind, gvk schema.GroupVersionKind, sub string) (*managedfields.FieldManager, error) {
	key := managerKey{k, gvk, sub}
	if m, ok := r.managers.Load(key); ok {
		return m.(*managedfields.FieldManager), nil
	}
	conv := codec.Converter{Table: r.Kinds}
	var versions runtime.ObjectConvertor = conv
	make := managedfields.NewDefaultFieldManager
	var types managedfields.TypeConverter
	switch {
	case k.CRD:
		make, types = managedfields.NewDefaultCRDFieldManager, managedfields.NewDeducedTypeConverter()
		if r.CustomTypes != nil && gvk == k.GroupVersionKind() {
			var custom runtime.ObjectConvertor
			if types, custom = r.CustomTypes(k); custom != nil {
				versions = custom
			}
		}
	case slices.Contains(withoutSchema, gvk.Group):
		var err error
		if types, err = publishedTypes(gvk.GroupVersion()); err != nil {
			return nil, err
		}
	case gvk.Kind == "Scale":
		types = managedfields.NewDeducedTypeConverter()
	default:
		types = applyconfigurations.NewTypeConverter(codec.Scheme())
	}
	hub := k.Storage().GroupVersion()
	if k.CRD {
		hub = k.GroupVersion() // the storage version need not be served
	}
	if gvk != k.GroupVersionKind() {
		hub = gvk.GroupVersion()
	}
	lazy := lazyTypes{TypeConverter: types, gvk: gvk}
	if probe, err := codec.Scheme().New(gvk); err == nil && !k.CRD {
		probe.GetObjectKind().SetGroupVersionKind(gvk)
		if v, err := types.ObjectToTyped(probe); err == nil {
			lazy.schema, lazy.ref = v.Schema(), v.TypeRef()
		}
	}
	types = lazy
	m, err := make(types, versions, conv, conv, gvk, hub, sub, r.resetFields(k, sub))
	if err != nil {
		return nil, err
	}
	got, _ := r.managers.LoadOrStore(key, m)
	return got.(*managedfields.FieldManager), nil
}

// withoutSchema are the groups whose types client-go's apply configurations lack.
var withoutSchema = []string{"apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io", "authorization.k8s.io"}

// publishedTypes reads a group's types from the schemas that clients get.
func publishedTypes(gv schema.GroupVersion) (managedfields.TypeConverter, error) {
	b, err := openapi.V3(gv.String())
	if err != nil {
		return nil, err
	}
	var doc spec3.OpenAPI
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	return managedfields.NewTypeConverter(doc.Components.Schemas, false)
}

// manage gives obj the managed fields that it has when the manager replaces old (an empty object: creates) by it.
func (r *REST) manage(k *api.Kind, sub string, old, obj api.Object, manager string) (api.Object, error) {
	m, err := r.manager(k, k.GroupVersionKind(), sub)
	if err != nil {
		return nil, err
	}
	if same, ok := agreeing(k, old, obj); ok {
		key := managerKey{k: k, sub: sub}
		known, ok := r.shapes.Load(key)
		if !ok {
			known, _ = r.shapes.LoadOrStore(key, &shapes{})
		}
		entries, ok, learn := known.(*shapes).remembered(old, obj, same, manager)
		if !ok {
			entries = m.UpdateNoErrors(same.without(old), same.without(obj), manager).(api.Object).GetManagedFields()
			if learn != nil {
				learn(entries)
			}
		}
		obj.SetManagedFields(entries)
		return obj, nil
	}
	return m.UpdateNoErrors(old, obj, manager).(api.Object), nil
}

// members are some of a struct's, by their numbers.
type members uint64

func (f members) has(i int) bool { return f>>i&1 == 1 }

// agreeing are the top-level fields that are the same in both objects: who owns what follows from the differences alone,
// and a write of the status leaves a large spec as it was. ok is false where the fields must be looked at in more than
// one version.
func agreeing(k *api.Kind, old, obj api.Object) (same members, ok bool) {
	if k.CRD {
		return 0, false
	}
	version := k.GroupVersion()
	for _, entries := range [][]metav1.ManagedFieldsEntry{old.GetManagedFields(), obj.GetManagedFields()} {
		for i := range entries {
			if !isVersion(entries[i].APIVersion, version) {
				return 0, false
			}
		}
	}
	a, b := reflect.ValueOf(old), reflect.ValueOf(obj)
	if a.Type() != b.Type() || a.Elem().Kind() != reflect.Struct || a.Elem().NumField() > 64 {
		return 0, false
	}
	a, b = a.Elem(), b.Elem()
	for i := range a.NumField() {
		switch a.Type().Field(i).Name {
		case "TypeMeta", "ObjectMeta":
		default: // by pointers: a struct in an interface is a copy
			if reflect.DeepEqual(a.Field(i).Addr().Interface(), b.Field(i).Addr().Interface()) {
				same |= 1 << i
			}
		}
	}
	return same, true
}

// isVersion compares without putting the version together.
func isVersion(s string, gv schema.GroupVersion) bool {
	if gv.Group == "" {
		return s == gv.Version
	}
	rest, ok := strings.CutPrefix(s, gv.Group)
	return ok && len(rest) > 0 && rest[0] == '/' && rest[1:] == gv.Version
}

// without is the object, not copied deeply, without these fields.
func (f members) without(obj api.Object) api.Object {
	v := reflect.ValueOf(obj).Elem()
	less := reflect.New(v.Type())
	for i := range v.NumField() {
		if !f.has(i) {
			less.Elem().Field(i).Set(v.Field(i))
		}
	}
	return less.Interface().(api.Object)
}

// resetFields are the fields that a write to the resource or subresource leaves as they were, so that nobody comes to
// own them by it.
func (r *REST) resetFields(k *api.Kind, sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	var set *fieldpath.Set
	switch s, ok := k.Subresource("status"); {
	case sub == "" && resourceName(k) == "certificatesigningrequests.certificates.k8s.io": // its spec is the server's to keep
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("status"))
	case sub == "status" && k.CRD:
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"), fieldpath.MakePathOrDie("metadata"))
	case sub == "status":
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("spec"))
	case sub == "" && ok && s.Type == api.StatusSub:
		set = fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	default:
		return nil
	}
	out := map[fieldpath.APIVersion]fieldpath.Filter{}
	for _, v := range r.siblings(k) {
		if v != k && sub == "" {
			continue // upstream looks after the other versions in writes of the status alone
		}
		out[fieldpath.APIVersion(v.GroupVersion().String())] = fieldpath.NewExcludeSetFilter(set)
	}
	return out
}

// managerName is the manager that the client named, or what its user agent begins with.
func managerName(given string, i *request.Info) string {
	if given != "" {
		return given
	}
	name, _, _ := strings.Cut(i.UserAgent, "/")
	out := strings.Builder{}
	for _, c := range name {
		if !unicode.IsPrint(c) {
			continue
		}
		if out.Len()+utf8.RuneLen(c) > 128 {
			break
		}
		out.WriteRune(c)
	}
	return out.String()
}

// lazyTypes is a type converter whose objects are made only when somebody needs more than their version: the merge asks
// for the whole object of every manager to find that its version is the one it has.
//
// Neither does it check an object of the server's own Go type against the schema of that type, which is half of the
// work of a comparison. Apply configurations come as unstructured objects and are checked.
type lazyTypes struct {
	managedfields.TypeConverter
	gvk    schema.GroupVersionKind
	schema *smdschema.Schema // of gvk; nil where there is none
	ref    smdschema.TypeRef
}

func (l lazyTypes) ObjectToTyped(obj runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	if _, ok := obj.(runtime.Unstructured); ok || l.schema == nil || obj.GetObjectKind().GroupVersionKind() != l.gvk ||
		!slices.Contains(opts, typed.AllowDuplicates) {
		return l.TypeConverter.ObjectToTyped(obj, opts...)
	}
	v, err := value.NewValueReflect(obj)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 the Go type is what the schema was made from
	return typed.AsTypedUnvalidated(v, l.schema, l.ref), nil
}

func (l lazyTypes) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	val := v.AsValue()
	if !val.IsMap() {
		return l.TypeConverter.TypedToObject(v)
	}
	m := val.AsMap()
	text := func(field string) string {
		f, ok := m.Get(field)
		if !ok || !f.IsString() {
			return ""
		}
		return f.AsString()
	}
	return &lazyObject{TypeMeta: metav1.TypeMeta{APIVersion: text("apiVersion"), Kind: text("kind")},
		make: func() (runtime.Object, error) { return l.TypeConverter.TypedToObject(v) }}, nil
}

type lazyObject struct {
	metav1.TypeMeta
	make func() (runtime.Object, error)
}

func (l *lazyObject) DeepCopyObject() runtime.Object { return l }

// Object makes the whole object; codec.Converter asks for it.
func (l *lazyObject) Object() (runtime.Object, error) { return l.make() }
