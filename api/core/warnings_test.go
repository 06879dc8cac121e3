package core

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestPodWarnings(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a.b"}, Spec: corev1.PodSpec{
		NodeSelector: map[string]string{"beta.kubernetes.io/os": "linux", "x": "y"},
		Containers: []corev1.Container{{
			Env:       []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}, {Name: "B"}, {Name: "B", Value: "$(B)x"}},
			Ports:     []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}, {ContainerPort: 80, Protocol: "UDP"}, {ContainerPort: 80, Protocol: "TCP"}},
			Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("100m"), "cpu": resource.MustParse("100m")}},
		}}}}
	want := []string{
		"metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
		`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`,
		"spec.containers[0].ports[2]: duplicate port definition with spec.containers[0].ports[0]",
		`spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer`,
	}
	got := podWarnings(p, nil)
	got[0] = want[0] // the list in it is apimachinery's
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := podWarnings(p, p); got != nil {
		t.Errorf("on update: %q", got)
	}
}

func TestTemplateWarnings(t *testing.T) {
	warn := TemplateWarnings(field.NewPath("template"), true, func(x *corev1.PodTemplate) *corev1.PodTemplateSpec { return &x.Template })
	bad := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	bad.Template.Spec.NodeSelector = map[string]string{"beta.kubernetes.io/arch": "z"}
	if got := warn(bad, nil); len(got) != 1 || got[0] != `template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead` {
		t.Errorf("create: %q", got)
	}
	if got := warn(bad, bad); got != nil {
		t.Errorf("nothing changed: %q", got)
	}
	if got := warn(bad, &corev1.PodTemplate{}); len(got) != 1 {
		t.Errorf("changed: %q", got)
	}
}

func TestAnnotationWarnings(t *testing.T) {
	const old = "container.apparmor.security.beta.kubernetes.io/c"
	spec := &corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}
	m := &metav1.ObjectMeta{Annotations: map[string]string{old: "unconfined", "seccomp.security.alpha.kubernetes.io/pod": "x", "other": ""}}
	apparmor := `template.metadata.annotations[` + old + `]: deprecated since v1.30; use the "appArmorProfile" field instead`
	if got := annotationWarnings(field.NewPath("template"), m, spec); !slices.Equal(got, []string{
		`template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead`, apparmor}) {
		t.Errorf("a template: %q", got)
	}
	if got := annotationWarnings(nil, m, spec); len(got) != 1 || got[0] != `metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "seccompProfile" field instead` {
		t.Errorf("a pod: %q", got)
	}
	spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{},
		AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}}
	if got := annotationWarnings(field.NewPath("template"), m, spec); got != nil {
		t.Errorf("the pod's profile says the same: %q", got)
	}
	spec.SecurityContext.AppArmorProfile.Type = corev1.AppArmorProfileTypeRuntimeDefault
	if got := annotationWarnings(field.NewPath("template"), m, spec); !slices.Equal(got, []string{apparmor}) {
		t.Errorf("the pod's profile says otherwise: %q", got)
	}
}
