package certificates

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// How long requests are kept.
const (
	keepDecided = time.Hour
	keepPending = 24 * time.Hour
)

// Cleaning is the controller that removes requests that are decided, forgotten or run out.
func Cleaning(d reconcile.Deps) reconcile.Controller {
	requests := client.CacheOf[*certificatesv1.CertificateSigningRequest](d.Caches)
	return reconcile.Controller{
		Name: "certificatesigningrequest-cleaner-controller", Workers: 1,
		Inputs: []reconcile.Input{reconcile.Own[*certificatesv1.CertificateSigningRequest](d.Caches)},
		Writes: []string{"certificates.k8s.io/certificatesigningrequests"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			r, ok := requests.Get("", key.Name)
			if !ok || r.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			left := Keep(r, d.Clock.Now())
			if left > 0 {
				return reconcile.Result{After: left}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, plan.Delete{Obj: r})
		},
	}
}

// Keep is for how long the request is still of use: until its certificate has run out, at most an hour after it was
// decided, or a day after it was made if nobody decides.
func Keep(r *certificatesv1.CertificateSigningRequest, now time.Time) time.Duration {
	until := r.CreationTimestamp.Add(keepPending)
	for i, c := range r.Status.Conditions {
		at := c.LastUpdateTime.Time
		if at.IsZero() {
			at = r.CreationTimestamp.Time
		}
		if t := at.Add(keepDecided); i == 0 || t.Before(until) {
			until = t
		}
	}
	if block, _ := pem.Decode(r.Status.Certificate); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	return until.Sub(now)
}
