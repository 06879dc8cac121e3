package crd

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kubeversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/util/jsonpath"

	"github.com/skiff-sh/skiff/api"
)

// row is a version's row, without its hub.
func (d *definition) row(v *version) *api.Kind {
	crd, names := d.crd, d.crd.Status.AcceptedNames
	apiVersion := crd.Spec.Group + "/" + v.spec.Name
	cast := func(o api.Object) *unstructured.Unstructured { return o.(*unstructured.Unstructured) }
	k := &api.Kind{
		Group: crd.Spec.Group, Version: v.spec.Name, Kind: names.Kind, Plural: names.Plural, Singular: names.Singular,
		ShortNames: names.ShortNames, Categories: names.Categories, Namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		StoragePath: crd.Spec.Group + "/" + names.Plural, CRD: true, HasGeneration: true,
		New: func() api.Object {
			return &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": names.Kind}}
		},
		NewList: func() runtime.Object {
			return &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": apiVersion, "kind": names.ListKind}}
		},
		Prune:          func(o api.Object, track bool) ([]string, error) { return v.prune(cast(o), track, false) },
		Default:        func(o api.Object) { v.fill(cast(o)) },
		Validate:       func(o api.Object) field.ErrorList { return v.validate(cast(o)) },
		ValidateUpdate: func(o, old api.Object) field.ErrorList { return v.validateUpdate(cast(o), cast(old)) },
		ValidateStatus: func(o, old api.Object) field.ErrorList { return v.validateStatus(cast(o), cast(old)) },
		Warnings:       warnings,
		Columns:        columns(v.spec.AdditionalPrinterColumns),
		Deprecated:     deprecation(crd, v.spec),
		Outdated:       d.outdated,
	}
	if terminating(crd) {
		k.Closed = "create not allowed while custom resource definition is terminating"
	}
	if v.hasStatus() {
		k.Subresources = append(k.Subresources, api.Subresource{Name: "status", Verbs: []string{"get", "patch", "update"}, Type: api.StatusSub})
	}
	if s := v.scale(); s != nil {
		k.Subresources = append(k.Subresources, api.Subresource{Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale",
			Verbs: []string{"get", "patch", "update"}, Type: api.ScaleSub, Scale: scaleMapping(s)})
	}
	d.selectable(k, v)
	return k
}

// warnings are about finalizers that may clash with others'.
func warnings(o, old api.Object) []string {
	names := sets.New(o.GetFinalizers()...)
	if old != nil {
		names.Delete(old.GetFinalizers()...)
	}
	var out []string
	for _, name := range sets.List(names) {
		for _, problem := range utilvalidation.IsQualifiedName(name) {
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: %s", name, problem))
		}
		switch {
		case strings.Contains(name, "/"), name == metav1.FinalizerOrphanDependents, name == metav1.FinalizerDeleteDependents, name == "kubernetes":
		case strings.Contains(name, "."):
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers", name))
		default:
			out = append(out, fmt.Sprintf("metadata.finalizers: %q: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers", name))
		}
	}
	return out
}

// deprecation is the warning that every answer of a deprecated version carries; by default it names the newest version
// that is not deprecated.
func deprecation(crd *definitionCRD, v *apiextensionsv1.CustomResourceDefinitionVersion) string {
	switch {
	case !v.Deprecated:
		return ""
	case v.DeprecationWarning != nil:
		return *v.DeprecationWarning
	}
	group, kind, best := crd.Spec.Group, crd.Spec.Names.Kind, ""
	for i := range crd.Spec.Versions {
		o := &crd.Spec.Versions[i]
		if o.Served && !o.Deprecated && kubeversion.CompareKubeAwareVersionStrings(o.Name, v.Name) > 0 &&
			(best == "" || kubeversion.CompareKubeAwareVersionStrings(o.Name, best) > 0) {
			best = o.Name
		}
	}
	text := fmt.Sprintf("%s/%s %s is deprecated", group, v.Name, kind)
	if best != "" {
		text += fmt.Sprintf("; use %s/%s %s", group, best, kind)
	}
	return text
}

