// Package match is what webhooks and admission policies share: which requests a configuration is about, and a request
// in the version that a configuration asked for.
//
// Invariant: a Target reads the store's cache and never changes its request but by Replace. Only server/admission's
// folders import match.
package match

import (
	"fmt"
	"slices"

	regv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kadmission "k8s.io/apiserver/pkg/admission"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store"
)

// Target is a request to be matched. It is used by one goroutine at a time.
type Target struct {
	*admission.Request
	st    store.Store
	kinds *api.Table
	rows  []*api.Kind // all versions of the requested kind, the requested one first; nil: not asked yet
	views map[*api.Kind]*View
}

// View is a target in one version.
type View struct {
	Row         *api.Kind
	Resource    schema.GroupVersionResource
	Kind        schema.GroupVersionKind // of the object, which may be a subresource's
	Object, Old runtime.Object          // nil where the operation has none
	scale       *api.ScaleMapping       // of the scale subresource
}

// NewTarget prepares a request for matching.
func NewTarget(st store.Store, kinds *api.Table, r *admission.Request) *Target {
	return &Target{Request: r, st: st, kinds: kinds, views: map[*api.Kind]*View{}}
}

// Requested is the row that the client spoke to.
func (t *Target) Requested() *api.Kind {
	if t.Request.Requested != nil {
		return t.Request.Requested
	}
	return t.Kind
}

// Exempt reports whether no webhook or policy may judge the kind: nobody shall lock himself out.
func Exempt(k *api.Kind) bool {
	if k.Group != regv1.GroupName {
		return false
	}
	switch k.Plural {
	case "validatingwebhookconfigurations", "mutatingwebhookconfigurations", "validatingadmissionpolicies",
		"validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings":
		return true
	}
	return false
}

func isNamespace(k *api.Kind) bool { return k.Group == "" && k.Plural == "namespaces" }

// RequestNamespace is the request's namespace as upstream tells it: that of a request for an existing namespace is
// its own name.
func (t *Target) RequestNamespace() string {
	if isNamespace(t.Kind) && t.Operation != admission.Create {
		return t.Name
	}
	return t.Request.Namespace
}

func (t *Target) versions() []*api.Kind {
	if t.rows != nil {
		return t.rows
	}
	first := t.Requested()
	t.rows = []*api.Kind{first}
	for _, k := range t.kinds.Kinds() {
		if k != first && k.Storage() == first.Storage() {
			t.rows = append(t.rows, k)
		}
	}
	return t.rows
}

// View is the request in the version of a row. It stays valid until Replace.
func (t *Target) View(row *api.Kind) (*View, error) {
	if v, ok := t.views[row]; ok {
		return v, nil
	}
	v := &View{Row: row, Resource: row.GroupVersionResource(), Kind: row.GroupVersionKind()}
	body := t.Operation == admission.Connect
	if s, ok := row.Subresource(t.Subresource); ok && t.Subresource != "" {
		if s.Kind != "" {
			v.Kind = schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
		}
		body = body || s.Type == api.ActionSub
		v.scale = s.Scale
	}
	var err error
	if v.Object, err = t.as(t.Object, v, body, true); err != nil {
		return nil, err
	}
	if v.Old, err = t.as(t.Old, v, body, false); err != nil {
		return nil, err
	}
	t.views[row] = v
	return v, nil
}

// as converts one object into a view's version and gives it its kind.
func (t *Target) as(obj runtime.Object, v *View, body, private bool) (runtime.Object, error) {
	if obj == nil {
		return nil, nil
	}
	if o, ok := obj.(api.Object); ok && !body && t.Kind != v.Row {
		converted, err := codec.Convert(o, t.Kind, v.Row)
		if err != nil {
			return nil, fmt.Errorf("failed to convert object version: %w", err)
		}
		obj, private = converted, true
	}
	if o, ok := obj.(api.Object); ok && v.scale != nil {
		if sub, ok := v.Row.Subresource("scale"); ok {
			obj, private = rest.ScaleOf(sub, o), true
		}
	}
	if obj.GetObjectKind().GroupVersionKind() != v.Kind {
		if !private {
			obj = obj.DeepCopyObject()
		}
		obj.GetObjectKind().SetGroupVersionKind(v.Kind)
	}
	return obj, nil
}

// Empty is a new object of the view's kind.
func (v *View) Empty() (runtime.Object, error) {
	if v.Kind == v.Row.GroupVersionKind() {
		return v.Row.New(), nil
	}
	return codec.Scheme().New(v.Kind)
}

// Replace makes obj, of a view's kind, the request's object, and fills in its defaults.
func (t *Target) Replace(v *View, obj runtime.Object) error {
	obj.GetObjectKind().SetGroupVersionKind(v.Kind)
	clear(t.views)
	if scale, ok := obj.(*autoscalingv1.Scale); ok && v.scale != nil {
		parent, err := codec.Convert(t.Object.(api.Object), t.Kind, v.Row)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		v.scale.Set(parent, scale.Spec.Replicas)
		return t.set(parent, v.Row)
	}
	o, ok := obj.(api.Object)
	if !ok || v.Kind != v.Row.GroupVersionKind() { // the body of an action has no versions
		t.Object = obj
		return nil
	}
	codec.Defaulted(v.Row, o)
	return t.set(o, v.Row)
}

