package lifecycle

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func (w *world) logged(want string) {
	w.t.Helper()
	if got := strings.Join(w.log, "\n"); got != strings.TrimSpace(want) {
		w.t.Errorf("the actions were\n%s\nnot\n%s", got, strings.TrimSpace(want))
	}
	w.log = nil
}

func (w *world) id(name string) string {
	for _, c := range w.obs.Containers {
		if c.Name == name {
			return c.ID
		}
	}
	return ""
}

func (w *world) status(name string) corev1.ContainerStatus {
	for _, s := range append(append([]corev1.ContainerStatus{}, w.old.ContainerStatuses...), w.old.InitContainerStatuses...) {
		if s.Name == name {
			return s
		}
	}
	w.t.Fatalf("no status of %s", name)
	return corev1.ContainerStatus{}
}

func TestOrder(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyNever, "i1 side1 side2", "a b"))
	w.settle()
	w.logged(`
mount volumes
create sandbox #0
pull image i1
start container i1 #0`)
	if w.old.Phase != corev1.PodPending || stateText(w.status("a").State) != "PodInitializing" {
		t.Errorf("%s", w)
	}
	w.exit(w.id("i1"), 0)
	w.settle()
	w.logged(`
pull image side1
start container side1 #0
pull image side2
start container side2 #0
pull image a
pull image b
start container a #0
start container b #0`)
	if w.old.Phase != corev1.PodRunning {
		t.Errorf("%s", w)
	}
	w.exit(w.id("a"), 0)
	w.settle()
	w.logged("")
	w.exit(w.id("b"), 0)
	w.settle()
	w.logged(`
stop container side2 c4 grace 30s
stop container side1 c3 grace 30s
stop sandbox s1
clean up`)
	if w.old.Phase != corev1.PodSucceeded {
		t.Errorf("%s", w)
	}
	w.delete()
	w.settle()
	w.logged(`
delete pod
remove sandbox s1
purge`)
	if !Step(w.input()).Done {
		t.Error("not done")
	}
}

func TestBackoff(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyAlways, "", "a"))
	w.settle()
	var waits []time.Duration
	for range 8 {
		w.exit(w.id("a"), 1)
		before := w.now
		w.settle()
		if !w.last.Wake.IsZero() {
			if got := stateText(w.status("a").State); got != "CrashLoopBackOff" {
				t.Errorf("the state is %s", got)
			}
			w.now = w.last.Wake
			w.settle()
		}
		waits = append(waits, w.now.Sub(before))
	}
	want := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300}
	for i := range want {
		if waits[i] != want[i]*time.Second {
			t.Fatalf("the waits are %v", waits)
		}
	}
	// Ten minutes of good work earn a fresh start.
	w.now = w.now.Add(11 * time.Minute)
	w.exit(w.id("a"), 1)
	before := w.now
	w.settle()
	if w.now != before || w.status("a").State.Running == nil {
		t.Errorf("%s", w)
	}
}

func TestRestartPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy corev1.RestartPolicy
		code   int32
		phase  corev1.PodPhase
		again  bool
	}{
		{corev1.RestartPolicyAlways, 0, corev1.PodRunning, true},
		{corev1.RestartPolicyAlways, 1, corev1.PodRunning, true},
		{corev1.RestartPolicyOnFailure, 0, corev1.PodSucceeded, false},
		{corev1.RestartPolicyOnFailure, 1, corev1.PodRunning, true},
		{corev1.RestartPolicyNever, 0, corev1.PodSucceeded, false},
		{corev1.RestartPolicyNever, 1, corev1.PodFailed, false},
	} {
		w := newWorld(t, testPod(tt.policy, "", "a"))
		w.settle()
		w.exit(w.id("a"), tt.code)
		w.settle()
		if w.old.Phase != tt.phase || (w.status("a").RestartCount == 1) != tt.again {
			t.Errorf("%s with code %d: %s", tt.policy, tt.code, w)
		}
	}
}

func TestRestartRules(t *testing.T) {
	p := testPod(corev1.RestartPolicyNever, "", "a")
	p.Spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyNever)
	p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
	w := newWorld(t, p)
	w.settle()
	w.exit(w.id("a"), 42)
	w.settle()
	if w.old.Phase != corev1.PodRunning || w.status("a").RestartCount != 1 {
		t.Errorf("%s", w)
	}
	w.exit(w.id("a"), 1)
	w.settle()
	if w.old.Phase != corev1.PodFailed {
		t.Errorf("%s", w)
	}
}

func TestFailedInit(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyNever, "i1", "a"))
	w.settle()
	w.exit(w.id("i1"), 1)
	w.settle()
	if w.old.Phase != corev1.PodFailed || stateText(w.status("a").State) != "PodInitializing" {
		t.Errorf("%s", w)
	}
}

