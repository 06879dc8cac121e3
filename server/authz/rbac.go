package authz

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
)

// roleKey names a role; the namespace of a cluster role is "".
type roleKey struct{ namespace, name string }

// role is a slot for a role's rules. It stays while a binding refers to it, also when the role itself does not exist.
type role struct {
	exists bool
	rules  []rbacv1.PolicyRule
	refs   int
}

// grant is one subject of one binding. All bindings of a subject are found by the subject.
type grant struct {
	namespace string // "" grants everywhere
	binding   string
	key       roleKey
	role      *role
	reason    string // why a request was allowed, for the audit log
}

// index finds the grants of a user and its groups. It changes with each event in proportion to the object that changed.
type index struct {
	mu     sync.RWMutex
	users  map[string][]grant // service accounts by their user name
	groups map[string][]grant
	roles  map[roleKey]*role
}

func newIndex() *index {
	return &index{users: map[string][]grant{}, groups: map[string][]grant{}, roles: map[roleKey]*role{}}
}

// authorize reports whether any rule allows the request, and why, or what was wrong with the bindings that were looked at.
func (x *index) authorize(at authorizer.Attributes) (bool, string) {
	t, namespace, u := targetOf(at), at.GetNamespace(), at.GetUser()
	x.mu.RLock()
	defer x.mu.RUnlock()
	var broken []error
	reason, ok := "", false
	x.visit(u, namespace, func(g *grant) bool {
		if !g.role.exists {
			broken = append(broken, notFound(g.key))
			return true
		}
		for i := range g.role.rules {
			if t.allowedBy(&g.role.rules[i]) {
				reason, ok = g.reason, true
				return false
			}
		}
		return true
	})
	if ok || len(broken) == 0 {
		return ok, reason
	}
	return false, "RBAC: " + utilerrors.NewAggregate(broken).Error()
}

// visit yields the grants of a user that hold in a namespace, those of the whole cluster too, until f says false.
func (x *index) visit(u user.Info, namespace string, f func(*grant) bool) {
	each := func(gs []grant) bool {
		for i := range gs {
			if g := &gs[i]; (g.namespace == "" || g.namespace == namespace) && !f(g) {
				return false
			}
		}
		return true
	}
	if !each(x.users[u.GetName()]) {
		return
	}
	for _, name := range u.GetGroups() {
		if !each(x.groups[name]) {
			return
		}
	}
}

func (x *index) rulesOf(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var rules []rbacv1.PolicyRule
	var broken []error
	x.visit(u, namespace, func(g *grant) bool {
		if !g.role.exists {
			broken = append(broken, notFound(g.key))
		}
		rules = append(rules, g.role.rules...)
		return true
	})
	return rules, utilerrors.NewAggregate(broken)
}

func (x *index) role(k roleKey) *role {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if r := x.roles[k]; r != nil && r.exists {
		return r
	}
	return nil
}

// replace takes old out of the index and puts obj in; either may be nil.
func (x *index) replace(old, obj api.Object) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old != nil {
		x.remove(old)
	}
	if obj != nil {
		x.add(obj)
	}
}

func (x *index) add(obj api.Object) {
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		x.setRole(roleKey{"", o.Name}, true, o.Rules)
	case *rbacv1.Role:
		x.setRole(roleKey{o.Namespace, o.Name}, true, o.Rules)
	case *rbacv1.ClusterRoleBinding:
		x.bind(o, o.RoleRef, o.Subjects)
	case *rbacv1.RoleBinding:
		x.bind(o, o.RoleRef, o.Subjects)
	}
}

func (x *index) remove(obj api.Object) {
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		x.setRole(roleKey{"", o.Name}, false, nil)
	case *rbacv1.Role:
		x.setRole(roleKey{o.Namespace, o.Name}, false, nil)
	case *rbacv1.ClusterRoleBinding:
		x.unbind(o, o.RoleRef, o.Subjects)
	case *rbacv1.RoleBinding:
		x.unbind(o, o.RoleRef, o.Subjects)
	}
}

func (x *index) setRole(k roleKey, exists bool, rules []rbacv1.PolicyRule) {
	r := x.slot(k)
	r.exists, r.rules = exists, rules
	x.release(k, r, 0)
}

func (x *index) slot(k roleKey) *role {
	r := x.roles[k]
	if r == nil {
		r = &role{}
		x.roles[k] = r
	}
	return r
}

// release gives back n references, and the slot when nothing needs it any more.
func (x *index) release(k roleKey, r *role, n int) {
	if r.refs -= n; r.refs <= 0 && !r.exists {
		delete(x.roles, k)
	}
}

func (x *index) bind(b api.Object, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	namespace := b.GetNamespace()
	k := keyOf(ref, namespace)
	for _, s := range subjects {
		set, name := x.subject(s, namespace)
		if set == nil {
			continue
		}
		r := x.slot(k)
		r.refs++
		set[name] = append(set[name], grant{namespace: namespace, binding: b.GetName(), key: k, role: r,
			reason: "RBAC: allowed by " + describe(b, ref, s, namespace)})
	}
}

func (x *index) unbind(b api.Object, ref rbacv1.RoleRef, subjects []rbacv1.Subject) {
	namespace := b.GetNamespace()
	k := keyOf(ref, namespace)
	for _, s := range subjects {
		set, name := x.subject(s, namespace)
		i := slices.IndexFunc(set[name], func(g grant) bool { return g.namespace == namespace && g.binding == b.GetName() && g.key == k })
		if i < 0 {
			continue
		}
		r := set[name][i].role
		if set[name] = slices.Delete(set[name], i, i+1); len(set[name]) == 0 {
			delete(set, name)
		}
		x.release(k, r, 1)
	}
}

// subject is the map and the name under which a subject's grants are kept; nil for one that can match nobody.
func (x *index) subject(s rbacv1.Subject, namespace string) (map[string][]grant, string) {
	switch s.Kind {
	case rbacv1.UserKind:
		return x.users, s.Name
	case rbacv1.GroupKind:
		return x.groups, s.Name
	case rbacv1.ServiceAccountKind:
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		if namespace != "" {
			return x.users, serviceaccount.MakeUsername(namespace, s.Name)
		}
	}
	return nil, ""
}

func keyOf(ref rbacv1.RoleRef, namespace string) roleKey {
	if ref.Kind == "ClusterRole" {
		return roleKey{"", ref.Name}
	}
	return roleKey{namespace, ref.Name}
}

func describe(b api.Object, ref rbacv1.RoleRef, s rbacv1.Subject, namespace string) string {
	var w strings.Builder
	if namespace == "" {
		w.WriteString("ClusterRoleBinding " + strconv.Quote(b.GetName()))
	} else {
		w.WriteString("RoleBinding " + strconv.Quote(b.GetName()+"/"+namespace))
	}
	who := s.Name
	if s.Kind == rbacv1.ServiceAccountKind {
		if s.Namespace != "" {
			namespace = s.Namespace
		}
		who += "/" + namespace
	}
	fmt.Fprintf(&w, " of %s %q to %s %q", ref.Kind, ref.Name, s.Kind, who)
	return w.String()
}

func notFound(k roleKey) error {
	kind := "role"
	if k.namespace == "" {
		kind = "clusterrole"
	}
	return fmt.Errorf("%s.rbac.authorization.k8s.io %q not found", kind, k.name)
}
