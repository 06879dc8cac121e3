// Package reviews answers the kinds that are questions: who is this, and may they do that.
//
// Invariant: an answer is what the server itself would decide for such a request at this moment; nothing is stored.
//
// Only server imports reviews.
package reviews

import (
	"context"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/server/tokens"
)

// Authorizer decides and lists rules.
type Authorizer interface {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// Actions returns the actions by "resource.group" and "resource/subresource". The issuer may be nil: service accounts
// have no tokens then.
func Actions(authn authenticator.Request, authz Authorizer, issuer *tokens.Issuer) map[string]rest.Action {
	r := &reviews{authn, authz, issuer}
	m := map[string]rest.Action{
		"tokenreviews.authentication.k8s.io":             action(r.token),
		"selfsubjectreviews.authentication.k8s.io":       action(r.self),
		"subjectaccessreviews.authorization.k8s.io":      action(r.access),
		"localsubjectaccessreviews.authorization.k8s.io": action(r.localAccess),
		"selfsubjectaccessreviews.authorization.k8s.io":  action(r.selfAccess),
		"selfsubjectrulesreviews.authorization.k8s.io":   action(r.rules),
	}
	if issuer != nil {
		m["serviceaccounts/token"] = r.issue
	}
	return m
}

type reviews struct {
	authn  authenticator.Request
	authz  Authorizer
	issuer *tokens.Issuer
}

// action adapts an answer to one kind of question; the question is the action's own and is filled in.
func action[T runtime.Object](f func(context.Context, T) error) rest.Action {
	return func(ctx context.Context, _ api.Object, obj runtime.Object, _ bool) (runtime.Object, error) {
		q, ok := obj.(T)
		if !ok {
			return nil, apierrors.NewBadRequest("not the kind that this path takes")
		}
		if err := f(ctx, q); err != nil {
			return nil, err
		}
		return q, nil
	}
}

func (r *reviews) token(ctx context.Context, q *authenticationv1.TokenReview) error {
	if q.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	audiences := authenticator.Audiences(q.Spec.Audiences)
	if len(audiences) == 0 && r.issuer != nil {
		audiences = r.issuer.Audiences()
	}
	if len(audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, audiences)
	}
	// A request with nothing but the token, so that every way to authenticate by token counts.
	req := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + q.Spec.Token}}}).WithContext(ctx)
	resp, ok, err := r.authn.AuthenticateRequest(req)
	q.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
	if err != nil {
		q.Status.Error = err.Error()
	}
	if ok && resp.User.GetName() != user.Anonymous {
		q.Status.User = info(resp.User)
		q.Status.Audiences = resp.Audiences
	} else {
		q.Status.Authenticated = false
	}
	return nil
}

func info(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}

func (r *reviews) self(ctx context.Context, q *authenticationv1.SelfSubjectReview) error {
	q.ObjectMeta = metav1.ObjectMeta{CreationTimestamp: metav1.Now()}
	q.Status.UserInfo = info(request.From(ctx).User)
	return nil
}

func (r *reviews) access(ctx context.Context, q *authorizationv1.SubjectAccessReview) error {
	if err := invalid(append(validate(&q.Spec), noMetadata(q.ObjectMeta, false)...)); err != nil {
		return err
	}
	q.Status = r.decide(ctx, subject(&q.Spec), q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
	return nil
}

func (r *reviews) localAccess(ctx context.Context, q *authorizationv1.LocalSubjectAccessReview) error {
	errs := append(validate(&q.Spec), noMetadata(q.ObjectMeta, true)...)
	if a := q.Spec.ResourceAttributes; a != nil && a.Namespace != q.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if q.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), q.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	if err := invalid(errs); err != nil {
		return err
	}
	q.Status = r.decide(ctx, subject(&q.Spec), q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
	return nil
}

func (r *reviews) selfAccess(ctx context.Context, q *authorizationv1.SelfSubjectAccessReview) error {
	errs := validateAttributes(q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
	if err := invalid(append(errs, noMetadata(q.ObjectMeta, false)...)); err != nil {
		return err
	}
	q.Status = r.decide(ctx, request.From(ctx).User, q.Spec.ResourceAttributes, q.Spec.NonResourceAttributes)
	return nil
}

func (r *reviews) rules(ctx context.Context, q *authorizationv1.SelfSubjectRulesReview) error {
	if q.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resource, other, incomplete, err := r.authz.RulesFor(ctx, request.From(ctx).User, q.Spec.Namespace)
	q.Spec, q.ManagedFields = authorizationv1.SelfSubjectRulesReviewSpec{}, nil
	q.Status = authorizationv1.SubjectRulesReviewStatus{Incomplete: incomplete,
		ResourceRules:    make([]authorizationv1.ResourceRule, 0, len(resource)),
		NonResourceRules: make([]authorizationv1.NonResourceRule, 0, len(other))}
	if err != nil {
		q.Status.EvaluationError = err.Error()
	}
	for _, x := range resource {
		q.Status.ResourceRules = append(q.Status.ResourceRules, authorizationv1.ResourceRule{Verbs: x.GetVerbs(),
			APIGroups: x.GetAPIGroups(), Resources: x.GetResources(), ResourceNames: x.GetResourceNames()})
	}
	for _, x := range other {
		q.Status.NonResourceRules = append(q.Status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: x.GetVerbs(),
			NonResourceURLs: x.GetNonResourceURLs()})
	}
	return nil
}

func (r *reviews) issue(ctx context.Context, parent api.Object, obj runtime.Object, _ bool) (runtime.Object, error) {
	sa, ok := parent.(*corev1.ServiceAccount)
	if !ok {
		return nil, apierrors.NewBadRequest("not a ServiceAccount")
	}
	tr, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest("not a TokenRequest")
	}
	out, err := r.issuer.Issue(ctx, sa, tr)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// invalid names no kind, as upstream does here.
func invalid(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authorizationv1.GroupName}, "", errs)
}
