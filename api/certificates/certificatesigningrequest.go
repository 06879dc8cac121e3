package certificates

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var certificateSigningRequest = &api.Kind{
	Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest",
	Plural: "certificatesigningrequests", Singular: "certificatesigningrequest", ShortNames: []string{"csr"},
	StoragePath: "certificatesigningrequests",
	New:         api.New[certificatesv1.CertificateSigningRequest], NewList: api.NewList[certificatesv1.CertificateSigningRequestList],
	ValidateName: core.PathSegment,
	Validate:     api.Check(validateCertificateSigningRequest),
	ValidateUpdate: api.CheckUpdate(func(x, _ *certificatesv1.CertificateSigningRequest) field.ErrorList {
		return validateCertificateSigningRequest(x)
	}),
	ValidateStatus: api.CheckUpdate(validateStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.AgeColumn(),
		api.Col("SignerName", "string", func(x *certificatesv1.CertificateSigningRequest) any { return signer(x) }),
		api.Col("Requestor", "string", func(x *certificatesv1.CertificateSigningRequest) any { return x.Spec.Username }),
		api.Col("RequestedDuration", "string", func(x *certificatesv1.CertificateSigningRequest) any { return requested(x) }),
		api.Col("Condition", "string", func(x *certificatesv1.CertificateSigningRequest) any { return csrStatus(x) }),
	},
	PrepareUpdate: api.OnUpdate(updateCertificateSigningRequest),
	FieldKeys:     []string{"spec.signerName"},
	Fields: api.Selectable(func(x *certificatesv1.CertificateSigningRequest) map[string]string {
		return map[string]string{"spec.signerName": x.Spec.SignerName}
	}),
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.PartOf("approval", "get", "patch", "update"),
		api.Status(),
	},
}

func updateCertificateSigningRequest(x, old *certificatesv1.CertificateSigningRequest) {
	x.Spec = old.Spec
}

func signer(x *certificatesv1.CertificateSigningRequest) string {
	if x.Spec.SignerName == "" {
		return "<none>"
	}
	return x.Spec.SignerName
}

func requested(x *certificatesv1.CertificateSigningRequest) string {
	if x.Spec.ExpirationSeconds == nil {
		return "<none>"
	}
	return duration.HumanDuration(time.Duration(*x.Spec.ExpirationSeconds) * time.Second)
}

func csrStatus(x *certificatesv1.CertificateSigningRequest) string {
	var parts []string
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved,
		certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		for _, c := range x.Status.Conditions {
			if c.Type == t {
				parts = append(parts, string(t))
				break
			}
		}
	}
	switch {
	case len(parts) == 0 && len(x.Status.Certificate) > 0:
		return "Pending,Issued"
	case len(parts) == 0:
		return "Pending"
	case len(x.Status.Certificate) > 0:
		parts = append(parts, "Issued")
	}
	return strings.Join(parts, ",")
}

func validateCertificateSigningRequest(x *certificatesv1.CertificateSigningRequest) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if err := checkRequest(x.Spec.Request); err != nil {
		errs = append(errs, field.Invalid(path.Child("request"), x.Spec.Request, err.Error()))
	}
	if len(x.Spec.Usages) == 0 {
		errs = append(errs, field.Required(path.Child("usages"), ""))
	}
	for i, u := range x.Spec.Usages {
		if errs = append(errs, core.Known(path.Child("usages").Index(i), u, usages...)...); slices.Contains(x.Spec.Usages[:i], u) {
			errs = append(errs, field.Duplicate(path.Child("usages").Index(i), u))
		}
	}
	if x.Spec.SignerName == "" {
		errs = append(errs, field.Required(path.Child("signerName"), ""))
	} else if domain, name, ok := strings.Cut(x.Spec.SignerName, "/"); !ok || domain == "" || name == "" {
		errs = append(errs, field.Invalid(path.Child("signerName"), x.Spec.SignerName, "must be a fully qualified domain and path of the form 'example.com/signer-name'"))
	}
	if e := x.Spec.ExpirationSeconds; e != nil && *e < 600 {
		errs = append(errs, field.Invalid(path.Child("expirationSeconds"), *e, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return errs
}

// usages are what a certificate may be asked for.
var usages = slices.Sorted(slices.Values([]certificatesv1.KeyUsage{
	certificatesv1.UsageSigning, certificatesv1.UsageDigitalSignature, certificatesv1.UsageContentCommitment, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageKeyAgreement, certificatesv1.UsageDataEncipherment, certificatesv1.UsageCertSign, certificatesv1.UsageCRLSign,
	certificatesv1.UsageEncipherOnly, certificatesv1.UsageDecipherOnly, certificatesv1.UsageAny, certificatesv1.UsageServerAuth,
	certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning, certificatesv1.UsageEmailProtection, certificatesv1.UsageSMIME,
	certificatesv1.UsageIPsecEndSystem, certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageTimestamping,
	certificatesv1.UsageOCSPSigning, certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC,
}))

func checkRequest(b []byte) error {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	return r.CheckSignature()
}

// validateStatus judges the conditions and the certificate: a decision is final, and there is one.
func validateStatus(x, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status", "conditions")
	has := func(cs []certificatesv1.CertificateSigningRequestCondition, t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(cs, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
	}
	now, before := x.Status.Conditions, old.Status.Conditions
	for i, c := range now {
		at := path.Index(i)
		final := c.Type == certificatesv1.CertificateApproved || c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed
		switch {
		case c.Type == "":
			errs = append(errs, field.Required(at.Child("type"), ""))
		case c.Type == certificatesv1.CertificateDenied && has(now, certificatesv1.CertificateApproved):
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, "Approved and Denied conditions are mutually exclusive"))
		case slices.ContainsFunc(now[:i], func(o certificatesv1.CertificateSigningRequestCondition) bool { return o.Type == c.Type }):
			errs = append(errs, field.Duplicate(at.Child("type"), c.Type))
		}
		switch {
		case c.Status == "":
			errs = append(errs, field.Required(at.Child("status"), ""))
		case final && c.Status != corev1.ConditionTrue:
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []corev1.ConditionStatus{corev1.ConditionTrue}))
		case c.Status != corev1.ConditionTrue && c.Status != corev1.ConditionFalse && c.Status != corev1.ConditionUnknown:
			errs = append(errs, field.NotSupported(at.Child("status"), c.Status, []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown}))
		}
	}
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		if has(before, t) && !has(now, t) {
			errs = append(errs, field.Forbidden(path, "updates may not remove a condition of type \""+string(t)+"\""))
		}
	}
	cert := field.NewPath("status", "certificate")
	switch {
	case bytes.Equal(x.Status.Certificate, old.Status.Certificate):
	case len(old.Status.Certificate) > 0:
		errs = append(errs, field.Forbidden(cert, "updates may not set certificate content once a certificate was issued"))
	default:
		if err := checkChain(x.Status.Certificate); err != nil {
			errs = append(errs, field.Invalid(cert, "<certificate data>", err.Error()))
		}
	}
	return errs
}

// checkChain reads PEM: one certificate or more, and nothing else.
func checkChain(b []byte) error {
	block, rest := pem.Decode(b)
	if block == nil {
		return errors.New("must contain at least one CERTIFICATE PEM block")
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return errors.New("only CERTIFICATE PEM blocks are allowed, found \"" + block.Type + "\"")
		}
		if len(block.Headers) > 0 {
			return errors.New("no PEM block headers are permitted")
		}
		if _, err := x509.ParseCertificates(block.Bytes); err != nil {
			return err
		}
	}
	return nil
}
