package rest

import (
	"reflect"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

// parts are the named views of a kind that an update may go through: each copies from a client's object to a private
// copy of the stored one what the view covers.
var parts = map[string]func(dst, src api.Object){
	"pods/ephemeralcontainers": func(dst, src api.Object) {
		dst.(*corev1.Pod).Spec.EphemeralContainers = src.(*corev1.Pod).Spec.EphemeralContainers
	},
	"pods/resize": func(dst, src api.Object) {
		d, s := &dst.(*corev1.Pod).Spec, &src.(*corev1.Pod).Spec
		d.Resources = s.Resources
		resize(d.Containers, s.Containers)
		resize(d.InitContainers, s.InitContainers)
	},
	"namespaces/finalize": func(dst, src api.Object) {
		copyMeta(dst, src)
		dst.(*corev1.Namespace).Spec.Finalizers = src.(*corev1.Namespace).Spec.Finalizers
	},
	"certificatesigningrequests.certificates.k8s.io/approval": func(dst, src api.Object) {
		copyMeta(dst, src)
		dst.(*certificatesv1.CertificateSigningRequest).Status.Conditions = src.(*certificatesv1.CertificateSigningRequest).Status.Conditions
	},
}

func resize(dst, src []corev1.Container) {
	for i := range dst {
		for j := range src {
			if dst[i].Name == src[j].Name {
				dst[i].Resources, dst[i].ResizePolicy = src[j].Resources, src[j].ResizePolicy
			}
		}
	}
}

// copyMeta gives dst the metadata that a client may change through a view of more than the spec.
func copyMeta(dst, src api.Object) {
	dst.SetLabels(src.GetLabels())
	dst.SetAnnotations(src.GetAnnotations())
	dst.SetFinalizers(src.GetFinalizers())
	dst.SetOwnerReferences(src.GetOwnerReferences())
}

// partOf is the old object with what the subresource covers taken from in, which is the client's. For scale, in is
// already that.
func partOf(k *api.Kind, sub string, old, in api.Object) api.Object {
	s, ok := k.Subresource(sub)
	if !ok || s.Type == api.ScaleSub {
		return in
	}
	out := k.New()
	if _, custom := out.(runtime.Unstructured); custom || s.Type != api.StatusSub {
		out = old.DeepCopyObject().(api.Object)
	} else {
		// Everything else is as it was, whatever comes: see writeOnce. So it need not be copied.
		reflect.ValueOf(out).Elem().Set(reflect.ValueOf(old).Elem())
	}
	out.SetResourceVersion(in.GetResourceVersion())
	out.SetManagedFields(in.GetManagedFields())
	if s.Type == api.StatusSub {
		if !k.CRD {
			copyMeta(out, in)
		}
		copyStatus(out, in)
	} else if f := parts[resourceName(k)+"/"+sub]; f != nil {
		f(out, in)
	}
	return out
}

// validatePart judges a write to a named view.
func validatePart(k *api.Kind, sub string, obj, old api.Object) field.ErrorList {
	if k.Validate == nil {
		return nil
	}
	switch resourceName(k) + "/" + sub {
	case "certificatesigningrequests.certificates.k8s.io/approval":
		return k.ValidateStatus(obj, old)
	case "pods/ephemeralcontainers":
		return append(k.Validate(obj), ephemeralUpdate(obj.(*corev1.Pod), old.(*corev1.Pod))...)
	case "pods/resize":
		return k.Validate(obj)
	}
	return nil
}

// ephemeralUpdate says that ephemeral containers are only ever added.
func ephemeralUpdate(obj, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec", "ephemeralContainers")
	now := map[string]bool{}
	for _, c := range obj.Spec.EphemeralContainers {
		now[c.Name] = true
	}
	var errs field.ErrorList
	for _, c := range old.Spec.EphemeralContainers {
		if !now[c.Name] {
			errs = append(errs, field.Forbidden(path, "existing ephemeral containers \""+c.Name+"\" may not be removed\n"))
		}
	}
	return errs
}
