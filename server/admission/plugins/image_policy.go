package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/api/imagepolicy/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/audit"
)

// imagePolicy asks a server of the administrator's whether a pod's images may run. It is off by default.
type imagePolicy struct {
	server          *webhook.GenericWebhook
	answers         *cache.LRUExpireCache
	allowed, denied time.Duration // how long such an answer is remembered
	lenient         bool          // a server that fails allows everything
}

const (
	imagePolicyAnnotations = ".image-policy.k8s.io/"
	imagePolicyAudit       = "imagepolicywebhook.image-policy.k8s.io/"
	imagePolicyFailedOpen  = "alpha.image-policy.k8s.io/failed-open"
	imageAnswers           = 1024 // how many are remembered
)

func newImagePolicy(_ Deps, b []byte) (admission.Plugin, error) {
	if b == nil {
		return nil, errors.New("no config specified")
	}
	var c struct {
		ImagePolicy struct {
			KubeConfigFile string `json:"kubeConfigFile"`
			AllowTTL       int64  `json:"allowTTL"`     // s
			DenyTTL        int64  `json:"denyTTL"`      // s
			RetryBackoff   int64  `json:"retryBackoff"` // ms
			DefaultAllow   bool   `json:"defaultAllow"`
		} `json:"imagePolicy"`
	}
	if err := yaml.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	p := &imagePolicy{answers: cache.NewLRUExpireCache(imageAnswers), lenient: c.ImagePolicy.DefaultAllow}
	var pause time.Duration
	var errs [3]error
	p.allowed, errs[0] = period(c.ImagePolicy.AllowTTL, time.Second, time.Second, 30*time.Minute, 5*time.Minute)
	p.denied, errs[1] = period(c.ImagePolicy.DenyTTL, time.Second, time.Second, 30*time.Minute, 30*time.Second)
	pause, errs[2] = period(c.ImagePolicy.RetryBackoff, time.Millisecond, 1, 5*time.Minute, 500*time.Millisecond)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	cfg, err := webhook.LoadKubeconfig(c.ImagePolicy.KubeConfigFile, nil)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	p.server, err = webhook.NewGenericWebhook(scheme, serializer.NewCodecFactory(scheme), cfg,
		[]schema.GroupVersion{v1alpha1.SchemeGroupVersion}, webhook.DefaultRetryBackoffWithInitialDelay(pause))
	return p, err
}

// period reads a time: 0 is the default, -1 none at all.
func period(n int64, unit, least, most, usual time.Duration) (time.Duration, error) {
	switch d := time.Duration(n) * unit; {
	case n == 0:
		return usual, nil
	case n == -1:
		return 0, nil
	case n > int64(most/unit) || d < least:
		return 0, fmt.Errorf("valid value is between %v and %v, got %d times %v", least, most, n, unit)
	default:
		return d, nil
	}
}

func (*imagePolicy) Name() string { return "ImagePolicyWebhook" }
func (*imagePolicy) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && isPod(k) && (sub == "" || sub == "ephemeralcontainers")
}

func (p *imagePolicy) Validate(ctx context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	review := &v1alpha1.ImageReview{Spec: v1alpha1.ImageReviewSpec{Namespace: r.Namespace, Annotations: map[string]string{}}}
	for k, v := range o.Annotations {
		if strings.Contains(k, imagePolicyAnnotations) {
			review.Spec.Annotations[k] = v
		}
	}
	add := func(image string) {
		review.Spec.Containers = append(review.Spec.Containers, v1alpha1.ImageReviewContainerSpec{Image: image})
	}
	if r.Subresource == "" {
		for _, c := range slices.Concat(o.Spec.Containers, o.Spec.InitContainers) {
			add(c.Image)
		}
	} else {
		for _, c := range o.Spec.EphemeralContainers {
			add(c.Image)
		}
	}
	if err := p.ask(ctx, review); err != nil {
		return p.failed(ctx, r, o, err)
	}
	for k, v := range review.Status.AuditAnnotations {
		audit.Annotate(ctx, imagePolicyAudit+k, v)
	}
	switch {
	case review.Status.Allowed:
		return nil
	case review.Status.Reason != "":
		return forbidden(r, "image policy webhook backend denied one or more images: %s", review.Status.Reason)
	}
	return forbidden(r, "one or more images rejected by webhook backend")
}

// failed judges a pod that nobody has judged.
func (p *imagePolicy) failed(ctx context.Context, r *admission.Request, o *corev1.Pod, err error) error {
	if !p.lenient {
		return forbidden(r, "%w", err)
	}
	audit.Annotate(ctx, imagePolicyAudit+"failed-open", "true")
	if o.Annotations == nil {
		o.Annotations = map[string]string{}
	}
	o.Annotations[imagePolicyFailedOpen] = "true"
	return nil
}

// ask fills in the review's status.
func (p *imagePolicy) ask(ctx context.Context, review *v1alpha1.ImageReview) error {
	key, err := json.Marshal(review.Spec)
	if err != nil {
		return err
	}
	if known, ok := p.answers.Get(string(key)); ok {
		review.Status = known.(v1alpha1.ImageReviewStatus)
		return nil
	}
	result := p.server.WithExponentialBackoff(ctx, func() rest.Result { return p.server.RestClient.Post().Body(review).Do(ctx) })
	if err := result.Error(); err != nil {
		return err
	}
	if err := result.Into(review); err != nil {
		return err
	}
	lasts := p.denied
	if review.Status.Allowed {
		lasts = p.allowed
	}
	p.answers.Add(string(key), review.Status, lasts)
	return nil
}
