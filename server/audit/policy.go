package audit

import (
	"fmt"
	"os"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	internal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/apis/audit/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/server/request"
)

// ReadPolicy reads a policy file, strictly: an unknown field is an error.
func ReadPolicy(path string) (*internal.Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := parsePolicy(data)
	if err != nil {
		return nil, fmt.Errorf("the audit policy %s: %w", path, err)
	}
	return p, nil
}

func parsePolicy(data []byte) (*internal.Policy, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(internal.AddToScheme(scheme))
	utilruntime.Must(auditv1.AddToScheme(scheme))
	var is metav1.TypeMeta
	if err := yaml.Unmarshal(data, &is); err != nil {
		return nil, err
	}
	if want := auditv1.SchemeGroupVersion.WithKind("Policy"); is.GroupVersionKind() != want {
		return nil, fmt.Errorf("it is %q of %q, want %q of %q", is.Kind, is.APIVersion, want.Kind, want.GroupVersion())
	}
	out := &internal.Policy{}
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	_, _, err := codecs.UniversalDecoder(schema.GroupVersion{Group: internal.GroupName, Version: runtime.APIVersionInternal}).Decode(data, nil, out)
	if err != nil {
		return nil, err
	}
	if errs := validation.ValidatePolicy(out); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	if len(out.Rules) == 0 {
		return nil, fmt.Errorf("there are no rules")
	}
	return out, nil
}

// decision is what a policy wants to know of a request.
type decision struct {
	level             internal.Level
	omitStages        []internal.Stage
	omitManagedFields bool
}

// decide finds the first rule that a request falls under. No rule is level None.
func decide(p *internal.Policy, i *request.Info, u user.Info) decision {
	for j := range p.Rules {
		r := &p.Rules[j]
		if !matches(r, i, u) {
			continue
		}
		d := decision{level: r.Level, omitStages: append(slices.Clone(p.OmitStages), r.OmitStages...), omitManagedFields: p.OmitManagedFields}
		if r.OmitManagedFields != nil {
			d.omitManagedFields = *r.OmitManagedFields
		}
		return d
	}
	return decision{level: internal.LevelNone, omitStages: p.OmitStages}
}

func matches(r *internal.PolicyRule, i *request.Info, u user.Info) bool {
	if len(r.Users) > 0 && (u == nil || !slices.Contains(r.Users, u.GetName())) {
		return false
	}
	if len(r.UserGroups) > 0 && (u == nil || !slices.ContainsFunc(u.GetGroups(), func(g string) bool { return slices.Contains(r.UserGroups, g) })) {
		return false
	}
	if len(r.Verbs) > 0 && !slices.Contains(r.Verbs, i.Verb) {
		return false
	}
	switch {
	case len(r.Namespaces) > 0 || len(r.Resources) > 0:
		return i.IsResource() && matchesResource(r, i)
	case len(r.NonResourceURLs) > 0:
		return !i.IsResource() && slices.ContainsFunc(r.NonResourceURLs, func(pattern string) bool { return matchesPath(pattern, i.Path) })
	}
	return true
}

func matchesPath(pattern, path string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return pattern == path
}

func matchesResource(r *internal.PolicyRule, i *request.Info) bool {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, i.Namespace) {
		return false
	}
	if len(r.Resources) == 0 {
		return true
	}
	for _, g := range r.Resources {
		if g.Group != i.Group && g.Group != "*" {
			continue
		}
		if len(g.Resources) == 0 {
			return true
		}
		if len(g.ResourceNames) > 0 && !slices.Contains(g.ResourceNames, i.Name) {
			continue
		}
		if slices.ContainsFunc(g.Resources, func(name string) bool { return names(name, i.Resource, i.Subresource) }) {
			return true
		}
	}
	return false
}

// names reports whether a rule's resource stands for one: "*" for all, "pods" for pods alone, "pods/*" for all their subresources,
// "*/scale" for that subresource of all.
func names(rule, resource, sub string) bool {
	if rule == "*" {
		return true
	}
	r, s, hasSub := strings.Cut(rule, "/")
	switch {
	case !hasSub:
		return r == resource && sub == ""
	case sub == "":
		return false
	}
	return (r == "*" || r == resource) && (s == "*" || s == sub)
}
