package bootstrap

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
)

//go:embed roles.txt
var rolesText string

const (
	autoUpdate    = "rbac.authorization.kubernetes.io/autoupdate"
	bootstrapping = "kubernetes.io/bootstrapping"
	aggregate     = "rbac.authorization.k8s.io/aggregate-to-"
)

// parsedRoles reads roles.txt once. The text is part of the program: an error in it is a programming error.
var parsedRoles = sync.OnceValue(func() []api.Object {
	objs, err := parse(rolesText)
	if err != nil {
		panic(err)
	}
	return objs
})

// section is a role while it is being read.
type section struct {
	meta    metav1.ObjectMeta
	kind    string
	rules   []rbacv1.PolicyRule
	from    []string // labels that it aggregates
	objects []api.Object
}

func parse(text string) ([]api.Object, error) {
	var all []*section
	for i, line := range strings.Split(text, "\n") {
		var err error
		switch {
		case line == "" || line[0] == '#':
		case line[0] != ' ':
			kind, name, ok := strings.Cut(line, " ")
			if !ok {
				err = fmt.Errorf("a role without a name")
				break
			}
			s := &section{kind: kind, meta: objectMeta("", name)}
			if kind == "Role" {
				ns, name, _ := strings.Cut(name, "/")
				s.meta = objectMeta(ns, name)
			}
			all = append(all, s)
		case len(all) == 0:
			err = fmt.Errorf("a line before the first role")
		default:
			err = all[len(all)-1].line(strings.TrimSpace(line))
		}
		if err != nil {
			return nil, fmt.Errorf("roles.txt:%d: %w", i+1, err)
		}
	}
	return assemble(all), nil
}

func objectMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{bootstrapping: "rbac-defaults"},
		Annotations: map[string]string{autoUpdate: "true"}}
}

func (s *section) line(l string) error {
	if rest, ok := strings.CutPrefix(l, "aggregate from "); ok {
		s.from = strings.Fields(rest)
		return nil
	}
	if rest, ok := strings.CutPrefix(l, "aggregate to "); ok {
		s.meta.Labels[aggregate+rest] = "true"
		return nil
	}
	if rest, ok := strings.CutPrefix(l, "bind"); ok {
		return s.bind(rest)
	}
	left, verbs, ok := strings.Cut(l, " => ")
	if !ok {
		return fmt.Errorf("%q is no rule", l)
	}
	groups, what, ok := strings.Cut(left, ": ")
	if !ok {
		return fmt.Errorf("%q has no groups", l)
	}
	verbs = strings.ReplaceAll(verbs, "read", "get list watch")
	verbs = strings.ReplaceAll(verbs, "write", "create delete deletecollection patch update")
	r := rbacv1.PolicyRule{Verbs: strings.Fields(verbs)}
	slices.Sort(r.Verbs)
	if groups == "url" {
		r.NonResourceURLs = strings.Fields(what)
	} else {
		if what, names, ok := strings.Cut(what, " ["); ok {
			r.ResourceNames = strings.Fields(strings.TrimSuffix(names, "]"))
			r.Resources = strings.Fields(what)
		} else {
			r.Resources = strings.Fields(what)
		}
		for _, g := range strings.Split(groups, ",") {
			if g == "core" {
				g = ""
			}
			r.APIGroups = append(r.APIGroups, g)
		}
	}
	s.rules = append(s.rules, r)
	return nil
}

// bind reads " as NAME: Kind name, ServiceAccount namespace/name".
func (s *section) bind(l string) error {
	head, who, ok := cutBind(l)
	if !ok {
		return fmt.Errorf("bind%s: no colon", l)
	}
	m := objectMeta(s.meta.Namespace, s.meta.Name)
	if name, ok := strings.CutPrefix(strings.TrimSpace(head), "as "); ok {
		m.Name = name
	}
	var subjects []rbacv1.Subject
	for _, one := range strings.Split(who, ", ") {
		kind, name, ok := strings.Cut(strings.TrimSpace(one), " ")
		switch {
		case one == "":
		case !ok:
			return fmt.Errorf("%q is no subject", one)
		case kind == rbacv1.ServiceAccountKind:
			ns, name, _ := strings.Cut(name, "/")
			subjects = append(subjects, rbacv1.Subject{Kind: kind, Namespace: ns, Name: name})
		default:
			subjects = append(subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: kind, Name: name})
		}
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: s.kind, Name: s.meta.Name}
	if s.kind == "Role" {
		s.objects = append(s.objects, &rbacv1.RoleBinding{ObjectMeta: m, RoleRef: ref, Subjects: subjects})
	} else {
		s.objects = append(s.objects, &rbacv1.ClusterRoleBinding{ObjectMeta: m, RoleRef: ref, Subjects: subjects})
	}
	return nil
}

// cutBind splits at the colon after the binding's name; names have colons themselves, but none before a space or the end.
func cutBind(l string) (head, who string, ok bool) {
	if head, who, ok = strings.Cut(l, ": "); ok {
		return head, who, true
	}
	head, ok = strings.CutSuffix(l, ":")
	return head, "", ok
}

// assemble makes the objects and fills in what aggregated roles come to, as the aggregation controller will find it.
func assemble(all []*section) []api.Object {
	var out []api.Object
	for _, s := range all {
		if s.kind == "Role" {
			out = append(out, &rbacv1.Role{ObjectMeta: s.meta, Rules: s.rules})
		} else {
			r := &rbacv1.ClusterRole{ObjectMeta: s.meta, Rules: aggregated(s, all)}
			if s.from != nil {
				r.AggregationRule = &rbacv1.AggregationRule{}
				for _, l := range s.from {
					r.AggregationRule.ClusterRoleSelectors = append(r.AggregationRule.ClusterRoleSelectors,
						metav1.LabelSelector{MatchLabels: map[string]string{aggregate + l: "true"}})
				}
			}
			out = append(out, r)
		}
		out = append(out, s.objects...)
	}
	return out
}

func aggregated(s *section, all []*section) []rbacv1.PolicyRule {
	rules := s.rules
	for _, label := range s.from {
		for _, other := range all { // sections of cluster roles are sorted by name, as the controller adds them
			if other == s || other.meta.Labels[aggregate+label] != "true" {
				continue
			}
			for _, r := range aggregated(other, all) {
				if !slices.ContainsFunc(rules, func(x rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(x, r) }) {
					rules = append(rules, r)
				}
			}
		}
	}
	return rules
}
