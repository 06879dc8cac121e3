package jwt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/jwt"
	"k8s.io/apiserver/pkg/authentication/user"
)

// claims is what a token says, by name.
type claims map[string]json.RawMessage

func (c claims) read(name string, into any) error {
	raw, ok := c[name]
	if !ok {
		return fmt.Errorf("claim %q is not present", name)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("parse claim %q: %w", name, err)
	}
	return nil
}

// user is who the claims make, if every rule lets them.
func (i *Issuer) user(ctx context.Context, c claims) (*user.DefaultInfo, error) {
	value, err := c.value()
	if err != nil {
		return nil, err
	}
	u := &user.DefaultInfo{}
	if u.Name, err = i.username(ctx, c, value); err != nil {
		return nil, fmt.Errorf("username: %w", err)
	}
	if u.Groups, err = i.groups(ctx, c, value); err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	if u.UID, err = i.uid(ctx, c, value); err != nil {
		return nil, fmt.Errorf("uid: %w", err)
	}
	if u.Extra, err = i.extra(ctx, c, value); err != nil {
		return nil, fmt.Errorf("extra: %w", err)
	}
	if err := i.acceptClaims(ctx, c, value); err != nil {
		return nil, err
	}
	return u, i.acceptUser(ctx, u)
}

func (i *Issuer) username(ctx context.Context, c claims, value traits.Mapper) (string, error) {
	m := i.cfg.ClaimMappings.Username
	if i.rules.Username != nil {
		name, err := text(i.rules.Username.EvalClaimMapping(ctx, value))
		if err == nil && name == "" {
			err = errors.New("empty username via CEL expression is not allowed")
		}
		return name, err
	}
	var name string
	if err := c.read(m.Claim, &name); err != nil {
		return "", err
	}
	// OpenID Connect Core 1.0, section 5.1: an address that the provider has not verified may be anybody's.
	if _, said := c["email_verified"]; said && m.Claim == "email" {
		var verified bool
		if err := c.read("email_verified", &verified); err != nil {
			return "", err
		}
		if !verified {
			return "", errors.New("email not verified")
		}
	}
	return prefix(m.Prefix) + name, nil
}

func (i *Issuer) groups(ctx context.Context, c claims, value traits.Mapper) ([]string, error) {
	m := i.cfg.ClaimMappings.Groups
	if i.rules.Groups != nil {
		return texts(i.rules.Groups.EvalClaimMapping(ctx, value))
	}
	if _, there := c[m.Claim]; m.Claim == "" || !there {
		return nil, nil
	}
	var groups []string
	if c.read(m.Claim, &groups) != nil { // one group may stand alone
		groups = make([]string, 1)
		if err := c.read(m.Claim, &groups[0]); err != nil {
			return nil, err
		}
	}
	for n := range groups {
		groups[n] = prefix(m.Prefix) + groups[n]
	}
	return groups, nil
}

func (i *Issuer) uid(ctx context.Context, c claims, value traits.Mapper) (uid string, err error) {
	if i.rules.UID != nil {
		return text(i.rules.UID.EvalClaimMapping(ctx, value))
	}
	if name := i.cfg.ClaimMappings.UID.Claim; name != "" {
		err = c.read(name, &uid)
	}
	return uid, err
}

func (i *Issuer) extra(ctx context.Context, c claims, value traits.Mapper) (map[string][]string, error) {
	extra := map[string][]string{}
	var id string
	if c.read("jti", &id) == nil && id != "" {
		extra[user.CredentialIDKey] = []string{jwt.CredentialIDForJTI(id)}
	}
	if i.rules.Extra != nil {
		results, err := i.rules.Extra.EvalClaimMappings(ctx, value)
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			more, err := texts(r, nil)
			if err != nil {
				return nil, err
			}
			if key := r.ExpressionAccessor.(*cel.ExtraMappingExpression).Key; len(more) > 0 {
				extra[key] = more
			}
		}
	}
	if len(extra) == 0 {
		return nil, nil
	}
	return extra, nil
}

func (i *Issuer) acceptClaims(ctx context.Context, c claims, value traits.Mapper) error {
	for _, r := range i.cfg.ClaimValidationRules {
		if r.Claim == "" {
			continue
		}
		var got string
		if err := c.read(r.Claim, &got); err != nil {
			return err
		}
		if got != r.RequiredValue {
			return fmt.Errorf("required claim %s value does not match. Got = %s, want = %s", r.Claim, got, r.RequiredValue)
		}
	}
	if i.rules.ClaimValidationRules == nil {
		return nil
	}
	return allTrue(i.rules.ClaimValidationRules.EvalClaimMappings(ctx, value))
}

func (i *Issuer) acceptUser(ctx context.Context, u *user.DefaultInfo) error {
	if i.rules.UserValidationRules == nil {
		return nil
	}
	return allTrue(i.rules.UserValidationRules.EvalUser(ctx, mapper(map[string]any{
		"username": u.Name, "uid": u.UID, "groups": u.Groups, "extra": u.Extra})))
}

func prefix(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// text is an expression's answer that must be a string.
func text(r cel.EvaluationResult, err error) (string, error) {
	if err != nil {
		return "", err
	}
	s, ok := r.EvalResult.(types.String)
	if !ok {
		return "", fmt.Errorf("expression %q must return a string", r.ExpressionAccessor.GetExpression())
	}
	return string(s), nil
}

// texts is an expression's answer that may be a string, a list of them or null. Empty strings do not count.
func texts(r cel.EvaluationResult, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	var out []string
	add := func(v ref.Val) bool {
		s, ok := v.(types.String)
		if ok && s != "" {
			out = append(out, string(s))
		}
		return ok
	}
	ok := true
	switch v := r.EvalResult.(type) {
	case types.Null:
	case traits.Lister:
		for it := v.Iterator(); ok && it.HasNext() == types.True; {
			ok = add(it.Next())
		}
	default:
		ok = add(v)
	}
	if !ok {
		return nil, fmt.Errorf("expression %q must return a string or a list of strings", r.ExpressionAccessor.GetExpression())
	}
	return out, nil
}

// allTrue is an error for the first rule that does not hold.
func allTrue(results []cel.EvaluationResult, err error) error {
	for _, r := range results {
		if r.EvalResult == types.True {
			continue
		}
		var message string
		switch rule := r.ExpressionAccessor.(type) {
		case *cel.ClaimValidationCondition:
			message = rule.Message
		case *cel.UserValidationCondition:
			message = rule.Message
		}
		return fmt.Errorf("validation expression '%s' failed: %s", r.ExpressionAccessor.GetExpression(), message)
	}
	return err
}
