package plugins

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"reflect"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

func isCSR(k *api.Kind) bool { return is(k, "certificates.k8s.io", "certificatesigningrequests") }

// forSigner reports whether the user may do verb for a signer, or for all signers of its domain.
func forSigner(ctx context.Context, a authorizer.Authorizer, r *admission.Request, verb, signer string) bool {
	at := authorizer.AttributesRecord{Verb: verb, Name: signer, APIGroup: "certificates.k8s.io", APIVersion: "*", Resource: "signers"}
	if allowed(ctx, a, r, at) {
		return true
	}
	domain, _, _ := strings.Cut(signer, "/")
	at.Name = domain + "/*"
	return allowed(ctx, a, r, at)
}

// certificateApproval lets only those approve or deny a request who may do so for its signer.
type certificateApproval struct{ a authorizer.Authorizer }

func (*certificateApproval) Name() string { return "CertificateApproval" }
func (*certificateApproval) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Update && isCSR(k) && sub == "approval"
}

func (p *certificateApproval) Validate(ctx context.Context, r *admission.Request) error {
	// The stored object counts: the signer in the update is the client's word.
	csr, ok := r.Old.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return forbidden(r, "expected type CertificateSigningRequest, got: %T", r.Old)
	}
	if !forSigner(ctx, p.a, r, "approve", csr.Spec.SignerName) {
		return forbidden(r, "user not permitted to approve requests with signerName %q", csr.Spec.SignerName)
	}
	return nil
}

// certificateSigning lets only those issue a certificate, or say why not, who may do so for the request's signer.
type certificateSigning struct{ a authorizer.Authorizer }

func (*certificateSigning) Name() string { return "CertificateSigning" }
func (*certificateSigning) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Update && isCSR(k) && sub == "status"
}

func (p *certificateSigning) Validate(ctx context.Context, r *admission.Request) error {
	old, ok := r.Old.(*certificatesv1.CertificateSigningRequest)
	csr, ok2 := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || !ok2 {
		return forbidden(r, "expected type CertificateSigningRequest, got: %T", r.Object)
	}
	if reflect.DeepEqual(old.Status.Certificate, csr.Status.Certificate) && reflect.DeepEqual(failed(old), failed(csr)) {
		return nil
	}
	if !forSigner(ctx, p.a, r, "sign", old.Spec.SignerName) {
		return forbidden(r, "user not permitted to sign requests with signerName %q", old.Spec.SignerName)
	}
	return nil
}

func failed(csr *certificatesv1.CertificateSigningRequest) []certificatesv1.CertificateSigningRequestCondition {
	var out []certificatesv1.CertificateSigningRequestCondition
	for _, c := range csr.Status.Conditions {
		if c.Type == certificatesv1.CertificateFailed {
			out = append(out, c)
		}
	}
	return out
}

// certificateSubject refuses client certificates for system:masters, which nothing could revoke.
type certificateSubject struct{}

func (certificateSubject) Name() string { return "CertificateSubjectRestriction" }
func (certificateSubject) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && isCSR(k) && sub == ""
}

func (certificateSubject) Validate(_ context.Context, r *admission.Request) error {
	csr, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok {
		return forbidden(r, "expected type CertificateSigningRequest, got: %T", r.Object)
	}
	if csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
		return nil
	}
	req, err := parseCSR(csr.Spec.Request)
	if err != nil {
		return forbidden(r, "failed to parse CSR: %v", err)
	}
	if slices.Contains(req.Subject.Organization, user.SystemPrivilegedGroup) {
		return forbidden(r, "use of %s signer with system:masters group is not allowed", certificatesv1.KubeAPIServerClientSignerName)
	}
	return nil
}

func parseCSR(b []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// trustBundleAttest lets only those publish a ClusterTrustBundle for a signer who may attest for it. The kind is not
// served by default; a server that adds it has the check.
type trustBundleAttest struct{ a authorizer.Authorizer }

func (*trustBundleAttest) Name() string { return "ClusterTrustBundleAttest" }
func (*trustBundleAttest) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && is(k, "certificates.k8s.io", "clustertrustbundles") && sub == ""
}

func (p *trustBundleAttest) Validate(ctx context.Context, r *admission.Request) error {
	b, ok := r.Object.(*certificatesv1beta1.ClusterTrustBundle)
	if !ok {
		return nil
	}
	signer := b.Spec.SignerName
	if signer != "" && !forSigner(ctx, p.a, r, "attest", signer) {
		return forbidden(r, "user not permitted to attest for signerName %q", signer)
	}
	return nil
}
