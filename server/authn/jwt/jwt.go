// Package jwt authenticates bearer tokens that OpenID Connect providers have signed (JSON Web Tokens, RFC 7519), by the
// rules of an AuthenticationConfiguration: which issuers are believed, and how claims become a user.
//
// Invariant: a token is judged by the issuer that it names and no other, and no claim is looked at before the signature,
// the time and the audience are found to be right. Providers are reached in the background: a provider that does not
// answer costs its own users' logins, not the start of the server.
//
// Only server and its folders, and daemon, import jwt.
package jwt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/cel"
)

// Algorithms are the signatures that can be asked for (RFC 7518, section 3.1): all that are not symmetric.
var Algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512}

// Config is one issuer, and what all of them share.
type Config struct {
	apiserver.JWTAuthenticator
	// Algorithms are the signatures that are believed; none: RS256.
	Algorithms []string
	// Taken are issuers whose tokens somebody else judges (the server's own).
	Taken    []string
	Compiler cel.Compiler
	Now      func() time.Time // default: time.Now
	Log      *slog.Logger
}

// Issuer judges the tokens of one provider. Its Run has to be called for it to become ready.
type Issuer struct {
	cfg    Config
	rules  cel.CELMapper
	client *http.Client

	verifier atomic.Pointer[oidc.IDTokenVerifier]
	ready    chan struct{}
	mu       sync.Mutex
	lifetime context.Context                  // of Run; keys are fetched within it
	sources  map[string]*oidc.IDTokenVerifier // of claims that are kept elsewhere, by issuer
}

// New checks the configuration.
func New(c Config) (*Issuer, error) {
	rules, errs := validation.CompileAndValidateJWTAuthenticator(c.Compiler, c.JWTAuthenticator, c.Taken)
	if err := errs.ToAggregate(); err != nil {
		return nil, err
	}
	if t := c.Issuer.EgressSelectorType; t != "" {
		return nil, fmt.Errorf("issuer %s: egressSelectorType %q: there are no egress selectors here, providers are reached directly", c.Issuer.URL, t)
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{oidc.RS256}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(Algorithms, a) {
			return nil, fmt.Errorf("oidc: unsupported signing alg: %q", a)
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	if ca := c.Issuer.CertificateAuthority; ca != "" {
		t.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("issuer %s: certificateAuthority holds no certificate", c.Issuer.URL)
		}
	}
	return &Issuer{cfg: c, rules: rules, client: &http.Client{Transport: t, Timeout: 30 * time.Second}, ready: make(chan struct{}),
		sources: map[string]*oidc.IDTokenVerifier{}}, nil
}

// Ready is closed when tokens can be judged.
func (i *Issuer) Ready() <-chan struct{} { return i.ready }

// Run asks the provider for its keys until it has answered, and gives later fetches their lifetime: it ends with ctx.
func (i *Issuer) Run(ctx context.Context) {
	i.mu.Lock()
	i.lifetime = ctx
	i.mu.Unlock()
	defer i.client.CloseIdleConnections()
	for wait := time.Second; ; wait = min(2*wait, 10*time.Second) {
		v, err := i.discover(ctx, i.cfg.Issuer.URL, i.cfg.Issuer.DiscoveryURL)
		if err == nil {
			i.verifier.Store(v)
			close(i.ready)
			<-ctx.Done()
			return
		}
		i.cfg.Log.Warn("a provider of tokens does not answer; its users cannot log in yet", "issuer", i.cfg.Issuer.URL, "err", err, "again", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

const (
	wellKnown = "/.well-known/openid-configuration" // OpenID Connect Discovery 1.0, section 4
	largest   = 1 << 20                             // bytes of what a provider answers
)

// discover reads a provider's description, and makes the verifier of the tokens that it signs. The keys are fetched when a
// token needs them.
func (i *Issuer) discover(ctx context.Context, issuer, at string) (*oidc.IDTokenVerifier, error) {
	if at == "" {
		at = strings.TrimSuffix(issuer, "/") + wellKnown
	}
	b, err := i.fetch(ctx, at, "")
	if err != nil {
		return nil, err
	}
	var p struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if p.Issuer != issuer {
		return nil, fmt.Errorf("%s is of the issuer %q, not of %q", at, p.Issuer, issuer)
	}
	if p.Keys == "" {
		return nil, fmt.Errorf("%s names no jwks_uri", at)
	}
	i.mu.Lock()
	lifetime := i.lifetime
	i.mu.Unlock()
	keys := oidc.NewRemoteKeySet(oidc.ClientContext(lifetime, i.client), p.Keys)
	return oidc.NewVerifier(issuer, keys, &oidc.Config{SkipClientIDCheck: true, SupportedSigningAlgs: i.cfg.Algorithms, Now: i.cfg.Now}), nil
}

func (i *Issuer) fetch(ctx context.Context, url, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, largest))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return b, err
}

// AuthenticateToken implements authenticator.Token. Tokens of other issuers are none of its business.
func (i *Issuer) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if issuer, err := claimedIssuer(token); err != nil || issuer != i.cfg.Issuer.URL {
		return nil, false, nil
	}
	v := i.verifier.Load()
	if v == nil {
		return nil, false, errors.New("oidc: authenticator not initialized")
	}
	c, err := i.verify(ctx, v, token)
	if err != nil {
		return nil, false, fmt.Errorf("oidc: verify token: %w", err)
	}
	if name := i.cfg.ClaimMappings.Groups.Claim; name != "" {
		if err := i.collect(ctx, name, c); err != nil {
			return nil, false, fmt.Errorf("oidc: could not expand distributed claims: %w", err)
		}
	}
	u, err := i.user(ctx, c)
	if err != nil {
		return nil, false, fmt.Errorf("oidc: %w", err)
	}
	return &authenticator.Response{User: u}, true, nil
}

// verify gives the claims of a token whose signature, time and audience are right.
func (i *Issuer) verify(ctx context.Context, v *oidc.IDTokenVerifier, token string) (claims, error) {
	t, err := v.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(t.Audience, func(a string) bool { return slices.Contains(i.cfg.Issuer.Audiences, a) }) {
		return nil, fmt.Errorf("expected audience in %q got %q", i.cfg.Issuer.Audiences, t.Audience)
	}
	var c claims
	return c, t.Claims(&c)
}

// claimedIssuer is who a token says has made it. Nothing is verified.
func claimedIssuer(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("malformed token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return "", err
	}
	if c.Issuer == "accounts.google.com" { // as Google once called itself: OpenID Connect Core 1.0, section 15.6.2
		return "https://accounts.google.com", nil
	}
	return c.Issuer, nil
}
