package tokens

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// deletedFor is how long an object that is being deleted still backs its tokens.
const deletedFor = time.Minute

// verified is what a good token says.
type verified struct {
	user      user.Info
	audiences authenticator.Audiences
	expires   time.Time // zero: never
}

// AuthenticateToken verifies a token for the audiences in ctx, or for the API server's own. It implements
// authenticator.Token: false without an error means that the token is not one of ours.
func (i *Issuer) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	now := i.cfg.Now()
	key := sha256.Sum256([]byte(token))
	v, ok := i.seen.get(key, now)
	if !ok {
		var err error
		if v, err = i.verify(ctx, token, now); err != nil || v == nil {
			return nil, false, err
		}
		i.seen.put(key, now.Add(cacheFor), v)
	}
	if !v.expires.IsZero() && now.After(v.expires) {
		return nil, false, errors.New("service account token has expired")
	}
	want, asked := authenticator.AudiencesFrom(ctx)
	if !asked || len(want) == 0 {
		want = i.cfg.Audiences
	}
	both := v.audiences.Intersect(want)
	if len(both) == 0 && len(want) > 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", v.audiences, want)
	}
	r := &authenticator.Response{User: v.user}
	if asked {
		r.Audiences = both
	}
	return r, true, nil
}

// verify checks everything but the audience; nil without an error is a token that is not ours.
func (i *Issuer) verify(ctx context.Context, token string, now time.Time) (*verified, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, nil
	}
	var c claims
	if err := parsed.UnsafeClaimsWithoutVerification(&c); err != nil {
		return nil, nil
	}
	if c.Issuer != i.cfg.Issuer && c.Issuer != legacyIssuer && !slices.Contains(i.cfg.Issuers, c.Issuer) {
		return nil, nil
	}
	if err := i.signature(parsed, parsed.Headers[0]); err != nil {
		return nil, err
	}
	if c.Issuer == legacyIssuer && c.Kubernetes == nil {
		return i.verifyLegacy(ctx, token, &c)
	}
	return i.verifyBound(ctx, &c, now)
}

func (i *Issuer) signature(t *jwt.JSONWebToken, h jose.Header) error {
	if k, ok := i.keys[h.KeyID]; ok {
		return t.Claims(k)
	}
	if h.KeyID == "" {
		for _, k := range i.keys {
			if t.Claims(k) == nil {
				return nil
			}
		}
	}
	return errors.New("invalid signature, no keys found")
}

func (i *Issuer) verifyBound(ctx context.Context, c *claims, now time.Time) (*verified, error) {
	switch b := c.Kubernetes; {
	case b == nil || b.Namespace == "" || b.ServiceAccount.Name == "":
		return nil, errors.New("service account token claims are incomplete")
	case c.Expiry == nil || now.After(c.Expiry.Time()):
		return nil, errors.New("service account token has expired")
	case c.NotBefore != nil && now.Before(c.NotBefore.Time()):
		return nil, errors.New("service account token is not valid yet")
	}
	b := c.Kubernetes
	ns := b.Namespace
	if c.Subject != serviceaccount.MakeUsername(ns, b.ServiceAccount.Name) {
		return nil, errors.New("service account token subject does not match its claims")
	}
	sa, ok, err := i.cfg.Lookup.ServiceAccount(ctx, ns, b.ServiceAccount.Name)
	if err != nil {
		return nil, err
	}
	if err := alive("service account", ns+"/", &b.ServiceAccount, sa, ok, now); err != nil {
		return nil, err
	}
	info := serviceaccount.ServiceAccountInfo{Namespace: ns, Name: b.ServiceAccount.Name, UID: b.ServiceAccount.UID}
	if c.ID != "" {
		info.CredentialID = "JTI=" + c.ID
	}
	if b.Secret != nil {
		s, ok, err := i.cfg.Lookup.Secret(ctx, ns, b.Secret.Name)
		if err != nil {
			return nil, err
		}
		if err := alive("secret", ns+"/", b.Secret, s, ok, now); err != nil {
			return nil, err
		}
	}
	if b.Pod != nil {
		p, ok, err := i.cfg.Lookup.Pod(ctx, ns, b.Pod.Name)
		if err != nil {
			return nil, err
		}
		if err := alive("pod", ns+"/", b.Pod, p, ok, now); err != nil {
			return nil, err
		}
		info.PodName, info.PodUID = b.Pod.Name, b.Pod.UID
	}
	if b.Node != nil {
		// For a token bound to a pod the node is information; a token bound to the node itself lives with it.
		if b.Pod == nil {
			n, ok, err := i.cfg.Lookup.Node(ctx, b.Node.Name)
			if err != nil {
				return nil, err
			}
			if err := alive("node", "", b.Node, n, ok, now); err != nil {
				return nil, err
			}
		}
		info.NodeName, info.NodeUID = b.Node.Name, b.Node.UID
	}
	return &verified{user: info.UserInfo(), audiences: authenticator.Audiences(c.Audience), expires: c.Expiry.Time()}, nil
}

// alive says what is wrong with the object that a token is bound to.
func alive(kind, prefix string, want *ref, o metav1.Object, ok bool, now time.Time) error {
	switch {
	case !ok:
		return fmt.Errorf("%s %s%s has been deleted", kind, prefix, want.Name)
	case o.GetDeletionTimestamp() != nil && o.GetDeletionTimestamp().Time.Before(now.Add(-deletedFor)):
		return fmt.Errorf("%s %s%s has been deleted", kind, prefix, want.Name)
	case string(o.GetUID()) != want.UID:
		return fmt.Errorf("%s UID (%s) does not match claim (%s)", kind, o.GetUID(), want.UID)
	}
	return nil
}

func (i *Issuer) verifyLegacy(ctx context.Context, token string, c *claims) (*verified, error) {
	l := c.legacy
	switch {
	case c.Subject == "":
		return nil, errors.New("sub claim is missing")
	case l.Namespace == "":
		return nil, errors.New("namespace claim is missing")
	case l.SecretName == "":
		return nil, errors.New("secretName claim is missing")
	case l.ServiceAccountName == "":
		return nil, errors.New("serviceAccountName claim is missing")
	case l.ServiceAccountUID == "":
		return nil, errors.New("serviceAccountUID claim is missing")
	case c.Subject != serviceaccount.MakeUsername(l.Namespace, l.ServiceAccountName):
		return nil, errors.New("sub claim is invalid")
	}
	secret, ok, err := i.cfg.Lookup.Secret(ctx, l.Namespace, l.SecretName)
	if err != nil {
		return nil, err
	}
	if !ok || secret.DeletionTimestamp != nil || subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1 {
		return nil, errors.New("service account token has been invalidated")
	}
	sa, ok, err := i.cfg.Lookup.ServiceAccount(ctx, l.Namespace, l.ServiceAccountName)
	if err != nil {
		return nil, err
	}
	if !ok || sa.DeletionTimestamp != nil {
		return nil, errors.New("service account token has been invalidated")
	}
	if string(sa.UID) != l.ServiceAccountUID {
		return nil, fmt.Errorf("service account UID (%s) does not match claim (%s)", sa.UID, l.ServiceAccountUID)
	}
	return &verified{user: serviceaccount.UserInfo(l.Namespace, l.ServiceAccountName, l.ServiceAccountUID),
		audiences: authenticator.Audiences(i.cfg.Audiences)}, nil
}
