package authz

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/store"
)

// Authorizer is upstream's chain of system:masters, Node and RBAC. It implements authorizer.Authorizer and
// authorizer.RuleResolver.
type Authorizer struct {
	st    store.Store
	rbac  *index
	nodes *nodes

	unread atomic.Int32 // kinds that Run has not read yet
	ready  chan struct{}
}

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

// New makes an authorizer that knows nothing but system:masters until Run has read the store.
func New(st store.Store) *Authorizer {
	a := &Authorizer{st: st, rbac: newIndex(), nodes: newNodes(st), ready: make(chan struct{})}
	a.unread.Store(kindsFollowed)
	return a
}

// Sync waits until Run has read the store for the first time.
func (a *Authorizer) Sync(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.ready:
		return nil
	}
}

// Authorize decides one request. The error is always nil: what is wrong with a binding is said in the reason.
func (a *Authorizer) Authorize(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	u := at.GetUser()
	if u == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	var nodeReason string
	if name, ok := nodeOf(u); ok {
		var allowed bool
		if allowed, nodeReason = a.nodes.authorize(name, at); allowed {
			return authorizer.DecisionAllow, "", nil
		}
	}
	allowed, reason := a.rbac.authorize(at)
	if allowed {
		return authorizer.DecisionAllow, reason, nil
	}
	if nodeReason != "" && reason != "" {
		reason = nodeReason + "\n" + reason
	} else {
		reason += nodeReason
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// RulesFor lists what RBAC lets a user do in a namespace. For nodes the list is marked incomplete.
func (a *Authorizer) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.PolicyRules(u, namespace)
	var resource []authorizer.ResourceRuleInfo
	var other []authorizer.NonResourceRuleInfo
	for _, r := range rules {
		if len(r.Resources) > 0 {
			resource = append(resource, &authorizer.DefaultResourceRuleInfo{Verbs: r.Verbs, APIGroups: r.APIGroups,
				Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		if len(r.NonResourceURLs) > 0 {
			other = append(other, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	if _, ok := nodeOf(u); ok {
		return resource, other, true, errNodeRules
	}
	return resource, other, err != nil, err
}

// PolicyRules is every rule that RBAC gives the user in the namespace ("" for the cluster's own only). The error
// names bindings whose role does not exist; the rules are complete but for those.
func (a *Authorizer) PolicyRules(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	return a.rbac.rulesOf(u, namespace)
}

// RoleRules is the rules of the role that a binding in the namespace ("" for a cluster role binding) refers to.
func (a *Authorizer) RoleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	if r := a.rbac.role(keyOf(ref, namespace)); r != nil {
		return r.rules, nil
	}
	return nil, notFound(keyOf(ref, namespace))
}

// nodeOf is the node's name of a node's user; "" for a member of system:nodes without a proper name.
func nodeOf(u user.Info) (name string, ok bool) {
	if !strings.HasPrefix(u.GetName(), nodeUserPrefix) || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return u.GetName()[len(nodeUserPrefix):], true
}

const nodeUserPrefix = "system:node:"
