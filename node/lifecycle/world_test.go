package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// world is a fake runtime and the API's one pod, driven by hand or at random. It renders as text.
type world struct {
	t    *testing.T
	pod  *corev1.Pod
	gone bool
	obs  Observed
	mem  *Memory
	busy map[string]Action
	old  corev1.PodStatus
	now  time.Time
	ids  int
	last Decision
	log  []string
}

func newWorld(t *testing.T, pod *corev1.Pod) *world {
	return &world{t: t, pod: pod, mem: &Memory{}, busy: map[string]Action{}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func testPod(policy corev1.RestartPolicy, inits, mains string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: policy, TerminationGracePeriodSeconds: new(int64(30))}}
	for _, n := range strings.Fields(inits) {
		c := corev1.Container{Name: n, Image: "i"}
		if strings.HasPrefix(n, "side") {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	for _, n := range strings.Fields(mains) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: "i"})
	}
	return p
}

func (w *world) input() Input {
	return Input{Pod: w.pod, Gone: w.gone, Observed: w.obs, Memory: w.mem, Busy: w.busy, Old: &w.old, HostIPs: []string{"192.0.2.1"}, Now: w.now}
}

// step asks for a decision, starts its actions and checks what must always hold.
func (w *world) step() Decision {
	w.t.Helper()
	d := Step(w.input())
	if again := Step(w.input()); !reflect.DeepEqual(d, again) {
		w.t.Fatalf("two decisions from one input differ:\n%+v\n%+v", d, again)
	}
	w.check(d)
	for _, key := range d.Cancel {
		if _, ok := w.busy[key]; ok {
			w.log = append(w.log, "cancel "+key)
			delete(w.busy, key) // it ends without effect
		}
	}
	if d.Ending && w.mem.EndingSince.IsZero() {
		w.mem.EndingSince = w.now
	}
	w.old, w.last = d.Status, d
	w.mem.Reported = true
	for _, a := range d.Actions {
		if _, dup := w.busy[a.Key()]; dup {
			w.t.Fatalf("%v is asked for while %v is in flight", a, w.busy[a.Key()])
		}
		w.log = append(w.log, a.String())
		w.busy[a.Key()] = a
	}
	return d
}

func (w *world) check(d Decision) {
	w.t.Helper()
	alive := map[string]int{}
	for _, c := range w.obs.Containers {
		if c.alive() {
			alive[c.Name]++
		}
	}
	if finishedPhase(w.old.Phase) && d.Status.Phase != w.old.Phase {
		w.t.Fatalf("a pod that had %s is %s", w.old.Phase, d.Status.Phase)
	}
	for _, a := range d.Actions {
		switch a.Do {
		case StartContainer:
			if alive[a.Container] > 0 {
				w.t.Fatalf("%v, though one is alive\n%s", a, w)
			}
			if w.pod.DeletionTimestamp != nil || w.gone {
				w.t.Fatalf("%v, though the pod is being deleted", a)
			}
			w.checkOrder(a)
		case Cleanup, DeletePod, Purge:
			if len(alive) > 0 {
				w.t.Fatalf("%v, though containers are alive\n%s", a, w)
			}
		}
	}
	for _, st := range append(slices.Clone(d.Status.ContainerStatuses), d.Status.InitContainerStatuses...) {
		if st.Ready && st.State.Running == nil && st.State.Terminated == nil {
			w.t.Fatalf("%s is ready but not running: %+v", st.Name, st)
		}
		for _, o := range append(slices.Clone(w.old.ContainerStatuses), w.old.InitContainerStatuses...) {
			if o.Name == st.Name && o.RestartCount > st.RestartCount {
				w.t.Fatalf("the restart count of %s went from %d to %d\n%s", st.Name, o.RestartCount, st.RestartCount, w)
			}
		}
	}
}

// checkOrder sees that all init containers before a container have done their part.
func (w *world) checkOrder(a Action) {
	for _, c := range w.pod.Spec.InitContainers {
		if c.Name == a.Container {
			return
		}
		ok := false
		for _, o := range w.obs.Containers {
			if o.Name == c.Name && o.SandboxID == a.SandboxID {
				ok = ok || o.State == Exited && o.ExitCode == 0 || isSidecar(&c)
			}
		}
		if !ok {
			w.t.Fatalf("%v before init container %s has done its part\n%s", a, c.Name, w)
		}
	}
}

