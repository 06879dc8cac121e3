package plugins

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// denyExternalIPs refuses new external addresses of services (CVE-2020-8554). It is off by default.
type denyExternalIPs struct{}

func (denyExternalIPs) Name() string { return "DenyServiceExternalIPs" }
func (denyExternalIPs) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && is(k, "", "services") && sub == ""
}

func (denyExternalIPs) Validate(_ context.Context, r *admission.Request) error {
	s, ok := r.Object.(*corev1.Service)
	if !ok {
		return nil
	}
	var had []string
	if old, ok := r.Old.(*corev1.Service); ok {
		had = old.Spec.ExternalIPs
	}
	for _, ip := range s.Spec.ExternalIPs {
		if !slices.Contains(had, ip) {
			return forbidden(r, "Use of external IPs is denied by admission control")
		}
	}
	return nil
}
