package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Chain asks authorizers in order: the first that allows or denies decides. Reasons are joined. It also lists rules, by
// the Authorizer that it was made from.
type Chain struct {
	*Authorizer
	links []authorizer.Authorizer
}

// Modes is the chain of upstream's --authorization-mode: Node, RBAC, AlwaysAllow, AlwaysDeny, Webhook (which is given).
// system:masters may do everything before any mode is asked. No modes mean Node and RBAC.
func (a *Authorizer) Modes(modes []string, webhook authorizer.Authorizer) (*Chain, error) {
	if len(modes) == 0 || slices.Equal(modes, []string{"Node", "RBAC"}) {
		return &Chain{a, []authorizer.Authorizer{a}}, nil
	}
	c := &Chain{a, []authorizer.Authorizer{authorizer.AuthorizerFunc(masters)}}
	for i, m := range modes {
		var link authorizer.Authorizer
		switch {
		case slices.Contains(modes[:i], m):
			return nil, fmt.Errorf("authorization-mode %q has mode specified more than once", modes)
		case m == "Node":
			link = authorizer.AuthorizerFunc(a.node)
		case m == "RBAC":
			link = authorizer.AuthorizerFunc(a.roles)
		case m == "AlwaysAllow":
			link = always(authorizer.DecisionAllow, "")
		case m == "AlwaysDeny":
			link = always(authorizer.DecisionNoOpinion, "Everything is forbidden.")
		case m == "Webhook" && webhook != nil:
			link = webhook
		case m == "Webhook":
			return nil, fmt.Errorf("authorization-mode Webhook's authorization config file not passed")
		default:
			return nil, fmt.Errorf("authorization-mode %q is not a valid mode", m)
		}
		c.links = append(c.links, link)
	}
	return c, nil
}

// Authorize implements authorizer.Authorizer.
func (c *Chain) Authorize(ctx context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	if len(c.links) == 1 {
		return c.links[0].Authorize(ctx, at)
	}
	var reasons []string
	var errs []error
	for _, l := range c.links {
		decision, reason, err := l.Authorize(ctx, at)
		if reason != "" {
			reasons = append(reasons, reason)
		}
		if err != nil {
			errs = append(errs, err)
		}
		if decision != authorizer.DecisionNoOpinion {
			return decision, reason, err
		}
	}
	return authorizer.DecisionNoOpinion, strings.Join(reasons, "\n"), errors.Join(errs...)
}

func masters(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := at.GetUser(); u != nil && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func always(d authorizer.Decision, reason string) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return d, reason, nil
	})
}

func (a *Authorizer) node(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := at.GetUser(); u != nil {
		if name, ok := nodeOf(u); ok {
			allowed, reason := a.nodes.authorize(name, at)
			return decision(allowed), reason, nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (a *Authorizer) roles(_ context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	if at.GetUser() == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	allowed, reason := a.rbac.authorize(at)
	return decision(allowed), reason, nil
}

func decision(allowed bool) authorizer.Decision {
	if allowed {
		return authorizer.DecisionAllow
	}
	return authorizer.DecisionNoOpinion
}
