package authz

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// target is what a request asks for, taken apart once for a decision.
type target struct {
	resource                           bool
	verb, group, plural, sub, name, at string // at is the path where resource is false
}

func targetOf(at authorizer.Attributes) target {
	if !at.IsResourceRequest() {
		return target{verb: at.GetVerb(), at: at.GetPath()}
	}
	return target{resource: true, verb: at.GetVerb(), group: at.GetAPIGroup(), plural: at.GetResource(),
		sub: at.GetSubresource(), name: at.GetName()}
}

func (t *target) allowedBy(r *rbacv1.PolicyRule) bool {
	if !has(r.Verbs, t.verb) {
		return false
	}
	if !t.resource {
		return slices.ContainsFunc(r.NonResourceURLs, t.underURL)
	}
	return has(r.APIGroups, t.group) && slices.ContainsFunc(r.Resources, t.isResource) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, t.name))
}

// isResource reports whether a rule's resource ("*", "pods", "pods/log", "*/scale") covers the target's.
func (t *target) isResource(s string) bool {
	if s == "*" {
		return true
	}
	if t.sub == "" {
		return s == t.plural
	}
	// The rest is s == plural+"/"+sub or s == "*/"+sub, without making the strings.
	rest, ok := strings.CutSuffix(s, t.sub)
	if !ok || rest == "" || rest[len(rest)-1] != '/' {
		return false
	}
	rest = rest[:len(rest)-1]
	return rest == "*" || rest == t.plural
}

func (t *target) underURL(s string) bool {
	if s == "*" || s == t.at {
		return true
	}
	return strings.HasSuffix(s, "*") && strings.HasPrefix(t.at, strings.TrimRight(s, "*"))
}

func has(set []string, s string) bool {
	for _, x := range set {
		if x == s || x == "*" {
			return true
		}
	}
	return false
}
