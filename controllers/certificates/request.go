// Package certificates approves the kubelets' own certificate requests, signs what has been approved, and removes
// requests that are done with.
//
// Invariant: only a request that is approved, not denied, fits its signer's rules and has no certificate yet is
// signed; only kubelet client requests whose sender may ask for them (a SubjectAccessReview) are approved. Only
// controllers/ may import certificates.
package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	nodesGroup = "system:nodes"
	nodePrefix = "system:node:"
)

// parse reads the PEM form of a PKCS #10 request.
func parse(b []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

func has(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
}

// approved reports whether somebody has approved the request and nobody denied it.
func approved(r *certificatesv1.CertificateSigningRequest) bool {
	return has(r, certificatesv1.CertificateApproved) && !has(r, certificatesv1.CertificateDenied)
}

// checkUsages wants exactly the named usages; "key encipherment" may come on top.
func checkUsages(got []certificatesv1.KeyUsage, want ...certificatesv1.KeyUsage) error {
	rest := map[certificatesv1.KeyUsage]bool{}
	for _, u := range got {
		if u != certificatesv1.UsageKeyEncipherment {
			rest[u] = true
		}
	}
	ok := len(rest) == len(want)
	for _, u := range want {
		ok = ok && rest[u]
	}
	if !ok {
		return fmt.Errorf("usages did not match %v", want)
	}
	return nil
}

// checkNode wants the name of a node.
func checkNode(r *x509.CertificateRequest) error {
	switch {
	case !slices.Equal(r.Subject.Organization, []string{nodesGroup}):
		return errors.New("subject organization is not system:nodes")
	case !strings.HasPrefix(r.Subject.CommonName, nodePrefix):
		return fmt.Errorf("subject common name does not begin with %s", nodePrefix)
	}
	return nil
}

// checkKubeletClient is the rule of kubernetes.io/kube-apiserver-client-kubelet.
func checkKubeletClient(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := checkNode(r); err != nil {
		return err
	}
	switch {
	case len(r.DNSNames) > 0:
		return errors.New("DNS subjectAltNames are not allowed")
	case len(r.EmailAddresses) > 0:
		return fmt.Errorf("%s subjectAltNames are not allowed", "Email")
	case len(r.IPAddresses) > 0:
		return errors.New("IP subjectAltNames are not allowed")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	return checkUsages(usages, certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature)
}

// checkKubeletServing is the rule of kubernetes.io/kubelet-serving.
func checkKubeletServing(r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	if err := checkNode(r); err != nil {
		return err
	}
	switch {
	case len(r.DNSNames) == 0 && len(r.IPAddresses) == 0:
		return errors.New("DNS or IP subjectAltName is required")
	case len(r.EmailAddresses) > 0:
		return fmt.Errorf("%s subjectAltNames are not allowed", "Email")
	case len(r.URIs) > 0:
		return errors.New("URI subjectAltNames are not allowed")
	}
	return checkUsages(usages, certificatesv1.UsageDigitalSignature, certificatesv1.UsageServerAuth)
}

// checkClient is the rule of kubernetes.io/kube-apiserver-client.
func checkClient(usages []certificatesv1.KeyUsage) error {
	client := false
	for _, u := range usages {
		switch u {
		case certificatesv1.UsageClientAuth:
			client = true
		case certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment:
		default:
			return fmt.Errorf("invalid usage for client certificate: %s", u)
		}
	}
	if !client {
		return fmt.Errorf("missing required usage for client certificate: %s", certificatesv1.UsageClientAuth)
	}
	return nil
}

// check judges a request by its signer's rule.
func check(signer string, r *x509.CertificateRequest, usages []certificatesv1.KeyUsage) error {
	switch signer {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return checkKubeletClient(r, usages)
	case certificatesv1.KubeletServingSignerName:
		return checkKubeletServing(r, usages)
	case certificatesv1.KubeAPIServerClientSignerName:
		return checkClient(usages)
	case LegacyUnknown:
		return nil // whatever it says: nothing else may trust this signer
	}
	return fmt.Errorf("unrecognized signerName: %q", signer)
}

// with is a copy of the request with one more condition.
func with(r *certificatesv1.CertificateSigningRequest, c certificatesv1.CertificateSigningRequestCondition) *certificatesv1.CertificateSigningRequest {
	r = r.DeepCopy()
	c.Status = corev1.ConditionTrue
	r.Status.Conditions = append(r.Status.Conditions, c)
	return r
}
