package jwt

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/coreos/go-oidc/v3/oidc"
)

// collect fetches a claim that the token does not hold but says where to find (OpenID Connect Core 1.0, section 5.6.2).
// Aggregated claims, which come inside the token, are not looked at, as upstream does not.
func (i *Issuer) collect(ctx context.Context, name string, c claims) error {
	_, there := c[name]
	names, elsewhere := c["_claim_names"]
	if there || !elsewhere {
		return nil
	}
	var sourceOf map[string]string
	if err := json.Unmarshal(names, &sourceOf); err != nil {
		return fmt.Errorf("_claim_names: %w", err)
	}
	source, ok := sourceOf[name]
	if !ok {
		return nil
	}
	var sources map[string]struct {
		Endpoint string `json:"endpoint"`
		Token    string `json:"access_token"`
	}
	if err := c.read("_claim_sources", &sources); err != nil {
		return err
	}
	s, ok := sources[source]
	if !ok {
		return fmt.Errorf("_claim_sources has no source %q", source)
	}
	if s.Endpoint == "" {
		return nil
	}
	token, err := i.fetch(ctx, s.Endpoint, s.Token)
	if err != nil {
		return err
	}
	issuer, err := claimedIssuer(string(token))
	if err != nil {
		return fmt.Errorf("%s: %w", s.Endpoint, err)
	}
	v, err := i.source(ctx, issuer)
	if err != nil {
		return err
	}
	more, err := i.verify(ctx, v, string(token))
	if err != nil {
		return fmt.Errorf("%s: %w", s.Endpoint, err)
	}
	value, ok := more[name]
	if !ok {
		return fmt.Errorf("%s does not hold the claim %q", s.Endpoint, name)
	}
	c[name] = value
	return nil
}

// source is the verifier of an issuer of distributed claims: whom a verified token leads to.
func (i *Issuer) source(ctx context.Context, issuer string) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	v := i.sources[issuer]
	i.mu.Unlock()
	if v != nil {
		return v, nil
	}
	v, err := i.discover(ctx, issuer, "")
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sources[issuer] = v
	return v, nil
}
