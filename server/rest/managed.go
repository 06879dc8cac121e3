package rest

import (
	"strings"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/skiff-sh/skiff/api"
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
	make := managedfields.NewDefaultFieldManager
	var types managedfields.TypeConverter
	switch {
	case k.CRD:
		make, types = managedfields.NewDefaultCRDFieldManager, managedfields.NewDeducedTypeConverter()
	case gvk.Group == "apiextensions.k8s.io" || gvk.Group == "apiregistration.k8s.io" || gvk.Kind == "Scale":
		types = managedfields.NewDeducedTypeConverter() // client-go has no schema of theirs
	default:
		types = applyconfigurations.NewTypeConverter(codec.Scheme())
	}
	hub := k.Storage().GroupVersion()
	if gvk != k.GroupVersionKind() {
		hub = gvk.GroupVersion()
	}
	types = lazyTypes{types}
	m, err := make(types, conv, conv, conv, gvk, hub, sub, resetFields(k, sub))
	if err != nil {
		return nil, err
	}
	got, _ := r.managers.LoadOrStore(key, m)
	return got.(*managedfields.FieldManager), nil
}

// resetFields are the fields that a write to the resource or subresource leaves as they were, so that nobody comes to
// own them by it.
func resetFields(k *api.Kind, sub string) map[fieldpath.APIVersion]fieldpath.Filter {
	var path fieldpath.Path
	switch s, ok := k.Subresource("status"); {
	case sub == "status":
		path = fieldpath.MakePathOrDie("spec")
	case sub == "" && ok && s.Type == api.StatusSub:
		path = fieldpath.MakePathOrDie("status")
	default:
		return nil
	}
	filter := fieldpath.NewExcludeSetFilter(fieldpath.NewSet(path))
	return map[fieldpath.APIVersion]fieldpath.Filter{fieldpath.APIVersion(k.GroupVersion().String()): filter}
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
type lazyTypes struct{ managedfields.TypeConverter }

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
