package tokens

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
)

const (
	defaultSeconds  = 3600
	minSeconds      = 600
	maxSeconds      = 1 << 32
	warnSeconds     = 3607               // what the projected volume of ServiceAccount admission asks for
	extendedSeconds = 365 * 24 * 60 * 60 // how long such a token really lives
)

// Issue answers a TokenRequest for a service account. The request is not changed; the answer is a copy with its status.
// Errors are *errors.StatusError.
func (i *Issuer) Issue(ctx context.Context, sa *corev1.ServiceAccount, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out := tr.DeepCopy()
	if err := i.complete(sa, out); err != nil {
		return nil, err
	}
	now := i.cfg.Now()
	seconds := *out.Spec.ExpirationSeconds
	b := &bound{Namespace: sa.Namespace, ServiceAccount: ref{sa.Name, string(sa.UID)}}
	if err := i.bind(ctx, b, sa, out.Spec.BoundObjectRef); err != nil {
		return nil, err
	}
	life := seconds
	// A pod whose client never reloads its token keeps working for a year, as upstream does (KEP-1205).
	if b.Pod != nil && seconds == warnSeconds && i.own(out.Spec.Audiences) {
		life = extendedSeconds
		b.WarnAfter = jwt.NewNumericDate(now.Add(time.Duration(seconds) * time.Second))
	}
	token, err := i.sign(claims{Kubernetes: b, Claims: jwt.Claims{
		Issuer: i.cfg.Issuer, Subject: serviceaccount.MakeUsername(sa.Namespace, sa.Name), Audience: out.Spec.Audiences,
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ID: uuid.NewString(),
		Expiry: jwt.NewNumericDate(now.Add(time.Duration(life) * time.Second))}})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out.Status = authenticationv1.TokenRequestStatus{Token: token,
		ExpirationTimestamp: metav1.NewTime(now.Add(time.Duration(seconds) * time.Second))}
	return out, nil
}

// complete fills in and validates what the request leaves open.
func (i *Issuer) complete(sa *corev1.ServiceAccount, tr *authenticationv1.TokenRequest) error {
	if tr.Name == "" {
		tr.Name = sa.Name
	}
	if tr.Namespace == "" {
		tr.Namespace = sa.Namespace
	}
	if tr.Name != sa.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("service account name in object (%s) does not match the name in the URL (%s)", tr.Name, sa.Name))
	}
	if tr.Namespace != sa.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("namespace in object (%s) does not match the namespace in the URL (%s)", tr.Namespace, sa.Namespace))
	}
	if len(tr.Spec.Audiences) == 0 {
		tr.Spec.Audiences = i.Audiences()
	}
	if tr.Spec.ExpirationSeconds == nil {
		tr.Spec.ExpirationSeconds = new(int64)
		*tr.Spec.ExpirationSeconds = defaultSeconds
	}
	var errs field.ErrorList
	path, s := field.NewPath("spec", "expirationSeconds"), *tr.Spec.ExpirationSeconds
	if s < minSeconds {
		errs = append(errs, field.Invalid(path, s, "may not specify a duration less than 10 minutes"))
	}
	if s > maxSeconds {
		errs = append(errs, field.Invalid(path, s, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, tr.Name, errs)
	}
	return nil
}

// bind ties the token to the object that the request names.
func (i *Issuer) bind(ctx context.Context, b *bound, sa *corev1.ServiceAccount, r *authenticationv1.BoundObjectReference) error {
	if r == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)
	var have ref
	switch {
	case gvk.Group == "" && gvk.Kind == "Pod":
		pod, ok, err := i.cfg.Lookup.Pod(ctx, sa.Namespace, r.Name)
		if err != nil || !ok {
			return missing("pods", r.Name, err)
		}
		if pod.Spec.ServiceAccountName != sa.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		have = ref{pod.Name, string(pod.UID)}
		b.Pod = &have
		if n := pod.Spec.NodeName; n != "" {
			b.Node = &ref{Name: n}
			node, ok, err := i.cfg.Lookup.Node(ctx, n)
			if err != nil {
				return apierrors.NewInternalError(err)
			}
			if ok {
				b.Node.UID = string(node.UID)
			}
		}
	case gvk.Group == "" && gvk.Kind == "Node":
		node, ok, err := i.cfg.Lookup.Node(ctx, r.Name)
		if err != nil || !ok {
			return missing("nodes", r.Name, err)
		}
		have = ref{node.Name, string(node.UID)}
		b.Node = &have
	case gvk.Group == "" && gvk.Kind == "Secret":
		secret, ok, err := i.cfg.Lookup.Secret(ctx, sa.Namespace, r.Name)
		if err != nil || !ok {
			return missing("secrets", r.Name, err)
		}
		have = ref{secret.Name, string(secret.UID)}
		b.Secret = &have
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if r.UID != "" && string(r.UID) != have.UID {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, r.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", r.UID))
	}
	return nil
}

func missing(resource, name string, err error) error {
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}

// own reports whether all the audiences are the API server's.
func (i *Issuer) own(audiences []string) bool {
	for _, a := range audiences {
		if !slices.Contains(i.cfg.Audiences, a) {
			return false
		}
	}
	return true
}

// Legacy makes the token that a secret of the type kubernetes.io/service-account-token holds. It lives as long as the secret.
func (i *Issuer) Legacy(sa *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
	return i.sign(claims{Claims: jwt.Claims{Issuer: legacyIssuer, Subject: serviceaccount.MakeUsername(sa.Namespace, sa.Name)},
		legacy: legacy{sa.Namespace, sa.Name, string(sa.UID), secret.Name}})
}
