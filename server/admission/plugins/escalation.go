package plugins

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// escalation sees to it that nobody grants rights by RBAC that they do not have themselves, unless they may "escalate"
// the role or "bind" it. Upstream has it in the storage of the four kinds; here it is a plugin.
type escalation struct {
	rules RuleLister
	a     authorizer.Authorizer
}

func (*escalation) Name() string { return "RBACEscalation" }
func (*escalation) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return k.Group == rbacv1.GroupName && sub == "" && in(op, admission.Create, admission.Update)
}

func (p *escalation) Validate(ctx context.Context, r *admission.Request) error {
	name := "" // a rule about one name is about objects that exist
	if r.Operation == admission.Update {
		name = r.Name
	}
	if r.User == nil || slices.Contains(r.User.GetGroups(), user.SystemPrivilegedGroup) || onlyCollected(r) {
		return nil
	}
	switch o := r.Object.(type) {
	case *rbacv1.ClusterRole:
		if p.may(ctx, r, "escalate", "clusterroles", name) {
			return nil
		}
		if err := p.has(r, o.Rules, ""); err != nil {
			return err
		}
		if old, _ := r.Old.(*rbacv1.ClusterRole); aggregates(o) || aggregates(old) {
			if p.has(r, everything, "") != nil {
				return forbidden(r, "must have cluster-admin privileges to use the aggregationRule")
			}
		}
	case *rbacv1.Role:
		if p.may(ctx, r, "escalate", "roles", name) {
			return nil
		}
		return p.has(r, o.Rules, r.Namespace)
	case *rbacv1.ClusterRoleBinding:
		return p.binding(ctx, r, o.RoleRef)
	case *rbacv1.RoleBinding:
		return p.binding(ctx, r, o.RoleRef)
	}
	return nil
}

func (p *escalation) binding(ctx context.Context, r *admission.Request, ref rbacv1.RoleRef) error {
	if p.may(ctx, r, "bind", strings.ToLower(ref.Kind)+"s", ref.Name) {
		return nil
	}
	rules, err := p.rules.RoleRules(ref, r.Namespace)
	if err != nil {
		resource := rbacv1.Resource(strings.ToLower(ref.Kind))
		return apierrors.NewNotFound(resource, ref.Name)
	}
	return p.has(r, rules, r.Namespace)
}

func (p *escalation) may(ctx context.Context, r *admission.Request, verb, resource, name string) bool {
	return allowed(ctx, p.a, r, authorizer.AttributesRecord{Verb: verb, APIGroup: rbacv1.GroupName, APIVersion: "*",
		Resource: resource, Namespace: r.Namespace, Name: name})
}

// has refuses when the user lacks any of the rules.
func (p *escalation) has(r *admission.Request, rules []rbacv1.PolicyRule, namespace string) error {
	own, broken := p.rules.PolicyRules(r.User, namespace)
	ok, missing := validation.Covers(own, rules)
	if ok {
		return nil
	}
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		r.User.GetName(), r.User.GetGroups(), strings.Join(describeRules(missing), "\n"))
	if broken != nil {
		text += fmt.Sprintf("; resolution errors: %v", []error{broken})
	}
	return forbidden(r, "%s", text)
}

var everything = []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r != nil && r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// describeRules writes the rules as text, those about one resource as one.
func describeRules(rules []rbacv1.PolicyRule) []string {
	type key struct{ group, resource, name string }
	simple := map[key]*rbacv1.PolicyRule{}
	lines := map[string]bool{}
	for _, r := range rules {
		if len(r.APIGroups) != 1 || len(r.Resources) != 1 || len(r.ResourceNames) > 1 || len(r.NonResourceURLs) > 0 {
			lines[describeRule(r)] = true
			continue
		}
		k := key{r.APIGroups[0], r.Resources[0], strings.Join(r.ResourceNames, "")}
		if simple[k] == nil {
			simple[k] = r.DeepCopy()
		} else {
			simple[k].Verbs = append(simple[k].Verbs, r.Verbs...)
		}
	}
	for _, r := range simple {
		lines[describeRule(*r)] = true
	}
	return slices.Sorted(maps.Keys(lines))
}

func describeRule(r rbacv1.PolicyRule) string {
	var parts []string
	for _, f := range []struct {
		name   string
		values []string
	}{{"APIGroups", r.APIGroups}, {"Resources", r.Resources}, {"NonResourceURLs", r.NonResourceURLs}, {"ResourceNames", r.ResourceNames}, {"Verbs", r.Verbs}} {
		if len(f.values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", f.name, f.values))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// onlyCollected reports whether an update changes nothing but what garbage collection needs to change.
func onlyCollected(r *admission.Request) bool {
	if r.Old == nil || r.Object == nil {
		return false
	}
	clean := func(o any) any {
		c := o.(api.Object).DeepCopyObject().(api.Object)
		c.SetOwnerReferences(nil)
		c.SetFinalizers(nil)
		c.SetManagedFields([]metav1.ManagedFieldsEntry(nil))
		c.SetResourceVersion("")
		return c
	}
	return equality.Semantic.DeepEqual(clean(r.Old), clean(r.Object))
}