// finish lets an action in flight end, well or not.
func (w *world) finish(key string, ok bool) {
	a := w.busy[key]
	delete(w.busy, key)
	m := w.mem.Container(a.Container)
	switch a.Do {
	case MountVolumes:
		w.mem.VolumesReady = ok
		if !ok {
			w.mem.VolumesTrouble = Again(w.mem.VolumesTrouble, w.now, "FailedMount", "no", time.Second, time.Minute)
		}
	case CreateSandbox:
		if !ok {
			w.mem.SandboxTrouble = Again(w.mem.SandboxTrouble, w.now, "Failed", "no", time.Second, time.Minute)
			return
		}
		w.ids++
		w.obs.Sandboxes = append([]Sandbox{{ID: fmt.Sprintf("s%d", w.ids), Attempt: uint32(a.Attempt), Ready: true, IPs: []string{"10.0.0.1"}, CreatedAt: w.now}}, w.obs.Sandboxes...)
	case PullImage:
		if !ok {
			m.ImageTrouble = Again(m.ImageTrouble, w.now, "ErrImagePull", "no", 10*time.Second, 5*time.Minute)
			return
		}
		m.Image, m.ImageAttempt, m.ImageTrouble = "img", a.Attempt, nil
	case StartContainer:
		if !ok {
			m.StartTrouble = &Trouble{Reason: "CreateContainerConfigError", Message: "no", At: w.now, Retry: w.now.Add(10 * time.Second)}
			return
		}
		m.StartTrouble, m.Restart, m.Image = nil, a.Backoff, ""
		w.ids++
		spec, _ := Find(w.pod, a.Container)
		c := Container{ID: fmt.Sprintf("c%d", w.ids), Name: a.Container, SandboxID: a.SandboxID, Attempt: a.Attempt, State: Running, CreatedAt: w.now, StartedAt: w.now, Hash: Hash(spec)}
		if i := slices.IndexFunc(w.obs.Sandboxes, func(s Sandbox) bool { return s.ID == a.SandboxID }); i < 0 || !w.obs.Sandboxes[i].Ready {
			c.State, c.ExitCode, c.FinishedAt = Exited, 128, w.now
		}
		w.obs.Containers = append([]Container{c}, w.obs.Containers...)
	case StopContainer:
		if ok {
			w.exit(a.ID, 137)
		}
	case RemoveContainer:
		w.obs.Containers = slices.DeleteFunc(w.obs.Containers, func(c Container) bool { return c.ID == a.ID })
	case StopSandbox:
		w.stopSandbox(a.ID)
	case RemoveSandbox:
		w.stopSandbox(a.ID)
		w.obs.Sandboxes = slices.DeleteFunc(w.obs.Sandboxes, func(s Sandbox) bool { return s.ID == a.ID })
		w.obs.Containers = slices.DeleteFunc(w.obs.Containers, func(c Container) bool { return c.SandboxID == a.ID })
	case Cleanup:
		w.mem.Cleaned, w.mem.VolumesReady = true, false
	case DeletePod:
		w.mem.Deleted, w.gone = true, true
	case Purge:
		w.mem.Purged = true
	}
}

func (w *world) stopSandbox(id string) {
	for i := range w.obs.Sandboxes {
		if w.obs.Sandboxes[i].ID == id {
			w.obs.Sandboxes[i].Ready = false
		}
	}
	for _, c := range w.obs.Containers {
		if c.SandboxID == id && c.alive() {
			w.exit(c.ID, 137)
		}
	}
}

func (w *world) exit(id string, code int32) {
	for i := range w.obs.Containers {
		if c := &w.obs.Containers[i]; c.ID == id && c.State != Exited {
			c.State, c.ExitCode, c.FinishedAt = Exited, code, w.now
		}
	}
}

// settle lets everything in flight end well until nothing is asked for any more.
func (w *world) settle() {
	w.t.Helper()
	for range 200 {
		w.step()
		if len(w.busy) == 0 {
			return
		}
		for _, k := range w.keys() {
			w.finish(k, true)
		}
	}
	w.t.Fatalf("the pod does not settle:\n%s", w)
}