func TestPullTrouble(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyAlways, "", "a"))
	for range 3 {
		w.step()
		for _, k := range w.keys() {
			w.finish(k, w.busy[k].Do != PullImage)
		}
	}
	w.step()
	if got := stateText(w.status("a").State); got != "ErrImagePull" {
		t.Errorf("at first the state is %s", got)
	}
	w.now = w.last.Wake
	w.step()
	if got := stateText(w.status("a").State); got != "ImagePullBackOff" || w.old.Phase != corev1.PodPending {
		t.Errorf("then the state is %s", got)
	}
	w.now = w.last.Wake
	w.settle()
	if w.old.Phase != corev1.PodRunning {
		t.Errorf("%s", w)
	}
}

func TestProbesDecide(t *testing.T) {
	p := testPod(corev1.RestartPolicyAlways, "", "a")
	p.Spec.Containers[0].StartupProbe = &corev1.Probe{}
	p.Spec.Containers[0].LivenessProbe = &corev1.Probe{TerminationGracePeriodSeconds: new(int64(3))}
	p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	w := newWorld(t, p)
	w.settle()
	kinds := func() string {
		var out []string
		for _, p := range w.last.Probes {
			out = append(out, string(p.Kind))
		}
		return strings.Join(out, " ")
	}
	if s := w.status("a"); kinds() != "Startup" || s.Ready || *s.Started {
		t.Errorf("probes %s, %+v", kinds(), s)
	}
	m := &w.mem.Container("a").Probes
	*m = Probes{ID: w.id("a"), Startup: Success}
	w.settle()
	if s := w.status("a"); kinds() != "Liveness Readiness" || s.Ready || !*s.Started {
		t.Errorf("probes %s, %+v", kinds(), s)
	}
	m.Readiness = Success
	w.settle()
	if !w.status("a").Ready {
		t.Errorf("%s", w)
	}
	w.log = nil
	m.Liveness = Failure
	w.settle()
	w.logged(`
stop container a c2 grace 3s
pull image a
start container a #1`)
	if s := w.status("a"); s.Ready || s.RestartCount != 1 || s.LastTerminationState.Terminated == nil {
		t.Errorf("%+v", s)
	}
}

func TestShorterGraceReplacesTheStop(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyAlways, "", "a"))
	w.settle()
	w.delete()
	w.step()
	w.now = w.now.Add(5 * time.Second)
	w.step()
	w.pod = w.pod.DeepCopy()
	w.pod.DeletionGracePeriodSeconds = new(int64(1))
	w.log = nil
	w.step()
	w.step()
	w.logged(`
cancel stop/c2
stop container a c2 grace 1s`)
}

func TestDeadline(t *testing.T) {
	p := testPod(corev1.RestartPolicyAlways, "", "a")
	p.Spec.ActiveDeadlineSeconds = new(int64(60))
	w := newWorld(t, p)
	w.settle()
	if w.last.Wake.IsZero() {
		t.Fatal("nobody looks at the deadline")
	}
	w.now = w.last.Wake
	w.settle()
	if w.old.Phase != corev1.PodFailed || w.old.Reason != "DeadlineExceeded" {
		t.Errorf("%s %s", w.old.Reason, w)
	}
}

func TestSandboxLost(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyAlways, "i1", "a"))
	w.settle()
	w.exit(w.id("i1"), 0)
	w.settle()
	w.stopSandbox("s1")
	w.log = nil
	w.settle()
	w.exit(w.id("i1"), 0)
	w.settle()
	if s := w.status("a"); s.RestartCount != 1 || s.State.Running == nil || w.old.Phase != corev1.PodRunning {
		t.Errorf("%s", w)
	}
}

func TestRefusedAndGates(t *testing.T) {
	w := newWorld(t, testPod(corev1.RestartPolicyAlways, "", "a"))
	in := w.input()
	in.Refused = &Refusal{"OutOfcpu", "Pod was rejected: ..."}
	d := Step(in)
	if d.Status.Phase != corev1.PodFailed || d.Status.Reason != "OutOfcpu" || len(d.Status.ContainerStatuses) != 0 {
		t.Errorf("%+v", d.Status)
	}
	p := testPod(corev1.RestartPolicyAlways, "", "a")
	p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "x/y"}}
	w = newWorld(t, p)
	w.settle()
	for _, c := range w.old.Conditions {
		if c.Type == corev1.PodReady && (c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady") {
			t.Errorf("%+v", c)
		}
		if c.Type == corev1.ContainersReady && c.Status != corev1.ConditionTrue {
			t.Errorf("%+v", c)
		}
	}
}
