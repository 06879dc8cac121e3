package plugins

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	psadmission "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/admission/api/validation"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// podSecurity holds pods to the Pod Security Standards that their namespace asks for by its labels.
type podSecurity struct{ a *psadmission.Admission }

// newPodSecurity makes the plugin. By upstream's default configuration every level is privileged at the latest version
// unless a namespace says otherwise.
func newPodSecurity(d Deps, b []byte) (admission.Plugin, error) {
	c, err := load.LoadFromData(b)
	if err != nil {
		return nil, err
	}
	if err := validation.ValidatePodSecurityConfiguration(c).ToAggregate(); err != nil {
		return nil, err
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, err
	}
	a := &psadmission.Admission{
		Configuration:    c,
		Evaluator:        evaluator,
		Metrics:          noMetrics{},
		PodSpecExtractor: psadmission.DefaultPodSpecExtractor{},
		NamespaceGetter:  psReader{d.Store},
		PodLister:        psReader{d.Store},
	}
	return &podSecurity{a}, a.CompleteConfiguration()
}

func (*podSecurity) Name() string { return "PodSecurity" }
func (p *podSecurity) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	return in(op, admission.Create, admission.Update) && (is(k, "", "namespaces") || p.a.PodSpecExtractor.HasPodSpec(k.GroupResource()))
}

func (p *podSecurity) Validate(ctx context.Context, r *admission.Request) error {
	result := p.a.Validate(ctx, psRequest{r})
	for _, w := range result.Warnings {
		warn(r, w)
	}
	if result.Allowed {
		return nil
	}
	err := forbidden(r, "Not allowed by PodSecurity")
	if s := result.Result; s != nil {
		if s.Message != "" {
			err.ErrStatus.Message = s.Message
		}
		if s.Reason != "" {
			err.ErrStatus.Reason = s.Reason
		}
		if s.Details != nil {
			err.ErrStatus.Details = s.Details
		}
		if s.Code != 0 {
			err.ErrStatus.Code = s.Code
		}
	}
	return err
}

// psRequest is a request as the library sees it.
type psRequest struct{ r *admission.Request }

func (a psRequest) GetName() string                          { return nameOf(a.r) }
func (a psRequest) GetNamespace() string                     { return a.r.Namespace }
func (a psRequest) GetResource() schema.GroupVersionResource { return a.r.Kind.GroupVersionResource() }
func (a psRequest) GetKind() schema.GroupVersionKind         { return a.r.Kind.GroupVersionKind() }
func (a psRequest) GetSubresource() string                   { return a.r.Subresource }
func (a psRequest) GetOperation() admissionv1.Operation      { return admissionv1.Operation(a.r.Operation) }
func (a psRequest) GetObject() (runtime.Object, error)       { return a.r.Object, nil }
func (a psRequest) GetOldObject() (runtime.Object, error)    { return a.r.Old, nil }
func (a psRequest) GetUserName() string {
	if a.r.User == nil {
		return ""
	}
	return a.r.User.GetName()
}

// psReader reads namespaces and pods from the cache.
type psReader struct{ st store.Store }

func (p psReader) GetNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	ns, ok, err := read.Fresh[*corev1.Namespace](ctx, p.st, "", name)
	if err != nil {
		return nil, fmt.Errorf("reading namespace %s: %w", name, err)
	}
	if !ok {
		return nil, notFound("namespaces", name)
	}
	return ns, nil
}

func (p psReader) ListPods(_ context.Context, namespace string) ([]*corev1.Pod, error) {
	var out []*corev1.Pod
	for o := range read.All[*corev1.Pod](p.st, namespace) {
		out = append(out, o)
	}
	return out, nil
}

type noMetrics struct{}

func (noMetrics) RecordEvaluation(metrics.Decision, psapi.LevelVersion, metrics.Mode, psapi.Attributes) {
}
func (noMetrics) RecordExemption(psapi.Attributes)   {}
func (noMetrics) RecordError(bool, psapi.Attributes) {}
