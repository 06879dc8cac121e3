// Package authn says who makes an HTTP request: a client certificate, a bearer token, a front proxy's headers, or nobody
// in particular (system:anonymous).
//
// Invariant: wrong credentials are an error and never make a request anonymous. Credentials are taken off the request
// once they were believed, so that nothing behind can pass them on.
//
// Only server and its folders import authn.
package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/server/tokens"
)

// Config is whom to believe. The zero Config believes nobody: every request is anonymous.
type Config struct {
	// ClientCAs sign the certificates of users (CN is the user, O its groups). Nil: no client certificates.
	ClientCAs *x509.CertPool
	// Tokens verifies service account tokens. Nil: none.
	Tokens *tokens.Issuer
	// Static is configured bearer tokens and who they are.
	Static map[string]user.Info
	// FrontProxy believes the headers of an authenticating proxy. Nil: none.
	FrontProxy *FrontProxy
	// BootstrapSecret finds the Secrets of bootstrap tokens. Nil: there are none.
	BootstrapSecret func(ctx context.Context, namespace, name string) (*corev1.Secret, bool, error)
	// Structured believes the tokens of other providers. Nil: of none.
	Structured *Structured
	// Webhook is asked about bearer tokens that nobody else knows. Nil: nobody is.
	Webhook authenticator.Token
	// NoAnonymous refuses requests without credentials.
	NoAnonymous bool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// New makes the authenticator of the HTTP front.
func New(c Config) authenticator.Request {
	if c.Now == nil {
		c.Now = time.Now
	}
	a := &requests{noAnonymous: c.NoAnonymous}
	if c.FrontProxy != nil {
		a.ways = append(a.ways, c.FrontProxy.request(c.Now))
	}
	if c.ClientCAs != nil {
		a.ways = append(a.ways, (&certificates{roots: c.ClientCAs, now: c.Now}).request)
	}
	var t anyToken
	if c.Tokens != nil || len(c.Static) > 0 {
		t = append(t, newTokens(c.Static, c.Tokens))
	}
	if c.BootstrapSecret != nil {
		t = append(t, bootstrap{c.BootstrapSecret, c.Now})
	}
	if c.Structured != nil {
		var audiences authenticator.Audiences
		if c.Tokens != nil {
			audiences = c.Tokens.Audiences()
		}
		t = append(t, authenticator.WrapAudienceAgnosticToken(audiences, c.Structured))
	}
	if c.Webhook != nil {
		t = append(t, c.Webhook)
	}
	if len(t) > 0 {
		a.ways = append(a.ways, bearer(t), websocket.NewProtocolAuthenticator(t).AuthenticateRequest)
	}
	return a
}

// requests asks one way after the other until one knows the user.
type requests struct {
	ways        []authenticator.RequestFunc
	noAnonymous bool
}

// AuthenticateRequest implements authenticator.Request.
func (a *requests) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	var errs []error
	for _, way := range a.ways {
		r, ok, err := way(req)
		if ok {
			return authenticated(r), true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, false, utilerrors.NewAggregate(errs)
	}
	if a.noAnonymous {
		return nil, false, nil
	}
	audiences, _ := authenticator.AudiencesFrom(req.Context())
	return &authenticator.Response{User: anonymous, Audiences: audiences}, true, nil
}

var anonymous = &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}

// authenticated adds system:authenticated, unless the user says itself that it is not.
func authenticated(r *authenticator.Response) *authenticator.Response {
	u := r.User
	if u.GetName() == user.Anonymous || slices.Contains(u.GetGroups(), user.AllAuthenticated) || slices.Contains(u.GetGroups(), user.AllUnauthenticated) {
		return r
	}
	groups := append(slices.Clone(u.GetGroups()), user.AllAuthenticated)
	return &authenticator.Response{Audiences: r.Audiences,
		User: &user.DefaultInfo{Name: u.GetName(), UID: u.GetUID(), Groups: groups, Extra: u.GetExtra()}}
}

var errToken = errors.New("invalid bearer token")

// bearer reads "Authorization: Bearer TOKEN". A token that nobody knows is an error.
func bearer(t authenticator.Token) authenticator.RequestFunc {
	return func(req *http.Request) (*authenticator.Response, bool, error) {
		scheme, token, ok := strings.Cut(strings.TrimSpace(req.Header.Get("Authorization")), " ")
		token, _, _ = strings.Cut(token, " ")
		if !ok || !strings.EqualFold(scheme, "bearer") || token == "" {
			return nil, false, nil
		}
		r, ok, err := t.AuthenticateToken(req.Context(), token)
		if ok {
			req.Header.Del("Authorization")
			return r, true, nil
		}
		if err == nil {
			err = errToken
		}
		return nil, false, err
	}
}

// anyToken asks one after the other until one knows the token.
type anyToken []authenticator.Token

func (t anyToken) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	var errs []error
	for _, one := range t {
		r, ok, err := one.AuthenticateToken(ctx, token)
		if ok {
			return r, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return nil, false, utilerrors.NewAggregate(errs)
}

// known is the configured tokens, then those of service accounts. The configured ones are compared by their hashes, so
// the time of a comparison says nothing about them.
type known struct {
	static map[[sha256.Size]byte]user.Info
	issuer *tokens.Issuer
}

func newTokens(static map[string]user.Info, issuer *tokens.Issuer) known {
	k := known{map[[sha256.Size]byte]user.Info{}, issuer}
	for token, u := range static {
		k.static[sha256.Sum256([]byte(token))] = u
	}
	return k
}

func (k known) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if u, ok := k.static[sha256.Sum256([]byte(token))]; ok {
		// A configured token is not made for anybody in particular: it is good for all of the API server's audiences.
		want, asked := authenticator.AudiencesFrom(ctx)
		if !asked || k.issuer == nil {
			return &authenticator.Response{User: u}, true, nil
		}
		if both := want.Intersect(k.issuer.Audiences()); len(both) > 0 || len(want) == 0 {
			return &authenticator.Response{User: u, Audiences: both}, true, nil
		}
		return nil, false, nil
	}
	if k.issuer == nil {
		return nil, false, nil
	}
	return k.issuer.AuthenticateToken(ctx, token)
}
