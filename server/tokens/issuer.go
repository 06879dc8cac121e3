package tokens

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
)

// Lookup finds the objects that a token may be bound to. False says for certain that there is none.
type Lookup interface {
	ServiceAccount(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, bool, error)
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, bool, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, bool, error)
	Node(ctx context.Context, name string) (*corev1.Node, bool, error)
}

// Config is what an Issuer needs.
type Config struct {
	// Issuer is the "iss" claim, a URL ("https://kubernetes.default.svc.cluster.local").
	Issuer string
	// Issuers are more issuers whose tokens are believed, from before the name was changed.
	Issuers []string
	// Key signs: RSA (RS256) or ECDSA on P-256, P-384 or P-521.
	Key crypto.Signer
	// Verify is more public keys whose tokens are believed, from before the key was changed.
	Verify []crypto.PublicKey
	// Audiences is who the API server says it is. Default: the issuer alone.
	Audiences []string
	Lookup    Lookup
	// JWKSURI is where the discovery document says that the keys are. Default: Issuer + "/openid/v1/jwks".
	JWKSURI string
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

func (c *Config) validate() error {
	switch {
	case c.Issuer == "":
		return errors.New("tokens: no issuer")
	case c.Key == nil:
		return errors.New("tokens: no key")
	case c.Lookup == nil:
		return errors.New("tokens: no lookup")
	}
	if len(c.Audiences) == 0 {
		c.Audiences = []string{c.Issuer}
	}
	if c.JWKSURI == "" {
		c.JWKSURI = c.Issuer + "/openid/v1/jwks"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// Issuer issues and verifies tokens. It is safe for concurrent use.
type Issuer struct {
	cfg    Config
	signer jose.Signer
	keys   map[string]crypto.PublicKey // by key id
	jwks   []byte
	oidc   []byte
	seen   cache
}

// New checks the configuration and makes an issuer.
func New(c Config) (*Issuer, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	alg, id, err := describe(c.Key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: c.Key, KeyID: id}}, nil)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	i := &Issuer{cfg: c, signer: signer, keys: map[string]crypto.PublicKey{}}
	return i, i.publish()
}

// publish fills in the keys and the two discovery documents.
func (i *Issuer) publish() error {
	var set jose.JSONWebKeySet
	var algs []string
	for _, k := range append([]crypto.PublicKey{i.cfg.Key.Public()}, i.cfg.Verify...) {
		alg, id, err := describe(k)
		if err != nil {
			return err
		}
		if _, ok := i.keys[id]; ok {
			continue
		}
		i.keys[id] = k
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k, KeyID: id, Algorithm: string(alg), Use: "sig"})
		if !slices.Contains(algs, string(alg)) {
			algs = append(algs, string(alg))
		}
	}
	var err error
	if i.jwks, err = json.Marshal(set); err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	i.oidc, err = json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{i.cfg.Issuer, i.cfg.JWKSURI, []string{"id_token"}, []string{"public"}, algs})
	return err
}

// JWKS is the document at /openid/v1/jwks (application/jwk-set+json).
func (i *Issuer) JWKS() []byte { return i.jwks }

// OpenIDConfiguration is the document at /.well-known/openid-configuration (application/json).
func (i *Issuer) OpenIDConfiguration() []byte { return i.oidc }

// Audiences is who the API server says it is.
func (i *Issuer) Audiences() []string { return slices.Clone(i.cfg.Audiences) }

// describe gives a public key's algorithm and its id: the base64url of the SHA-256 of its PKIX form, as upstream's are.
func describe(k crypto.PublicKey) (jose.SignatureAlgorithm, string, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return "", "", fmt.Errorf("tokens: %w", err)
	}
	sum := sha256.Sum256(der)
	id := base64.RawURLEncoding.EncodeToString(sum[:])
	switch k := k.(type) {
	case *rsa.PublicKey:
		return jose.RS256, id, nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, id, nil
		case elliptic.P384():
			return jose.ES384, id, nil
		case elliptic.P521():
			return jose.ES512, id, nil
		}
	}
	return "", "", fmt.Errorf("tokens: a key of type %T cannot sign tokens", k)
}

// algorithms that a token may be signed with.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

// claims is a token's body.
type claims struct {
	jwt.Claims
	Kubernetes *bound `json:"kubernetes.io,omitempty"`
	legacy
}

// bound is what a token is tied to.
type bound struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *ref             `json:"node,omitempty"`
	Pod            *ref             `json:"pod,omitempty"`
	Secret         *ref             `json:"secret,omitempty"`
	ServiceAccount ref              `json:"serviceaccount,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type ref struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// legacy is the body of a token in a secret.
type legacy struct {
	Namespace          string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	ServiceAccountName string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	ServiceAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
	SecretName         string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
}

// legacyIssuer is the "iss" of tokens in secrets.
const legacyIssuer = "kubernetes/serviceaccount"

func (i *Issuer) sign(c claims) (string, error) {
	s, err := jwt.Signed(i.signer).Claims(c).Serialize()
	if err != nil {
		return "", fmt.Errorf("failed to create token: %w", err)
	}
	return s, nil
}

// cache remembers tokens that were found good. It holds no token, only hashes.
type cache struct {
	mu sync.Mutex
	m  map[[sha256.Size]byte]seen
}

type seen struct {
	until time.Time
	who   *verified
}

const (
	cacheFor  = 10 * time.Second
	cacheSize = 4096 // tokens; a full cache is emptied, which costs one verification each
)

func (c *cache) get(k [sha256.Size]byte, now time.Time) (*verified, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.m[k]
	if !ok || !now.Before(s.until) {
		return nil, false
	}
	return s.who, true
}

func (c *cache) put(k [sha256.Size]byte, until time.Time, who *verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= cacheSize {
		c.m = map[[sha256.Size]byte]seen{}
	}
	c.m[k] = seen{until, who}
}
