package admissionregistration

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

// This file judges which requests a configuration is about.

var (
	operations = []admissionv1.OperationType{admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Delete, admissionv1.Update}
	mutable    = []admissionv1.OperationType{admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Update}
	scopes     = []admissionv1.ScopeType{admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope}
)

func validateRules(at *field.Path, rules []admissionv1.RuleWithOperations) field.ErrorList {
	var errs field.ErrorList
	for i := range rules {
		errs = append(errs, validateRule(at.Index(i), &rules[i])...)
	}
	return errs
}

func validateRule(at *field.Path, r *admissionv1.RuleWithOperations) field.ErrorList {
	var errs field.ErrorList
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(at.Child("operations"), ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(at.Child("operations"), r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, op := range r.Operations {
		errs = append(errs, core.Known(at.Child("operations").Index(i), op, operations...)...)
	}
	errs = append(errs, wildcard(at.Child("apiGroups"), r.APIGroups, "API groups")...)
	errs = append(errs, wildcard(at.Child("apiVersions"), r.APIVersions, "API versions")...)
	for i, v := range r.APIVersions {
		errs = append(errs, core.Required(at.Child("apiVersions").Index(i), v, "")...)
	}
	errs = append(errs, validateResources(at.Child("resources"), r.Resources)...)
	if r.Scope != nil {
		errs = append(errs, core.Known(at.Child("scope"), *r.Scope, scopes...)...)
	}
	return errs
}

// wildcard demands at least one entry, and no other beside "*".
func wildcard(at *field.Path, list []string, what string) field.ErrorList {
	switch {
	case len(list) == 0:
		return field.ErrorList{field.Required(at, "")}
	case len(list) > 1 && slices.Contains(list, "*"):
		return field.ErrorList{field.Invalid(at, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

// validateResources judges entries such as "pods", "pods/*", "*/scale", "*" and "*/*", none of which may cover another.
func validateResources(at *field.Path, list []string) field.ErrorList {
	var errs field.ErrorList
	if len(list) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	allSubs, allParents := sets.New[string](), sets.New[string]() // "pods" of "pods/*", "scale" of "*/scale"
	plain := false
	for i, entry := range list {
		if entry == "" {
			errs = append(errs, field.Required(at.Index(i), ""))
			continue
		}
		resource, sub, has := strings.Cut(entry, "/")
		if !has {
			plain = entry != "*"
			continue
		}
		if allSubs.Has(resource) {
			errs = append(errs, field.Invalid(at.Index(i), entry, "if '"+resource+"/*' is present, must not specify "+entry))
		}
		if allParents.Has(sub) {
			errs = append(errs, field.Invalid(at.Index(i), entry, "if '*/"+sub+"' is present, must not specify "+entry))
		}
		if sub == "*" {
			allSubs.Insert(resource)
		}
		if resource == "*" {
			allParents.Insert(sub)
		}
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		errs = append(errs, field.Invalid(at, list, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(at, list, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}

// validateMatch judges the requests that a policy or binding is about.
func validateMatch(at *field.Path, m *admissionv1.MatchResources) field.ErrorList {
	if m == nil {
		return nil
	}
	var errs field.ErrorList
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(at.Child("matchPolicy"), ""))
	} else {
		errs = append(errs, core.Known(at.Child("matchPolicy"), *m.MatchPolicy, admissionv1.Equivalent, admissionv1.Exact)...)
	}
	errs = append(errs, core.LabelSelector(at.Child("namespaceSelector"), m.NamespaceSelector)...)
	errs = append(errs, core.LabelSelector(at.Child("objectSelector"), m.ObjectSelector)...)
	for i := range m.ResourceRules {
		errs = append(errs, validateNamedRule(at.Child("resourceRules").Index(i), &m.ResourceRules[i])...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, validateNamedRule(at.Child("excludeResourceRules").Index(i), &m.ExcludeResourceRules[i])...)
	}
	return errs
}

func validateNamedRule(at *field.Path, r *admissionv1.NamedRuleWithOperations) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range r.ResourceNames {
		errs = append(errs, core.Problems(at.Child("resourceNames").Index(i), name, content.IsPathSegmentName(name))...)
		if seen[name] {
			errs = append(errs, field.Duplicate(at.Child("resourceNames").Index(i), name))
		}
		seen[name] = true
	}
	return append(errs, validateRule(at, &r.RuleWithOperations)...)
}

// validateMutable says that only what brings an object can be mutated.
func validateMutable(at *field.Path, m *admissionv1.MatchResources) field.ErrorList {
	var errs field.ErrorList
	if m != nil {
		for _, r := range m.ResourceRules {
			for _, op := range r.Operations {
				errs = append(errs, core.Known(at.Child("resourceRules", "operations"), op, mutable...)...)
			}
		}
	}
	return errs
}

// validateConditions checks names and presence; expressions are compiled where they are used.
func validateConditions(at *field.Path, list []admissionv1.MatchCondition) field.ErrorList {
	var errs field.ErrorList
	if len(list) > 64 {
		errs = append(errs, field.TooMany(at, len(list), 64))
	}
	seen := map[string]bool{}
	for i, c := range list {
		errs = append(errs, core.Required(at.Index(i).Child("expression"), strings.TrimSpace(c.Expression), "")...)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Index(i).Child("name"), ""))
			continue
		}
		errs = append(errs, core.Problems(at.Index(i).Child("name"), c.Name, validation.IsQualifiedName(c.Name))...)
		if seen[c.Name] {
			errs = append(errs, field.Duplicate(at.Index(i).Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}
