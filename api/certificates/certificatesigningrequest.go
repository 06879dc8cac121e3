package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"
	"time"

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
