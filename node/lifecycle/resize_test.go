package lifecycle

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// running is a pod of one running container that was made with 100m CPU and now asks for cpu.
func running(cpu string, policy ...corev1.ContainerResizePolicy) Input {
	pod := &corev1.Pod{}
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Containers = []corev1.Container{{Name: "c", Image: "i", ResizePolicy: policy, Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}
	was := corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}}
	now := time.Unix(1e9, 0)
	old := corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", ContainerID: RuntimePrefix + "c1",
		Resources: &was, AllocatedResources: was.Requests, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}
	return Input{Pod: pod, Old: &old, Memory: &Memory{VolumesReady: true}, Now: now, Observed: Observed{
		Sandboxes: []Sandbox{{ID: "s1", Ready: true, IPs: []string{"10.0.0.1"}}},
		Containers: []Container{{ID: "c1", Name: "c", SandboxID: "s1", State: Running, Hash: Hash(&pod.Spec.Containers[0]),
			Limits: &Limits{CPUShares: Shares(100)}}}}}
}

func condition(st corev1.PodStatus, t corev1.PodConditionType) *corev1.PodCondition {
	if i := slices.IndexFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == t }); i >= 0 {
		return &st.Conditions[i]
	}
	return nil
}

func TestResizeInPlace(t *testing.T) {
	d := Step(running("200m"))
	if !slices.ContainsFunc(d.Actions, func(a Action) bool { return a.Do == ResizePod }) {
		t.Fatalf("no resize among %v", d.Actions)
	}
	if condition(d.Status, corev1.PodResizeInProgress) == nil {
		t.Error("the condition PodResizeInProgress is missing")
	}
	if got := d.Status.ContainerStatuses[0].Resources.Requests.Cpu().String(); got != "100m" {
		t.Errorf("resources %s are shown before the container has them", got)
	}
	done := running("200m")
	done.Observed.Containers[0].Limits.CPUShares = Shares(200)
	done.Pod.Status.Conditions = d.Status.Conditions
	d = Step(done)
	if len(d.Actions) > 0 || condition(d.Status, corev1.PodResizeInProgress) != nil {
		t.Errorf("after the resize: actions %v, conditions %v", d.Actions, d.Status.Conditions)
	}
	if got := d.Status.ContainerStatuses[0].Resources.Requests.Cpu().String(); got != "200m" {
		t.Errorf("resources %s are shown after the resize", got)
	}
}

func TestResizeByRestart(t *testing.T) {
	d := Step(running("200m", corev1.ContainerResizePolicy{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.RestartContainer}))
	if !slices.ContainsFunc(d.Actions, func(a Action) bool { return a.Do == StopContainer }) {
		t.Fatalf("no stop among %v", d.Actions)
	}
}

func TestResizeWithoutRoom(t *testing.T) {
	in := running("200m")
	in.ResizePending = &Refusal{Reason: corev1.PodReasonInfeasible, Message: "no"}
	d := Step(in)
	if len(d.Actions) > 0 {
		t.Fatalf("actions %v", d.Actions)
	}
	if c := condition(d.Status, corev1.PodResizePending); c == nil || c.Reason != corev1.PodReasonInfeasible {
		t.Errorf("the condition PodResizePending is %v", c)
	}
	if got := d.Status.ContainerStatuses[0].AllocatedResources.Cpu().String(); got != "100m" {
		t.Errorf("%s are said to be allocated", got)
	}
}

// A container that restarts for its new image is shown as it was until the next one runs, and does not back off.
func TestNewImageKeepsPodReady(t *testing.T) {
	in := running("100m")
	in.Old.ContainerStatuses[0].Ready = true
	c := &in.Observed.Containers[0]
	c.State, c.Hash, c.FinishedAt = Exited, "other", in.Now
	in.Memory.Container("c").Restart = Backoff{Delay: time.Minute, Since: in.Now}
	d := Step(in)
	if st := d.Status.ContainerStatuses[0]; !st.Ready || st.State.Running == nil {
		t.Errorf("status %+v", st)
	}
	if !slices.ContainsFunc(d.Actions, func(a Action) bool { return a.Do == PullImage }) {
		t.Errorf("no pull among %v", d.Actions)
	}
}

// While the post-start hook runs, the container is not shown as running, and so neither is its pod.
func TestPhaseWaitsForPostStartHook(t *testing.T) {
	in := running("100m")
	in.Old = &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "c", ContainerID: RuntimePrefix + "c1"}}}
	a := Action{Do: StartContainer, Container: "c"}
	in.Busy = map[string]Action{a.Key(): a}
	if got := Step(in).Status.Phase; got != corev1.PodPending {
		t.Errorf("phase %s", got)
	}
}
