package certificates

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// LegacyUnknown is the signer for certificates of no fixed use.
const LegacyUnknown = "kubernetes.io/legacy-unknown"

// Signers are the names that a cluster's own signer may answer for.
var Signers = []string{certificatesv1.KubeAPIServerClientSignerName, certificatesv1.KubeAPIServerClientKubeletSignerName,
	certificatesv1.KubeletServingSignerName, LegacyUnknown}

// How certificates are dated.
const (
	longest  = 365 * 24 * time.Hour // where the configuration names no other limit
	shortest = 10 * time.Minute
	// backdate allows for clocks that are behind. A short life is not shortened by it.
	backdate  = 5 * time.Minute
	shortLife = 8 * time.Hour
)

// Authority is what a signer signs with.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// SigningConfig says with what, and for how long.
type SigningConfig struct {
	// Authorities are by signer name; requests to others are left alone. It is asked for each request, so that keys can
	// be replaced while running.
	Authorities func(signer string) (Authority, bool)
	// Duration is the longest life of a certificate; a request may ask for less. Default: a year.
	Duration time.Duration
}

// Signing is the controller that signs approved requests.
func Signing(d reconcile.Deps, cfg SigningConfig) reconcile.Controller {
	if cfg.Duration == 0 {
		cfg.Duration = longest
	}
	requests := client.CacheOf[*certificatesv1.CertificateSigningRequest](d.Caches)
	return reconcile.Controller{
		Name:   "certificatesigningrequest-signing-controller",
		Inputs: []reconcile.Input{reconcile.Own[*certificatesv1.CertificateSigningRequest](d.Caches)},
		Writes: []string{"certificates.k8s.io/certificatesigningrequests/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			r, ok := requests.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			ca, ok := cfg.Authorities(r.Spec.SignerName)
			if !ok {
				return reconcile.Result{}, nil
			}
			actions, err := Sign(r, ca, cfg.Duration, d.Clock.Now())
			if err != nil {
				return reconcile.Result{}, err
			}
			return reconcile.Result{}, plan.Apply(ctx, d, actions...)
		},
	}
}

// Sign issues the certificate of an approved request, or tells in its status why the signer never will. Most is the
// longest life.
func Sign(r *certificatesv1.CertificateSigningRequest, ca Authority, most time.Duration, now time.Time) ([]plan.Action, error) {
	if !approved(r) || has(r, certificatesv1.CertificateFailed) || len(r.Status.Certificate) > 0 {
		return nil, nil
	}
	x, err := parse(r.Spec.Request)
	if err != nil {
		return nil, fmt.Errorf("unable to parse csr %q: %v", r.Name, err)
	}
	if err := check(r.Spec.SignerName, x, r.Spec.Usages); err != nil {
		return []plan.Action{plan.Status(with(r, certificatesv1.CertificateSigningRequestCondition{Type: certificatesv1.CertificateFailed,
			Reason: "SignerValidationFailure", Message: err.Error(), LastUpdateTime: metav1.NewTime(now)}))}, nil
	}
	life := most
	if s := r.Spec.ExpirationSeconds; s != nil {
		life = min(max(time.Duration(*s)*time.Second, shortest), most)
	}
	chain, err := issue(x, r.Spec.Usages, ca, life, now)
	if err != nil {
		return nil, fmt.Errorf("error auto signing csr: %v", err)
	}
	next := r.DeepCopy()
	next.Status.Certificate = chain
	return []plan.Action{plan.Status(next)}, nil
}