func (w *world) keys() []string {
	var out []string
	for k := range w.busy {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (w *world) delete() {
	w.pod = w.pod.DeepCopy()
	w.pod.DeletionTimestamp = &metav1.Time{Time: w.now.Add(30 * time.Second)}
	w.pod.DeletionGracePeriodSeconds = new(int64(30))
}

func (w *world) String() string {
	var b strings.Builder
	for _, s := range w.obs.Sandboxes {
		fmt.Fprintf(&b, "sandbox %s ready=%v\n", s.ID, s.Ready)
	}
	for _, c := range w.obs.Containers {
		fmt.Fprintf(&b, "container %s %s in %s #%d %v", c.ID, c.Name, c.SandboxID, c.Attempt, c.State)
		if c.State == Exited {
			fmt.Fprintf(&b, " %d", c.ExitCode)
		}
		b.WriteByte('\n')
	}
	for _, k := range w.keys() {
		fmt.Fprintf(&b, "busy %v\n", w.busy[k])
	}
	fmt.Fprintf(&b, "phase %s\n", w.old.Phase)
	for _, s := range append(slices.Clone(w.old.InitContainerStatuses), w.old.ContainerStatuses...) {
		fmt.Fprintf(&b, "status %s %s restarts=%d ready=%v\n", s.Name, stateText(s.State), s.RestartCount, s.Ready)
	}
	b.WriteString("log:\n  " + strings.Join(w.log, "\n  ") + "\n")
	return b.String()
}

func stateText(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Terminated != nil:
		return fmt.Sprintf("%s(%d)", s.Terminated.Reason, s.Terminated.ExitCode)
	}
	return "none"
}

// TestRandomHistories walks pods through random lives and sees that they always come to rest, and to their end.
func TestRandomHistories(t *testing.T) {
	pods := []*corev1.Pod{
		testPod(corev1.RestartPolicyAlways, "", "a"),
		testPod(corev1.RestartPolicyAlways, "i1 side1 i2 side2", "a b"),
		testPod(corev1.RestartPolicyOnFailure, "i1 side1", "a b"),
		testPod(corev1.RestartPolicyNever, "i1 side1 i2", "a b"),
		testPod(corev1.RestartPolicyNever, "", "a b"),
	}
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, pods[int(seed)%len(pods)].DeepCopy())
		for range r.IntN(120) {
			w.step()
			w.surprise(r)
		}
		w.step()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		w.delete()
		w.rest(seed)
		if !w.gone {
			t.Fatalf("seed %d: the pod was never deleted\n%s", seed, w)
		}
		if !Step(w.input()).Done || len(w.obs.Containers)+len(w.obs.Sandboxes) > 0 {
			t.Fatalf("seed %d: something is left\n%s", seed, w)
		}
	}
}

// rest lets everything end well, and time pass where only that helps.
func (w *world) rest(seed uint64) {
	for range 500 {
		d := w.step()
		if d.Done {
			return
		}
		if len(w.busy) > 0 {
			for _, k := range w.keys() {
				w.finish(k, true)
			}
			continue
		}
		if len(d.Cancel) > 0 {
			continue // the end of a cancelled action wakes the loop
		}
		if d.Wake.IsZero() {
			w.t.Fatalf("seed %d: stuck\n%s", seed, w)
		}
		w.now = d.Wake
	}
	w.t.Fatalf("seed %d: no end\n%s", seed, w)
}

// surprise is one thing that happens to the pod.
func (w *world) surprise(r *rand.Rand) {
	pick := func() *Container {
		if len(w.obs.Containers) == 0 {
			return nil
		}
		return &w.obs.Containers[r.IntN(len(w.obs.Containers))]
	}
	switch n := r.IntN(20); {
	case n < 11:
		if keys := w.keys(); len(keys) > 0 {
			w.finish(keys[r.IntN(len(keys))], r.IntN(8) > 0)
		}
	case n < 14:
		if c := pick(); c != nil && c.State == Running {
			w.exit(c.ID, int32(r.IntN(2)))
		}
	case n < 17:
		w.now = w.now.Add(time.Duration(r.IntN(100)) * time.Second)
	case n == 17:
		if len(w.obs.Sandboxes) > 0 {
			w.stopSandbox(w.obs.Sandboxes[0].ID)
		}
	case n == 18:
		if c := pick(); c != nil && c.State == Running {
			w.mem.Container(c.Name).Probes = Probes{ID: c.ID, Liveness: Failure}
		}
	case n == 19: // the agent starts anew
		w.mem, w.busy = &Memory{}, map[string]Action{}
	}
}
