package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// alwaysDeny refuses every write. It is off by default, as all plugins of this file.
type alwaysDeny struct{}

func (alwaysDeny) Name() string                                        { return "AlwaysDeny" }
func (alwaysDeny) Handles(admission.Operation, *api.Kind, string) bool { return true }
func (alwaysDeny) Validate(_ context.Context, r *admission.Request) error {
	return forbidden(r, "admission control is denying all modifications")
}

// alwaysPullImages has every image pulled, so that nobody runs one that he could not pull.
type alwaysPullImages struct{}

func (alwaysPullImages) Name() string { return "AlwaysPullImages" }
func (alwaysPullImages) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && isPod(k) && sub == ""
}

// policies calls f with the pull policy of every image that a pod uses.
func (alwaysPullImages) policies(p *corev1.Pod, f func(*field.Path, *corev1.PullPolicy)) {
	spec := field.NewPath("spec")
	for i := range p.Spec.InitContainers {
		f(spec.Child("initContainers").Index(i).Child("imagePullPolicy"), &p.Spec.InitContainers[i].ImagePullPolicy)
	}
	for i := range p.Spec.Containers {
		f(spec.Child("containers").Index(i).Child("imagePullPolicy"), &p.Spec.Containers[i].ImagePullPolicy)
	}
	for i := range p.Spec.EphemeralContainers {
		f(spec.Child("ephemeralContainers").Index(i).Child("imagePullPolicy"), &p.Spec.EphemeralContainers[i].ImagePullPolicy)
	}
	for i := range p.Spec.Volumes {
		if img := p.Spec.Volumes[i].Image; img != nil {
			f(spec.Child("volumes").Index(i).Child("image", "pullPolicy"), &img.PullPolicy)
		}
	}
}

// exempt updates bring no image that was not there before.
func (alwaysPullImages) exempt(r *admission.Request) bool {
	old, ok := r.Old.(*corev1.Pod)
	if !ok || pod(r) == nil {
		return pod(r) == nil
	}
	known := images(old)
	for image := range images(pod(r)) {
		if !known[image] {
			return false
		}
	}
	return true
}

func images(p *corev1.Pod) map[string]bool {
	out := map[string]bool{}
	for _, c := range append(append([]corev1.Container(nil), p.Spec.InitContainers...), p.Spec.Containers...) {
		out[c.Image] = true
	}
	for _, c := range p.Spec.EphemeralContainers {
		out[c.Image] = true
	}
	for _, v := range p.Spec.Volumes {
		if v.Image != nil {
			out[v.Image.Reference] = true
		}
	}
	return out
}

func (a alwaysPullImages) Admit(_ context.Context, r *admission.Request) error {
	if !a.exempt(r) {
		a.policies(pod(r), func(_ *field.Path, p *corev1.PullPolicy) { *p = corev1.PullAlways })
	}
	return nil
}

func (a alwaysPullImages) Validate(_ context.Context, r *admission.Request) error {
	if a.exempt(r) {
		return nil
	}
	var errs []error
	a.policies(pod(r), func(path *field.Path, p *corev1.PullPolicy) {
		if *p != corev1.PullAlways {
			errs = append(errs, errors.NewForbidden(r.Kind.GroupResource(), nameOf(r),
				field.NotSupported(path, *p, []string{string(corev1.PullAlways)})))
		}
	})
	return utilerrors.NewAggregate(errs)
}