// issue signs a certificate with the request's names and key, in PEM.
func issue(x *x509.CertificateRequest, usages []certificatesv1.KeyUsage, ca Authority, life time.Duration, now time.Time) ([]byte, error) {
	if err := x.CheckSignature(); err != nil {
		return nil, fmt.Errorf("unable to verify certificate request signature: %v", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("unable to generate a serial number for %s: %v", x.Subject.CommonName, err)
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: x.Subject, DNSNames: x.DNSNames, IPAddresses: x.IPAddresses,
		EmailAddresses: x.EmailAddresses, URIs: x.URIs, BasicConstraintsValid: true}
	if t.KeyUsage, t.ExtKeyUsage, err = keyUsages(usages); err != nil {
		return nil, err
	}
	if err := date(t, ca.Certificate, life, now); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.Certificate, x.PublicKey, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("failed to sign certificate: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// date fits the certificate's life into its authority's.
func date(t, ca *x509.Certificate, life time.Duration, now time.Time) error {
	now = now.UTC().Truncate(time.Second)
	t.NotBefore = now.Add(-backdate)
	t.NotAfter = t.NotBefore.Add(life)
	if life < shortLife {
		t.NotAfter = now.Add(life)
	}
	switch {
	case !now.Before(ca.NotAfter):
		return fmt.Errorf("the signer has expired: NotAfter=%v", ca.NotAfter)
	case ca.NotAfter.Before(t.NotAfter):
		t.NotAfter = ca.NotAfter
	}
	if !now.Before(t.NotAfter) {
		return fmt.Errorf("refusing to sign a certificate that expired in the past: NotAfter=%v", t.NotAfter)
	}
	return nil
}

var plainUsages = map[certificatesv1.KeyUsage]x509.KeyUsage{
	certificatesv1.UsageSigning: x509.KeyUsageDigitalSignature, certificatesv1.UsageDigitalSignature: x509.KeyUsageDigitalSignature,
	certificatesv1.UsageContentCommitment: x509.KeyUsageContentCommitment, certificatesv1.UsageKeyEncipherment: x509.KeyUsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement: x509.KeyUsageKeyAgreement, certificatesv1.UsageDataEncipherment: x509.KeyUsageDataEncipherment,
	certificatesv1.UsageCertSign: x509.KeyUsageCertSign, certificatesv1.UsageCRLSign: x509.KeyUsageCRLSign,
	certificatesv1.UsageEncipherOnly: x509.KeyUsageEncipherOnly, certificatesv1.UsageDecipherOnly: x509.KeyUsageDecipherOnly,
}

var extendedUsages = map[certificatesv1.KeyUsage]x509.ExtKeyUsage{
	certificatesv1.UsageAny: x509.ExtKeyUsageAny, certificatesv1.UsageServerAuth: x509.ExtKeyUsageServerAuth,
	certificatesv1.UsageClientAuth: x509.ExtKeyUsageClientAuth, certificatesv1.UsageCodeSigning: x509.ExtKeyUsageCodeSigning,
	certificatesv1.UsageEmailProtection: x509.ExtKeyUsageEmailProtection, certificatesv1.UsageSMIME: x509.ExtKeyUsageEmailProtection,
	certificatesv1.UsageIPsecEndSystem: x509.ExtKeyUsageIPSECEndSystem, certificatesv1.UsageIPsecTunnel: x509.ExtKeyUsageIPSECTunnel,
	certificatesv1.UsageIPsecUser: x509.ExtKeyUsageIPSECUser, certificatesv1.UsageTimestamping: x509.ExtKeyUsageTimeStamping,
	certificatesv1.UsageOCSPSigning: x509.ExtKeyUsageOCSPSigning, certificatesv1.UsageMicrosoftSGC: x509.ExtKeyUsageMicrosoftServerGatedCrypto,
	certificatesv1.UsageNetscapeSGC: x509.ExtKeyUsageNetscapeServerGatedCrypto,
}

func keyUsages(usages []certificatesv1.KeyUsage) (plain x509.KeyUsage, extended []x509.ExtKeyUsage, err error) {
	var unknown []certificatesv1.KeyUsage
	for _, u := range usages {
		if k, ok := plainUsages[u]; ok {
			plain |= k
		} else if e, ok := extendedUsages[u]; ok {
			if !slices.Contains(extended, e) {
				extended = append(extended, e)
			}
		} else {
			unknown = append(unknown, u)
		}
	}
	if len(unknown) > 0 {
		return 0, nil, fmt.Errorf("unrecognized usage values: %q", unknown)
	}
	slices.Sort(extended)
	return plain, extended, nil
}

// Validate reports an authority that could not sign.
func (a Authority) Validate() error {
	switch {
	case a.Certificate == nil || a.Key == nil:
		return errors.New("a signing certificate without its key, or a key without its certificate")
	case !a.Certificate.IsCA:
		return fmt.Errorf("the certificate of %q is no authority's", a.Certificate.Subject.CommonName)
	}
	return nil
}
