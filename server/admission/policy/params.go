package policy

import (
	"errors"
	"fmt"

	regv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission/match"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/store"
)

// params finds the parameters that a binding gives its policy: one nil object where there are none to be given, and
// an empty list where the policy is not to be evaluated.
func (c Config) params(kind *regv1.ParamKind, ref *regv1.ParamRef, t *match.Target) ([]runtime.Object, error) {
	if kind == nil || ref == nil {
		return []runtime.Object{nil}, nil
	}
	gvk := schema.FromAPIVersionAndKind(kind.APIVersion, kind.Kind)
	row, ok := c.Kinds.Kind(gvk)
	if !ok || row.StoragePath == "" && row.Hub == nil {
		return nil, fmt.Errorf("paramKind kind `%s` not known", gvk)
	}
	namespace := ""
	switch {
	case !row.Namespaced && ref.Namespace != "":
		return nil, errors.New("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
	case row.Namespaced:
		if namespace = ref.Namespace; namespace == "" {
			namespace = t.RequestNamespace()
		}
		if namespace == "" {
			return nil, errors.New("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
		}
	}
	out, err := c.lookUp(row, namespace, ref)
	if err != nil {
		return nil, err
	}
	if len(out) == 0 && ref.ParameterNotFoundAction != nil && *ref.ParameterNotFoundAction == regv1.DenyAction {
		return nil, errors.New("no params found for policy binding with `Deny` parameterNotFoundAction")
	}
	return out, nil
}

func (c Config) lookUp(row *api.Kind, namespace string, ref *regv1.ParamRef) ([]runtime.Object, error) {
	snap := c.Store.Snapshot(row.Prefix(""))
	var entries []*store.Entry
	switch {
	case ref.Name != "" && ref.Selector != nil:
		return nil, errors.New("paramRef.name and paramRef.selector are mutually exclusive")
	case ref.Name != "":
		if e, ok := snap.Get(row.Key(namespace, ref.Name)); ok {
			entries = append(entries, e)
		}
	case ref.Selector != nil:
		sel, err := metav1.LabelSelectorAsSelector(ref.Selector)
		if err != nil {
			return nil, err
		}
		for e := range snap.Scan(row.Prefix(namespace), "") {
			if sel.Matches(labels.Set(e.Object.GetLabels())) {
				entries = append(entries, e)
			}
		}
	default:
		return nil, errors.New("one of name or selector must be provided")
	}
	var out []runtime.Object
	for _, e := range entries {
		obj, err := codec.Convert(e.Object, row.Storage(), row)
		if err != nil {
			return nil, err
		}
		if obj.GetObjectKind().GroupVersionKind() != row.GroupVersionKind() {
			obj = obj.DeepCopyObject().(api.Object)
			obj.GetObjectKind().SetGroupVersionKind(row.GroupVersionKind())
		}
		out = append(out, obj)
	}
	return out, nil
}
