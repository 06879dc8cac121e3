package core

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
)

func parse(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	defaultPod(p)
	return p
}

const web = `
metadata: {name: web}
spec:
  containers:
  - name: web
    image: nginx
    ports: [{containerPort: 80}]
    livenessProbe: {httpGet: {port: 80}}
    resources: {limits: {cpu: 100.5m, memory: 64Mi}}
    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
  volumes:
  - {name: a}
  - {name: t, projected: {sources: [{serviceAccountToken: {path: token}}]}}
`

func TestPodDefaults(t *testing.T) {
	p := parse(t, web)
	s, c := p.Spec, p.Spec.Containers[0]
	for name, ok := range map[string]bool{
		"restartPolicy":          s.RestartPolicy == "Always",
		"dnsPolicy":              s.DNSPolicy == "ClusterFirst",
		"grace period":           *s.TerminationGracePeriodSeconds == 30,
		"scheduler":              s.SchedulerName == "default-scheduler",
		"securityContext":        s.SecurityContext != nil,
		"service links":          *s.EnableServiceLinks,
		"pull policy":            c.ImagePullPolicy == corev1.PullAlways,
		"protocol":               c.Ports[0].Protocol == "TCP",
		"probe":                  c.LivenessProbe.PeriodSeconds == 10 && c.LivenessProbe.HTTPGet.Path == "/" && c.LivenessProbe.HTTPGet.Scheme == "HTTP",
		"requests from limits":   c.Resources.Requests.Memory().String() == "64Mi",
		"rounded to a thousand":  c.Resources.Limits.Cpu().String() == "101m",
		"field's version":        c.Env[0].ValueFrom.FieldRef.APIVersion == "v1",
		"emptyDir":               s.Volumes[0].EmptyDir != nil,
		"token's life":           *s.Volumes[1].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds == 3600,
		"mode":                   *s.Volumes[1].Projected.DefaultMode == 420,
		"termination message":    c.TerminationMessagePath == "/dev/termination-log" && c.TerminationMessagePolicy == "File",
		"no host port by itself": c.Ports[0].HostPort == 0,
	} {
		if !ok {
			t.Errorf("%s: wrong default", name)
		}
	}
	if errs := validatePod(p); len(errs) > 0 {
		t.Error(errs)
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx": "Always", "nginx:latest": "Always", "nginx:1": "IfNotPresent", "host:5000/nginx": "Always",
		"host:5000/nginx:2": "IfNotPresent", "nginx@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": "IfNotPresent", "nginx:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": "IfNotPresent",
		"nginx:latest@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": "Always", "host:5000/nginx@sha256:01": "IfNotPresent", "": "IfNotPresent",
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%q: %s, want %s", image, got, want)
		}
	}
}

// TestPlainImages: the short way says of a reference what the general way says, if it says anything.
func TestPlainImages(t *testing.T) {
	const letters = "a0b./-:_Z@"
	r := rand.New(rand.NewPCG(1, 2))
	judged := 0
	for range 200_000 {
		b := make([]byte, 1+r.IntN(12))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		if r.IntN(4) == 0 {
			b = append(b, ":latest"...)
		}
		if latest, ok := plainImage(string(b)); ok {
			judged++
			if latest != anyImage(string(b)) {
				t.Fatalf("%q: latest is %v", b, latest)
			}
		}
	}
	if judged < 1000 {
		t.Errorf("only %d were judged", judged)
	}
	if _, ok := plainImage(strings.Repeat("0a", 32)); ok {
		t.Error("an identifier is no name")
	}
}

