package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	seccompPod       = "seccomp.security.alpha.kubernetes.io/pod"
	seccompContainer = "container.seccomp.security.alpha.kubernetes.io/"
	noSeccomp        = `non-functional in v1.27+; use the "seccompProfile" field instead`
	appArmor         = corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix
)

// annotationWarnings are for annotations that were fields before there were such fields. The path is that of the pod
// template, nil for a pod.
func annotationWarnings(path *field.Path, m *metav1.ObjectMeta, s *corev1.PodSpec) []string {
	if len(m.Annotations) == 0 {
		return nil
	}
	var out []string
	warn := func(key, text string) {
		if _, ok := m.Annotations[key]; ok {
			out = append(out, path.Child("metadata", "annotations").Key(key).String()+": "+text)
		}
	}
	warn("scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`)
	warn("security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`)
	warn("security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`)
	pod := s.SecurityContext
	if pod == nil || pod.SeccompProfile == nil {
		warn(seccompPod, noSeccomp)
	}
	each(path, s, func(_ *field.Path, c *corev1.Container) {
		if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
			warn(seccompContainer+c.Name, noSeccomp)
		}
		if path != nil && (c.SecurityContext == nil || c.SecurityContext.AppArmorProfile == nil) && !says(pod, m.Annotations[appArmor+c.Name]) {
			warn(appArmor+c.Name, `deprecated since v1.30; use the "appArmorProfile" field instead`)
		}
	})
	return out
}

// says reports whether the pod's AppArmor profile is the one that an annotation names.
func says(pod *corev1.PodSecurityContext, annotation string) bool {
	if pod == nil || pod.AppArmorProfile == nil {
		return false
	}
	switch p := pod.AppArmorProfile; p.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		return annotation == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
	case corev1.AppArmorProfileTypeUnconfined:
		return annotation == corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	case corev1.AppArmorProfileTypeLocalhost:
		return p.LocalhostProfile != nil && annotation == corev1.DeprecatedAppArmorBetaProfileNamePrefix+*p.LocalhostProfile
	}
	return false
}