func scaleMapping(s *apiextensionsv1.CustomResourceSubresourceScale) *api.ScaleMapping {
	fields := func(o api.Object) map[string]any { return o.(*unstructured.Unstructured).Object }
	number := func(o api.Object, path string) int32 {
		n, _, _ := unstructured.NestedInt64(fields(o), steps(path)...)
		return int32(n)
	}
	return &api.ScaleMapping{
		Path: steps(s.SpecReplicasPath),
		Check: func(o api.Object) error {
			_, found, err := unstructured.NestedInt64(fields(o), steps(s.SpecReplicasPath)...)
			if err == nil && !found {
				err = fmt.Errorf("the spec replicas field %q does not exist", s.SpecReplicasPath)
			}
			return err
		},
		Get: func(o api.Object) (spec, status int32, selector string) {
			if s.LabelSelectorPath != nil {
				selector, _, _ = unstructured.NestedString(fields(o), steps(*s.LabelSelectorPath)...)
			}
			return number(o, s.SpecReplicasPath), number(o, s.StatusReplicasPath), selector
		},
		Set: func(o api.Object, replicas int32) {
			_ = unstructured.SetNestedField(fields(o), int64(replicas), steps(s.SpecReplicasPath)...)
		},
	}
}

// selectable gives the row the fields that lists may be filtered by.
func (d *definition) selectable(k *api.Kind, v *version) {
	paths := map[string]*finder{}
	for _, f := range v.spec.SelectableFields {
		key := strings.TrimPrefix(f.JSONPath, ".")
		k.FieldKeys = append(k.FieldKeys, key)
		paths[key] = newFinder(f.JSONPath)
	}
	slices.Sort(k.FieldKeys)
	if len(paths) == 0 {
		return
	}
	k.Fields = func(o api.Object) map[string]string {
		out := make(map[string]string, len(paths))
		for key, f := range paths {
			if value := f.find(o); value != nil {
				out[key] = fmt.Sprint(value)
			}
		}
		return out
	}
}

// finder evaluates a JSON path. A parsed path keeps state while it is evaluated, so each caller takes one of its own.
type finder struct{ pool sync.Pool }

func newFinder(path string) *finder {
	f := &finder{}
	f.pool.New = func() any {
		p := jsonpath.New("custom resource")
		p.AllowMissingKeys(true)
		if p.Parse("{"+path+"}") != nil {
			return (*jsonpath.JSONPath)(nil)
		}
		return p
	}
	return f
}

// find is the first value at the path; nil if there is none.
func (f *finder) find(o api.Object) any {
	p := f.pool.Get().(*jsonpath.JSONPath)
	if p == nil {
		return nil
	}
	defer f.pool.Put(p)
	found, err := p.FindResults(o.(*unstructured.Unstructured).Object)
	if err != nil || len(found) == 0 || len(found[0]) == 0 || !found[0][0].IsValid() {
		return nil
	}
	return found[0][0].Interface()
}

// text is the value at the path as a string; nil if there is none.
func (f *finder) text(o api.Object) any {
	value := f.find(o)
	if value == nil {
		return nil
	}
	if s, ok := value.(string); ok {
		return s
	}
	p := f.pool.Get().(*jsonpath.JSONPath)
	defer f.pool.Put(p)
	var b strings.Builder
	if p.PrintResults(&b, []reflect.Value{reflect.ValueOf(value)}) != nil {
		return nil
	}
	return b.String()
}

// columns are the printer columns: the name, and the definition's own or else the age.
func columns(own []apiextensionsv1.CustomResourceColumnDefinition) []api.Column {
	out := []api.Column{{Name: "Name", Type: "string", Format: "name", Description: nameDescription,
		Cell: func(o api.Object) any { return o.GetName() }}}
	if len(own) == 0 {
		own = []apiextensionsv1.CustomResourceColumnDefinition{{Name: "Age", Type: "date", Description: ageDescription,
			JSONPath: ".metadata.creationTimestamp"}}
	}
	for _, c := range own {
		col := api.Column{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority}
		if col.Description == "" {
			col.Description = "Custom resource definition column (in JSONPath format): " + c.JSONPath
		}
		f := newFinder(c.JSONPath)
		switch c.Type {
		case "string":
			col.Cell = f.text
		case "date":
			col.CellAt = func(o api.Object, now time.Time) any { return age(f.find(o), now) }
		default:
			col.Cell = func(o api.Object) any { return cell(c.Type, f.find(o)) }
		}
		out = append(out, col)
	}
	return out
}

func age(value any, now time.Time) any {
	text, ok := value.(string)
	if !ok {
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "<invalid>"
	}
	return api.Age(metav1.NewTime(at), now)
}

// cell is a value of a column's type; nil if it is of another.
func cell(typ string, value any) any {
	switch n := value.(type) {
	case int64:
		switch typ {
		case "integer":
			return n
		case "number":
			return float64(n)
		}
	case float64:
		switch typ {
		case "integer":
			return int64(n)
		case "number":
			return n
		}
	case bool:
		if typ == "boolean" {
			return n
		}
	}
	return nil
}

var (
	metaDocs        = metav1.ObjectMeta{}.SwaggerDoc()
	nameDescription = metaDocs["name"]
	ageDescription  = metaDocs["creationTimestamp"]
)
