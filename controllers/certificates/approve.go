package certificates

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// claim is one reason for which a kubelet's client request may be approved: what its sender must be allowed to create.
type claim struct {
	subresource, message string
}

// claims are the reasons that fit a request, the strictest first; none if it is not a kubelet's.
func claims(r *certificatesv1.CertificateSigningRequest) ([]claim, error) {
	if len(r.Status.Certificate) > 0 || len(r.Status.Conditions) > 0 || r.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil, nil
	}
	x, err := parse(r.Spec.Request)
	if err != nil {
		return nil, fmt.Errorf("unable to parse csr %q: %v", r.Name, err)
	}
	if checkKubeletClient(x, r.Spec.Usages) != nil {
		return nil, nil
	}
	var out []claim
	if r.Spec.Username == x.Subject.CommonName {
		out = append(out, claim{"selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."})
	}
	return append(out, claim{"nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."}), nil
}

// Approving is the controller that approves kubelets' client certificates.
func Approving(d reconcile.Deps) reconcile.Controller {
	requests := client.CacheOf[*certificatesv1.CertificateSigningRequest](d.Caches)
	return reconcile.Controller{
		Name:   "certificatesigningrequest-approving-controller",
		Inputs: []reconcile.Input{reconcile.Own[*certificatesv1.CertificateSigningRequest](d.Caches)},
		Writes: []string{"certificates.k8s.io/certificatesigningrequests/approval"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			r, ok := requests.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			reasons, err := claims(r)
			if err != nil {
				return reconcile.Result{}, err
			}
			for _, reason := range reasons {
				ok, err := mayCreate(ctx, d, r, reason.subresource)
				if err != nil {
					return reconcile.Result{}, err
				}
				if ok {
					now := metav1.NewTime(d.Clock.Now())
					return reconcile.Result{}, plan.Apply(ctx, d, plan.Update{Subresource: "approval", Obj: with(r, certificatesv1.CertificateSigningRequestCondition{
						Type: certificatesv1.CertificateApproved, Reason: "AutoApproved", Message: reason.message, LastUpdateTime: now, LastTransitionTime: now})})
				}
			}
			return reconcile.Result{}, nil // somebody else may approve it
		},
	}
}

// mayCreate asks whether the request's sender may create a subresource of certificate requests.
func mayCreate(ctx context.Context, d reconcile.Deps, r *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range r.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	answer, err := d.Client.Action(ctx, client.KindOf[*authorizationv1.SubjectAccessReview](), "", "", "", &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Resource: "certificatesigningrequests",
				Verb: "create", Subresource: subresource, Version: "*"}}})
	if err != nil {
		return false, err
	}
	review, ok := answer.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return false, fmt.Errorf("the answer to a SubjectAccessReview is a %T", answer)
	}
	return review.Status.Allowed, nil
}
