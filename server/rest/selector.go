package rest

import (
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/store"
)

// selector is a list's or watch's label and field selector over the stored objects of one kind.
type selector struct {
	k      *api.Kind
	labels labels.Selector // nil: everything
	fields fields.Selector // nil: everything
	values bool            // the field selector needs the row's Fields
	name   string          // the only name that can match, if there is one
}

func newSelector(k *api.Kind, o metav1.ListOptions) (selector, error) {
	s := selector{k: k}
	if o.LabelSelector != "" {
		l, err := labels.Parse(o.LabelSelector)
		if err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
		if !l.Empty() {
			s.labels = l
		}
	}
	if o.FieldSelector != "" {
		f, err := fields.ParseSelector(o.FieldSelector)
		if err != nil {
			return s, apierrors.NewBadRequest(err.Error())
		}
		for _, q := range f.Requirements() {
			switch {
			case q.Field == "metadata.name", q.Field == "metadata.namespace" && (k.Namespaced || len(k.FieldKeys) == 0 && !k.CRD):
			case slices.Contains(k.FieldKeys, q.Field):
				s.values = true
			default:
				return s, apierrors.NewBadRequest(unknownField(k, q.Field))
			}
		}
		if !f.Empty() {
			s.fields = f
			s.name, _ = f.RequiresExactMatch("metadata.name")
		}
	}
	return s, nil
}

// unknownField refuses a field in the words that upstream has for the kind.
func unknownField(k *api.Kind, field string) string {
	switch {
	case resourceName(k) == "jobs.batch":
		return fmt.Sprintf("field label %q not supported for Job", field)
	case resourceName(k) == "resourceslices.resource.k8s.io":
		return fmt.Sprintf("field label not supported for %s: %s", k.GroupVersionKind(), field)
	case len(k.FieldKeys) > 0 || k.CRD:
		return "field label not supported: " + field
	}
	return fmt.Sprintf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", field)
}

// only narrows a watch to one value of one of the row's fields, where the selector demands one. Versions with fields of
// their own are left to matches.
func (s selector) only() []store.Only {
	if s.name != "" {
		return []store.Only{{Field: "metadata.name", Value: s.name, Of: api.Object.GetName}}
	}
	if !s.values || s.k.Hub != nil || s.k.CRD || s.k.Fields == nil {
		return nil
	}
	for _, f := range s.k.FieldKeys {
		if v, ok := s.fields.RequiresExactMatch(f); ok {
			return []store.Only{{Field: f, Value: v, Of: func(o api.Object) string { return s.k.Fields(o)[f] }}}
		}
	}
	return nil
}

func (s selector) empty() bool { return s.labels == nil && s.fields == nil }

func (s selector) matches(e *store.Entry) bool {
	if s.name != "" && e.Object.GetName() != s.name {
		return false
	}
	if s.labels != nil && !s.labels.Matches(labels.Set(e.Object.GetLabels())) {
		return false
	}
	if s.fields == nil {
		return true
	}
	set := fieldSet{obj: e.Object}
	if s.values && s.k.Fields != nil {
		obj, err := codec.Convert(e.Object, s.k.Storage(), s.k)
		if err != nil {
			return false
		}
		set.values = s.k.Fields(obj)
	}
	return s.fields.Matches(set)
}

type fieldSet struct {
	obj    api.Object
	values map[string]string
}

func (f fieldSet) Has(field string) bool { return true }
func (f fieldSet) Get(field string) string {
	switch field {
	case "metadata.name":
		return f.obj.GetName()
	case "metadata.namespace":
		return f.obj.GetNamespace()
	}
	return f.values[field]
}