func TestQOSClass(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	pod := func(rs ...corev1.ResourceRequirements) *corev1.Pod {
		p := &corev1.Pod{}
		for _, r := range rs {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: r})
		}
		return p
	}
	full := corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1", "1Gi")}
	for want, p := range map[corev1.PodQOSClass]*corev1.Pod{
		corev1.PodQOSBestEffort: pod(corev1.ResourceRequirements{}),
		corev1.PodQOSGuaranteed: pod(full, full),
		corev1.PodQOSBurstable:  pod(full, corev1.ResourceRequirements{}),
	} {
		if got := QOSClass(p); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// cellsOf is the row of the pod as kubectl prints it: name, ready, status, restarts.
func cellsOf(p *corev1.Pod, now time.Time) string {
	var out []string
	for i := range podColumns[:4] {
		out = append(out, podColumns[i].Value(p, now).(string))
	}
	return strings.Join(out, " | ")
}

func TestPodColumns(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for want, text := range map[string]string{
		"a | 0/1 | Pending | 0":           `{phase: Pending}`,
		"a | 1/1 | Running | 0":           `{phase: Running, containerStatuses: [{name: c, ready: true, state: {running: {}}}]}`,
		"a | 0/1 | ContainerCreating | 0": `{phase: Pending, containerStatuses: [{name: c, state: {waiting: {reason: ContainerCreating}}}]}`,
		"a | 0/1 | CrashLoopBackOff | 3 (5m ago)": `{phase: Running, containerStatuses: [{name: c, restartCount: 3,
			state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 1, finishedAt: "2030-01-01T11:55:00Z"}}}]}`,
		"a | 0/1 | Completed | 0":       `{phase: Succeeded, containerStatuses: [{name: c, state: {terminated: {reason: Completed}}}]}`,
		"a | 0/1 | Init:0/1 | 0":        `{phase: Pending, initContainerStatuses: [{name: i, state: {running: {}}}]}`,
		"a | 0/1 | Init:Error | 1":      `{phase: Pending, initContainerStatuses: [{name: i, restartCount: 1, state: {terminated: {exitCode: 1, reason: Error}}}]}`,
		"a | 0/1 | Init:ExitCode:7 | 0": `{phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 7}}}]}`,
		"a | 0/1 | Evicted | 0":         `{phase: Failed, reason: Evicted}`,
		"a | 0/1 | PodInitializing | 0": `{phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}], containerStatuses: [{name: c, state: {waiting: {reason: PodInitializing}}}]}`,
	} {
		p := &corev1.Pod{}
		if err := yaml.UnmarshalStrict([]byte(`{metadata: {name: a}, spec: {containers: [{name: c}], initContainers: [{name: i}]}, status: `+text+`}`), p); err != nil {
			t.Fatal(err)
		}
		if got := cellsOf(p, now); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		deleted := p.DeepCopy()
		deleted.DeletionTimestamp = &metav1.Time{Time: now}
		if got := summarize(deleted).status; got != "Terminating" && p.Status.Phase != "Failed" && p.Status.Phase != "Succeeded" {
			t.Errorf("deleted, but %s", got)
		}
	}
}

func TestPodValidation(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*corev1.Pod)
	}{
		{"spec.containers: Required value", func(p *corev1.Pod) { p.Spec.Containers = nil }},
		{"spec.containers[0].image: Required value", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "" }},
		{`spec.containers[0].name: Invalid value: "A"`, func(p *corev1.Pod) { p.Spec.Containers[0].Name = "A" }},
		{`spec.containers[1].name: Duplicate value: "web"`, func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0]) }},
		{`spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"`, func(p *corev1.Pod) { p.Spec.RestartPolicy = "Maybe" }},
		{`spec.containers[0].volumeMounts[0].name: Not found: "none"`, func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "none", MountPath: "/x"}}
		}},
		{`spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 101m`, func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("2")
		}},
		{"spec.containers[0].livenessProbe: Required value: must specify a handler type", func(p *corev1.Pod) { p.Spec.Containers[0].LivenessProbe.HTTPGet = nil }},
		{"spec.volumes[0]: Required value: must specify a volume type", func(p *corev1.Pod) { p.Spec.Volumes[0].EmptyDir = nil }},
		{`spec.tolerations[0].operator: Invalid value: "": operator must be Exists when`, func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{}} }},
		{"spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive", func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 70000 }},
	} {
		p := parse(t, web)
		c.change(p)
		expect(t, validatePod(p), c.want)
	}
}

func expect(t *testing.T, errs field.ErrorList, want string) {
	t.Helper()
	for _, e := range errs {
		if strings.HasPrefix(e.Error(), want) {
			return
		}
	}
	t.Errorf("got %v\nwant %s", errs.ToAggregate(), want)
}

func TestPodUpdate(t *testing.T) {
	old := parse(t, web)
	p := old.DeepCopy()
	p.Spec.Containers[0].Image = "nginx:2"
	p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: "Exists"})
	p.Spec.ActiveDeadlineSeconds = api.Ptr(int64(5))
	if errs := validatePodUpdate(p, old); len(errs) > 0 {
		t.Error(errs)
	}
	p = old.DeepCopy()
	p.Spec.Hostname = "other"
	expect(t, validatePodUpdate(p, old), "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
	p = old.DeepCopy()
	p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
	expect(t, validatePodUpdate(p, old), "spec.containers: Forbidden: pod updates may not add or remove containers")
}

func TestGracefulDelete(t *testing.T) {
	p := parse(t, web)
	for _, c := range []struct {
		change func(*corev1.Pod, *metav1.DeleteOptions)
		want   int64
	}{
		{func(*corev1.Pod, *metav1.DeleteOptions) {}, 0}, // it has no node
		{func(p *corev1.Pod, _ *metav1.DeleteOptions) { p.Spec.NodeName = "n" }, 30},
		{func(p *corev1.Pod, o *metav1.DeleteOptions) {
			p.Spec.NodeName = "n"
			o.GracePeriodSeconds = api.Ptr(int64(0))
		}, 0},
		{func(p *corev1.Pod, _ *metav1.DeleteOptions) { p.Spec.NodeName, p.Status.Phase = "n", "Failed" }, 0},
	} {
		p, o := p.DeepCopy(), metav1.DeleteOptions{}
		c.change(p, &o)
		if wait := gracefulDeletePod(p, &o); *o.GracePeriodSeconds != c.want || wait != (c.want > 0) {
			t.Errorf("%d s, wait=%v; want %d s", *o.GracePeriodSeconds, wait, c.want)
		}
	}
}

func TestService(t *testing.T) {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	defaultService(s)
	if s.Spec.Type != "ClusterIP" || s.Spec.Ports[0].TargetPort != intstr.FromInt32(80) || s.Spec.Ports[0].Protocol != "TCP" ||
		*s.Spec.InternalTrafficPolicy != "Cluster" || s.Spec.ExternalTrafficPolicy != "" {
		t.Errorf("defaults: %+v", s.Spec)
	}
	if errs := validateService(s); len(errs) > 0 {
		t.Error(errs)
	}
	if got := portsText(s); got != "80/TCP" {
		t.Error(got)
	}
	status := &corev1.Service{Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}}}}}
	defaultService(status)
	if mode := status.Status.LoadBalancer.Ingress[0].IPMode; mode == nil || *mode != corev1.LoadBalancerIPModeVIP {
		t.Errorf("the mode of an address: %v", mode)
	}
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 81})
	defaultService(s)
	expect(t, validateService(s), "spec.ports[0].name: Required value")
	s.Spec.Ports = nil
	expect(t, validateService(s), "spec.ports: Required value")
}
