package serviceaccounttoken

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
)

// issuer is who signs tokens in Secrets; the API server knows them by it.
const issuer = "kubernetes/serviceaccount"

// Signer makes the token that a Secret holds for an account.
type Signer func(*corev1.Secret, *corev1.ServiceAccount) (string, error)

// claims is the body of a token in a Secret. It does not expire.
type claims struct {
	jwt.Claims
	Namespace   string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName  string `json:"kubernetes.io/serviceaccount/secret.name"`
	AccountName string `json:"kubernetes.io/serviceaccount/service-account.name"`
	AccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// NewSigner signs with a key of RSA, or ECDSA on P-256, P-384 or P-521. The key id is the one by which the API server
// finds the public key: the SHA-256 of its PKIX form.
func NewSigner(key crypto.Signer) (Signer, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("the key of service account tokens: %w", err)
	}
	sum := sha256.Sum256(der)
	alg := jose.RS256
	switch k := key.Public().(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		byBits := map[int]jose.SignatureAlgorithm{256: jose.ES256, 384: jose.ES384, 521: jose.ES512}
		if alg = byBits[k.Curve.Params().BitSize]; alg == "" {
			return nil, fmt.Errorf("a key on the curve %s cannot sign tokens", k.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("a key of type %T cannot sign tokens", k)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: base64.RawURLEncoding.EncodeToString(sum[:])}}, nil)
	if err != nil {
		return nil, fmt.Errorf("the key of service account tokens: %w", err)
	}
	return func(s *corev1.Secret, a *corev1.ServiceAccount) (string, error) {
		c := claims{Namespace: s.Namespace, SecretName: s.Name, AccountName: a.Name, AccountUID: string(a.UID)}
		c.Issuer, c.Subject = issuer, "system:serviceaccount:"+a.Namespace+":"+a.Name
		return jwt.Signed(signer).Claims(c).Serialize()
	}, nil
}
