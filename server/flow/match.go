package flow

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/server/request"
)

const star = "*"

// rule is one rule of a FlowSchema: any of the subjects, asking for any of the resources or paths.
type rule struct {
	everyone  bool
	users     []string
	groups    []string
	accounts  []string // prefixes of user names: all service accounts of a namespace
	resources []flowcontrolv1.ResourcePolicyRule
	paths     []flowcontrolv1.NonResourcePolicyRule
}

func readRule(r *flowcontrolv1.PolicyRulesWithSubjects) rule {
	out := rule{resources: r.ResourceRules, paths: r.NonResourceRules}
	for _, s := range r.Subjects {
		switch {
		case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
			out.everyone = out.everyone || s.User.Name == star
			out.users = append(out.users, s.User.Name)
		case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
			out.everyone = out.everyone || s.Group.Name == star
			out.groups = append(out.groups, s.Group.Name)
		case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
			prefix := "system:serviceaccount:" + s.ServiceAccount.Namespace + ":"
			if s.ServiceAccount.Name == star {
				out.accounts = append(out.accounts, prefix)
			} else {
				out.users = append(out.users, prefix+s.ServiceAccount.Name)
			}
		}
	}
	return out
}

func (s *schemaSpec) matches(i *request.Info) bool {
	for j := range s.rules {
		r := &s.rules[j]
		if r.asks(i) && r.subject(i.User) {
			return true
		}
	}
	return false
}

func (r *rule) subject(u user.Info) bool {
	if r.everyone {
		return true
	}
	for _, g := range u.GetGroups() {
		if slices.Contains(r.groups, g) {
			return true
		}
	}
	name := u.GetName()
	if slices.Contains(r.users, name) {
		return true
	}
	for _, p := range r.accounts {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func (r *rule) asks(i *request.Info) bool {
	if !i.IsResource() {
		for j := range r.paths {
			if p := &r.paths[j]; lists(p.Verbs, i.Verb) && onPath(p.NonResourceURLs, i.Path) {
				return true
			}
		}
		return false
	}
	for j := range r.resources {
		p := &r.resources[j]
		if !lists(p.Verbs, i.Verb) || !lists(p.APIGroups, i.Group) || !onResource(p.Resources, i) {
			continue
		}
		if i.Namespace == "" && p.ClusterScope || i.Namespace != "" && lists(p.Namespaces, i.Namespace) {
			return true
		}
	}
	return false
}

// lists reports whether the list has x, or is the star that stands for everything.
func lists(list []string, x string) bool {
	return len(list) == 1 && list[0] == star || slices.Contains(list, x)
}

func onResource(list []string, i *request.Info) bool {
	if len(list) == 1 && list[0] == star {
		return true
	}
	for _, r := range list {
		base, sub, _ := strings.Cut(r, "/")
		if base == i.Resource && sub == i.Subresource {
			return true
		}
	}
	return false
}

func onPath(list []string, path string) bool {
	for _, p := range list {
		if p == star || p == path {
			return true
		}
		if dir := strings.TrimSuffix(p, star); strings.HasPrefix(path, dir) && (strings.HasSuffix(dir, "/") || strings.HasPrefix(path[len(dir):], "/")) {
			return true
		}
	}
	return false
}
