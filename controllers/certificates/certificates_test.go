package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func authority(t *testing.T, notAfter time.Time) Authority {
	k := newKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now.Add(-time.Hour), NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return Authority{parsed, k}
}

func request(t *testing.T, signer string, x x509.CertificateRequest, usages ...certificatesv1.KeyUsage) *certificatesv1.CertificateSigningRequest {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "r", CreationTimestamp: metav1.NewTime(now)},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Usages: usages, Username: x.Subject.CommonName,
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
}

func decided(r *certificatesv1.CertificateSigningRequest, types ...certificatesv1.RequestConditionType) *certificatesv1.CertificateSigningRequest {
	for _, c := range types {
		r = with(r, certificatesv1.CertificateSigningRequestCondition{Type: c, LastUpdateTime: metav1.NewTime(now)})
	}
	return r
}

var kubelet = x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}}

const (
	auth      = certificatesv1.UsageClientAuth
	serving   = certificatesv1.UsageServerAuth
	signature = certificatesv1.UsageDigitalSignature
)

func TestSignersRules(t *testing.T) {
	named := kubelet
	named.DNSNames, named.IPAddresses = []string{"n1"}, []net.IP{net.IPv4(10, 0, 0, 1)}
	other := x509.CertificateRequest{Subject: pkix.Name{CommonName: "bob"}}
	ca := authority(t, now.Add(1000*time.Hour))
	for name, c := range map[string]struct {
		r    *certificatesv1.CertificateSigningRequest
		want string // of the failure; "": signed
	}{
		"kubelet client":              {request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, kubelet, auth, signature), ""},
		"key encipherment on top":     {request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, kubelet, auth, signature, certificatesv1.UsageKeyEncipherment), ""},
		"kubelet client with a name":  {request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, named, auth, signature), "DNS subjectAltNames are not allowed"},
		"kubelet client that serves":  {request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, kubelet, auth, signature, serving), "usages did not match [client auth digital signature]"},
		"no kubelet":                  {request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, other, auth, signature), "subject organization is not system:nodes"},
		"kubelet serving":             {request(t, certificatesv1.KubeletServingSignerName, named, signature, serving), ""},
		"kubelet serving nothing":     {request(t, certificatesv1.KubeletServingSignerName, kubelet, signature, serving), "DNS or IP subjectAltName is required"},
		"client":                      {request(t, certificatesv1.KubeAPIServerClientSignerName, other, auth), ""},
		"client that serves":          {request(t, certificatesv1.KubeAPIServerClientSignerName, other, auth, serving), "invalid usage for client certificate: server auth"},
		"client without client usage": {request(t, certificatesv1.KubeAPIServerClientSignerName, other, signature), "missing required usage for client certificate: client auth"},
		"whatever":                    {request(t, LegacyUnknown, other, serving, certificatesv1.UsageCodeSigning), ""},
	} {
		t.Run(name, func(t *testing.T) {
			actions, err := Sign(decided(c.r, certificatesv1.CertificateApproved), ca, time.Hour*24*365, now)
			if err != nil || len(actions) != 1 {
				t.Fatalf("%v, %v", actions, err)
			}
			got := actions[0].(plan.Update).Obj.(*certificatesv1.CertificateSigningRequest).Status
			last := got.Conditions[len(got.Conditions)-1]
			if c.want != "" {
				if last.Type != certificatesv1.CertificateFailed || last.Reason != "SignerValidationFailure" || last.Message != c.want || len(got.Certificate) > 0 {
					t.Errorf("condition %+v, want a failure: %s", last, c.want)
				}
				return
			}
			block, _ := pem.Decode(got.Certificate)
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if err := cert.CheckSignatureFrom(ca.Certificate); err != nil || cert.IsCA || !cert.NotAfter.Equal(ca.Certificate.NotAfter) {
				t.Errorf("signature %v, authority %v, until %v: the authority's own end is %v", err, cert.IsCA, cert.NotAfter, ca.Certificate.NotAfter)
			}
		})
	}
}

func TestOnlyWhatIsApprovedIsSigned(t *testing.T) {
	ca := authority(t, now.Add(time.Hour))
	r := request(t, certificatesv1.KubeAPIServerClientSignerName, kubelet, auth)
	for _, conditions := range [][]certificatesv1.RequestConditionType{{}, {certificatesv1.CertificateDenied},
		{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied}, {certificatesv1.CertificateApproved, certificatesv1.CertificateFailed}} {
		if actions, err := Sign(decided(r, conditions...), ca, time.Hour, now); len(actions) > 0 || err != nil {
			t.Errorf("%v: %v, %v", conditions, actions, err)
		}
	}
	if _, err := Sign(decided(r, certificatesv1.CertificateApproved), authority(t, now), time.Hour, now); err == nil {
		t.Error("an authority that has run out signs")
	}
}

func TestLifeOfACertificate(t *testing.T) {
	ca := authority(t, now.Add(1000000*time.Hour))
	for seconds, want := range map[int32]time.Duration{60: 10 * time.Minute, 3600: time.Hour, 1 << 30: 24*time.Hour - backdate} {
		r := decided(request(t, LegacyUnknown, kubelet, auth), certificatesv1.CertificateApproved)
		r.Spec.ExpirationSeconds = ptr.To(seconds)
		actions, err := Sign(r, ca, 24*time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(actions[0].(plan.Update).Obj.(*certificatesv1.CertificateSigningRequest).Status.Certificate)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := cert.NotAfter.Sub(now); got != want {
			t.Errorf("asked for %d s and got %v, want %v", seconds, got, want)
		}
	}
}

func TestWhoMayBeApproved(t *testing.T) {
	own := request(t, certificatesv1.KubeAPIServerClientKubeletSignerName, kubelet, auth, signature)
	boot := own.DeepCopy()
	boot.Spec.Username = "system:bootstrap:abc"
	for name, c := range map[string]struct {
		r    *certificatesv1.CertificateSigningRequest
		want int
	}{
		"a node for itself": {own, 2}, "somebody for a node": {boot, 1}, "decided": {decided(own, certificatesv1.CertificateDenied), 0},
		"another signer": {request(t, certificatesv1.KubeletServingSignerName, kubelet, auth, signature), 0},
	} {
		got, err := claims(c.r)
		if err != nil || len(got) != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestKeep(t *testing.T) {
	r := request(t, LegacyUnknown, kubelet, auth)
	if got := Keep(r, now); got != 24*time.Hour {
		t.Errorf("pending: %v", got)
	}
	if got := Keep(decided(r, certificatesv1.CertificateApproved), now.Add(time.Minute)); got != 59*time.Minute {
		t.Errorf("approved: %v", got)
	}
	ca := authority(t, now.Add(time.Minute))
	r = decided(r, certificatesv1.CertificateApproved)
	r.Status.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw})
	if got := Keep(r, now); got != time.Minute {
		t.Errorf("issued: %v, want until it runs out", got)
	}
}
