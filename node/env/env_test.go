package env

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpand(t *testing.T) {
	look := Lookup([]Var{{"A", "1"}, {"B", "2"}, {"E", ""}, {"D", "$(A)"}})
	for in, want := range map[string]string{
		"": "", "x": "x", "$(A)": "1", "$(A)$(B)": "12", "x$(A)y": "x1y", "$$(A)": "$(A)", "$$$(A)": "$1", "$(C)": "$(C)", "$(E)": "",
		"$(A": "$(A", "$A": "$A", "$": "$", "$$": "$", "a$": "a$", "$(D)": "$(A)", "$()": "$()", "$(A)$": "1$", "$)": "$)", "$($(A))": "$($(A))",
	} {
		if got := Expand(in, look); got != want {
			t.Errorf("Expand(%q) is %q, not %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B)$")
	f.Fuzz(func(t *testing.T, s string) {
		none := func(string) (string, bool) { return "", false }
		if !strings.Contains(s, "$$") && Expand(s, none) != s {
			t.Errorf("%q became %q though nothing is known", s, Expand(s, none))
		}
		all := func(string) (string, bool) { return "", true }
		if got := Expand(s, all); len(got) > len(s) {
			t.Errorf("%q grew to %q", s, got)
		}
	})
}

var errNone = errors.New("none")

func sources() Sources {
	return Sources{
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, errNone
			}
			return &corev1.ConfigMap{Data: map[string]string{"k": "v", "not=good": "x"}}, nil
		},
		Secret: func(name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, errNone
			}
			return &corev1.Secret{Data: map[string][]byte{"p": []byte("w")}}, nil
		},
		NotFound: func(err error) bool { return err == errNone }, PodIP: "10.0.0.1", PodIPs: []string{"10.0.0.1"}, HostIP: "192.0.2.1",
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("3500m")},
		Services:    []Var{{"WEB_SERVICE_HOST", "10.96.0.2"}},
	}
}

func TestOf(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"a": "b"}}}
	ref := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	optional := true
	c := &corev1.Container{
		EnvFrom: []corev1.EnvFromSource{{Prefix: "X_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "none"}, Optional: &optional}}},
		Env: []corev1.EnvVar{{Name: "A", Value: "$(X_k) $(WEB_SERVICE_HOST) $(LATER)"}, {Name: "LATER", Value: "l"}, {Name: "IP", ValueFrom: ref("status.podIP")},
			{Name: "LABEL", ValueFrom: ref("metadata.labels['a']")}, {Name: "X_k", Value: "over"},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}}},
	}
	vars, skipped, err := Of(pod, c, sources())
	if err != nil {
		t.Fatal(err)
	}
	want := []Var{{"WEB_SERVICE_HOST", "10.96.0.2"}, {"X_k", "over"}, {"A", "v 10.96.0.2 $(LATER)"}, {"LATER", "l"}, {"IP", "10.0.0.1"}, {"LABEL", "b"}, {"CPU", "4"}}
	if !reflect.DeepEqual(vars, want) || !reflect.DeepEqual(skipped, []string{"not=good"}) {
		t.Errorf("%v %v", vars, skipped)
	}
}

func TestMissing(t *testing.T) {
	key := corev1.LocalObjectReference{Name: "none"}
	for want, e := range map[string]corev1.EnvVarSource{
		`configmap "none" not found`:             {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: key}},
		`secret "none" not found`:                {SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: key}},
		"couldn't find key z in ConfigMap ns/cm": {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{Key: "z", LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}
		_, _, err := Of(pod, &corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: &e}}}, sources())
		if err == nil || err.Error() != want {
			t.Errorf("the error is %v, not %s", err, want)
		}
	}
}

func TestServices(t *testing.T) {
	svc := func(ns, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	all := []*corev1.Service{svc("default", "kubernetes", "10.96.0.1", corev1.ServicePort{Name: "https", Port: 443}), svc("ns", "web-app", "10.96.0.2", corev1.ServicePort{Port: 80}),
		svc("ns", "headless", "None", corev1.ServicePort{Port: 80}), svc("other", "x", "10.96.0.3", corev1.ServicePort{Port: 80})}
	text := func(links bool) string {
		var out []string
		for _, v := range Services("ns", all, links) {
			out = append(out, v.Name+"="+v.Value)
		}
		return strings.Join(out, "\n")
	}
	kube := `KUBERNETES_SERVICE_HOST=10.96.0.1
KUBERNETES_SERVICE_PORT=443
KUBERNETES_SERVICE_PORT_HTTPS=443
KUBERNETES_PORT=tcp://10.96.0.1:443
KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
KUBERNETES_PORT_443_TCP_PROTO=tcp
KUBERNETES_PORT_443_TCP_PORT=443
KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1`
	if got := text(false); got != kube {
		t.Errorf("without links:\n%s", got)
	}
	web := `
WEB_APP_SERVICE_HOST=10.96.0.2
WEB_APP_SERVICE_PORT=80
WEB_APP_PORT=tcp://10.96.0.2:80
WEB_APP_PORT_80_TCP=tcp://10.96.0.2:80
WEB_APP_PORT_80_TCP_PROTO=tcp
WEB_APP_PORT_80_TCP_PORT=80
WEB_APP_PORT_80_TCP_ADDR=10.96.0.2`
	if got := text(true); got != kube+web {
		t.Errorf("with links:\n%s", got)
	}
}