func (t *Target) set(obj api.Object, row *api.Kind) error {
	out, err := codec.Convert(obj, row, t.Kind)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	t.Object = out
	return nil
}

// Attributes is a view as upstream's CEL libraries take it.
func (t *Target) Attributes(v *View) *kadmission.VersionedAttributes {
	row := t.Requested()
	kind := row.GroupVersionKind()
	if v.Kind != v.Row.GroupVersionKind() {
		kind = v.Kind
	}
	a := kadmission.NewAttributesRecord(v.Object, v.Old, kind, t.RequestNamespace(), t.Name, row.GroupVersionResource(),
		t.Subresource, kadmission.Operation(t.Operation), t.Options, t.DryRun, t.User)
	return &kadmission.VersionedAttributes{Attributes: a, VersionedKind: v.Kind, VersionedObject: v.Object, VersionedOldObject: v.Old}
}

// NamespaceObject is the namespace that the request is in; nil for what is in none, and for namespaces themselves.
func (t *Target) NamespaceObject() (*corev1.Namespace, error) {
	if !t.Kind.Namespaced || t.Request.Namespace == "" {
		return nil, nil
	}
	ns, ok := read.Get[*corev1.Namespace](t.st, "", t.Request.Namespace)
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, t.Request.Namespace)
	}
	return ns, nil
}

// Selectors are the parsed selectors of a configuration.
type Selectors struct{ namespace, object labels.Selector }

// NewSelectors parses selectors; nil selects everything.
func NewSelectors(namespace, object *metav1.LabelSelector) (Selectors, error) {
	s := Selectors{labels.Everything(), labels.Everything()}
	var err error
	if namespace != nil {
		if s.namespace, err = metav1.LabelSelectorAsSelector(namespace); err != nil {
			return s, err
		}
	}
	if object != nil {
		if s.object, err = metav1.LabelSelectorAsSelector(object); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Selected reports whether the selectors choose the request.
func (t *Target) Selected(s Selectors) (bool, error) {
	if !s.object.Empty() && !hasLabels(t.Object, s.object) && !hasLabels(t.Old, s.object) {
		return false, nil
	}
	if s.namespace.Empty() {
		return true, nil
	}
	if isNamespace(t.Kind) {
		obj := t.Object
		if obj == nil || t.Subresource != "" {
			obj = t.Old
		}
		return hasLabels(obj, s.namespace), nil
	}
	ns, err := t.NamespaceObject()
	if err != nil || ns == nil {
		return err == nil, err
	}
	return s.namespace.Matches(labels.Set(ns.Labels)), nil
}

func hasLabels(obj runtime.Object, s labels.Selector) bool {
	m, ok := obj.(metav1.Object)
	return ok && s.Matches(labels.Set(m.GetLabels()))
}

// Rules finds the version in which one of the rules is about the request: the requested one if a rule names it, else
// with Equivalent another one; nil if none.
func (t *Target) Rules(policy *regv1.MatchPolicyType, rules []regv1.RuleWithOperations) *api.Kind {
	first := t.Requested()
	for i := range rules {
		if t.rule(&rules[i], first) {
			return first
		}
	}
	if policy != nil && *policy == regv1.Exact {
		return nil
	}
	for i := range rules {
		for _, row := range t.versions()[1:] {
			if t.rule(&rules[i], row) {
				return row
			}
		}
	}
	return nil
}

func (t *Target) rule(r *regv1.RuleWithOperations, row *api.Kind) bool {
	op := regv1.OperationType(t.Operation)
	if !slices.ContainsFunc(r.Operations, func(o regv1.OperationType) bool { return o == op || o == regv1.OperationAll }) {
		return false
	}
	return has(r.APIGroups, row.Group) && has(r.APIVersions, row.Version) && t.inScope(r.Scope) &&
		slices.ContainsFunc(r.Resources, func(s string) bool { return resourceMatches(s, row.Plural, t.Subresource) })
}

func has(list []string, s string) bool { return slices.Contains(list, "*") || slices.Contains(list, s) }

// inScope: a namespace itself is of the cluster.
func (t *Target) inScope(s *regv1.ScopeType) bool {
	if s == nil || *s == regv1.AllScopes {
		return true
	}
	inNamespace := t.Kind.Namespaced && t.Request.Namespace != ""
	return (*s == regv1.NamespacedScope) == inNamespace
}

// resourceMatches reads one entry of a rule's resources: "pods", "pods/log", "pods/*", "*/scale", "*", "*/*".
func resourceMatches(pattern, resource, sub string) bool {
	wantSub := ""
	for i := range pattern {
		if pattern[i] == '/' {
			pattern, wantSub = pattern[:i], pattern[i+1:]
			break
		}
	}
	return (pattern == "*" || pattern == resource) && (wantSub == "*" || wantSub == sub)
}
