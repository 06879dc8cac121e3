package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Chain asks authorizers in order: the first that allows or denies decides. Reasons are joined. It also lists rules, by
// the Authorizer that it was made from.
type Chain struct {
	*Authorizer
	links atomic.Pointer[[]authorizer.Authorizer]
	file  *structured // where the chain comes from; nil: from flags
}

// modeNames are the modes there are, by upstream's names.
var modeNames = []string{"AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"}

// mode is one of a chain, with what a webhook asks.
type mode struct {
	name    string
	webhook authorizer.Authorizer
}

// Modes is the chain of upstream's --authorization-mode: Node, RBAC, AlwaysAllow, AlwaysDeny, Webhook (which is given).
// system:masters may do everything before any mode is asked. No modes mean Node and RBAC.
func (a *Authorizer) Modes(names []string, webhook authorizer.Authorizer) (*Chain, error) {
	if len(names) == 0 {
		names = []string{"Node", "RBAC"}
	}
	var modes []mode
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("authorization-mode %q has mode specified more than once", names)
		}
		if name == "Webhook" && webhook == nil {
			return nil, fmt.Errorf("authorization-mode Webhook's authorization config file not passed")
		}
		modes = append(modes, mode{name, webhook})
	}
	links, err := a.links(modes)
	if err != nil {
		return nil, err
	}
	c := &Chain{Authorizer: a}
	c.links.Store(&links)
	return c, nil
}

func (a *Authorizer) links(modes []mode) ([]authorizer.Authorizer, error) {
	if len(modes) == 2 && modes[0].name == "Node" && modes[1].name == "RBAC" {
		return []authorizer.Authorizer{a}, nil // which asks both at once
	}
	links := []authorizer.Authorizer{authorizer.AuthorizerFunc(masters)}
	for _, m := range modes {
		switch m.name {
		case "Node":
			links = append(links, authorizer.AuthorizerFunc(a.node))
		case "RBAC":
			links = append(links, authorizer.AuthorizerFunc(a.roles))
		case "AlwaysAllow":
			links = append(links, always(authorizer.DecisionAllow, ""))
		case "AlwaysDeny":
			links = append(links, always(authorizer.DecisionNoOpinion, "Everything is forbidden."))
		case "Webhook":
			links = append(links, m.webhook)
		default:
			return nil, fmt.Errorf("authorization-mode %q is not a valid mode", m.name)
		}
	}
	return links, nil
}

// Authorize implements authorizer.Authorizer.
func (c *Chain) Authorize(ctx context.Context, at authorizer.Attributes) (authorizer.Decision, string, error) {
	links := *c.links.Load()
	if len(links) == 1 {
		return links[0].Authorize(ctx, at)
	}
	var reasons []string
	var errs []error
	for _, l := range links {
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
	return authorizer.DecisionNoOpinion, strings.Join(reasons, "\n"), utilerrors.NewAggregate(errs)
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
