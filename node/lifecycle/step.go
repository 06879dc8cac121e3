package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// stepper holds one call of Step.
type stepper struct {
	in         Input
	pod        *corev1.Pod
	out        Decision
	inits      []*item
	mains      []*item
	ephemerals []*item
	sandbox    *Sandbox // the one that containers run in now
	failed     *Refusal // why the pod as a whole has failed
}

// Step decides what the pod needs next.
func Step(in Input) Decision {
	s := &stepper{in: in, pod: in.Pod}
	s.inits = s.items(in.Pod.Spec.InitContainers, true)
	s.mains = s.items(in.Pod.Spec.Containers, false)
	for i := range in.Pod.Spec.EphemeralContainers {
		it := &item{spec: AsContainer(&in.Pod.Spec.EphemeralContainers[i]), class: ephemeral}
		s.join(it)
		s.ephemerals = append(s.ephemerals, it)
	}
	s.sandbox = s.active()
	s.failed = s.failure()

	if s.ending() {
		s.out.Ending = true
		s.end()
	} else {
		s.run()
	}
	s.collect()
	s.out.Status = s.status()
	s.out.Probes = s.probes()
	return s.out
}

// active is the newest sandbox, if containers can run in it.
func (s *stepper) active() *Sandbox {
	if len(s.in.Observed.Sandboxes) == 0 {
		return nil
	}
	sb := &s.in.Observed.Sandboxes[0]
	if !sb.Ready || sb.HostNetwork != s.pod.Spec.HostNetwork || !sb.HostNetwork && len(sb.IPs) == 0 {
		return nil
	}
	return sb
}

// failure is why the pod fails whatever its containers do.
func (s *stepper) failure() *Refusal {
	if s.in.Refused != nil {
		return s.in.Refused
	}
	if d := s.pod.Spec.ActiveDeadlineSeconds; d != nil && s.in.Old.StartTime != nil {
		at := s.in.Old.StartTime.Add(time.Duration(*d) * time.Second)
		if !s.in.Now.Before(at) && !finishedPhase(s.in.Old.Phase) {
			return &Refusal{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"}
		}
		s.wake(at)
	}
	return nil
}

func finishedPhase(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

// ending says whether the pod must end, or has ended.
func (s *stepper) ending() bool {
	return s.in.Gone || s.pod.DeletionTimestamp != nil || s.failed != nil || finishedPhase(s.in.Old.Phase) ||
		finishedPhase(s.pod.Status.Phase) || s.finished()
}

// finished says that no container will ever run again.
func (s *stepper) finished() bool {
	if s.initFailed() {
		return true
	}
	for _, it := range s.mains {
		if it.cur == nil || it.cur.State != Exited || restarts(s.pod, it.spec, it.class, it.cur.ExitCode) {
			return false
		}
	}
	return len(s.mains) > 0
}

func (s *stepper) initFailed() bool {
	for _, it := range s.inits {
		if it.class == initial && it.cur != nil && it.cur.State == Exited && it.cur.ExitCode != 0 &&
			!restarts(s.pod, it.spec, it.class, it.cur.ExitCode) {
			return true
		}
	}
	return false
}

func (s *stepper) wake(t time.Time) {
	if t.After(s.in.Now) && (s.out.Wake.IsZero() || t.Before(s.out.Wake)) {
		s.out.Wake = t
	}
}

// do asks for an action unless one on the same thing is in flight.
func (s *stepper) do(a Action) {
	if _, busy := s.in.Busy[a.Key()]; busy {
		return
	}
	if slices.ContainsFunc(s.out.Actions, func(b Action) bool { return b.Key() == a.Key() }) {
		return
	}
	s.out.Actions = append(s.out.Actions, a)
}

func (s *stepper) busy(key string) bool { _, ok := s.in.Busy[key]; return ok }

// waits reports whether a trouble says to wait, and asks to be woken then.
func (s *stepper) waits(t *Trouble) bool {
	if t == nil || !s.in.Now.Before(t.Retry) {
		return false
	}
	s.wake(t.Retry)
	return true
}

// run brings a pod that should run one step nearer to running.
func (s *stepper) run() {
	m := s.in.Memory
	stale := m.VolumesStale || !m.VolumesRefresh.IsZero() && !s.in.Now.Before(m.VolumesRefresh)
	if (!m.VolumesReady || stale) && (!s.waits(m.VolumesTrouble) || m.VolumesStale) {
		s.do(Action{Do: MountVolumes})
	}
	s.wake(m.VolumesRefresh)
	if !m.VolumesReady {
		return
	}
	if s.sandbox == nil {
		s.replaceSandbox()
		return
	}
	for _, it := range s.ephemerals {
		if it.cur == nil {
			s.start(it)
		}
	}
	if !s.runInits() {
		return
	}
	for _, it := range s.mains {
		s.keep(it)
	}
	s.resize()
}

// replaceSandbox stops what is left of an older sandbox and makes a new one.
func (s *stepper) replaceSandbox() {
	left := false
	for i := range s.in.Observed.Containers {
		if c := &s.in.Observed.Containers[i]; c.alive() {
			left = true
			s.stop(c, s.podGrace(), true, "Pod sandbox changed, it will be killed and re-created.")
		}
	}
	next := 0
	for i, sb := range s.in.Observed.Sandboxes {
		next = max(next, int(sb.Attempt)+1)
		if sb.Ready && !left {
			left = true
			s.do(Action{Do: StopSandbox, ID: sb.ID})
		}
		if i == 0 && next > 0 {
			s.event("sandbox"+sb.ID, "", corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
	}
	if left || s.waits(s.in.Memory.SandboxTrouble) {
		return
	}
	s.do(Action{Do: CreateSandbox, Attempt: next})
}

// runInits brings the init containers on, in order, and reports whether the ordinary ones may run.
func (s *stepper) runInits() bool {
	// Once an ordinary container exists in this sandbox, the init containers have done their part for good.
	initialized := slices.ContainsFunc(s.mains, func(it *item) bool { return it.here(s.sandbox.ID) != nil })
	for i, it := range s.inits {
		if it.class == sidecar {
			s.keep(it)
			if !initialized && !it.started() || s.busy("start/"+it.spec.Name) && !initialized {
				return false
			}
			continue
		}
		if initialized {
			continue
		}
		// A later one exists: this one was done, even if its container has been collected.
		if slices.ContainsFunc(s.inits[i+1:], func(l *item) bool { return l.here(s.sandbox.ID) != nil }) {
			continue
		}
		c := it.here(s.sandbox.ID)
		if c != nil && c.State == Exited && c.ExitCode == 0 {
			continue
		}
		s.keep(it)
		return false
	}
	return true
}

// keep starts a container that should run, restarts one that ended, and stops one that must not go on as it is.
func (s *stepper) keep(it *item) {
	c := it.here(s.sandbox.ID)
	switch {
	case c == nil:
		s.start(it)
	case s.busy("stop/"+c.ID) || s.busy("start/"+it.spec.Name):
	case c.State == Created:
		s.do(Action{Do: RemoveContainer, ID: c.ID, Container: c.Name})
	case c.State == Unknown:
		s.stop(c, s.podGrace(), false, fmt.Sprintf("Container is in %q state, try killing it before restart", "Unknown"))
	case c.State == Exited:
		if it.class == initial && c.ExitCode == 0 {
			return
		}
		if restarts(s.pod, it.spec, it.class, c.ExitCode) {
			s.start(it)
		}
	default:
		s.judge(it, c)
	}
}

// judge stops a running container whose definition changed or whose probes failed.
func (s *stepper) judge(it *item, c *Container) {
	p := it.probes()
	again := ", will be restarted"
	if !restarts(s.pod, it.spec, it.class, 137) {
		again = ""
	}
	switch {
	case it.changed() && it.class != initial:
		s.stop(c, s.podGrace(), true, fmt.Sprintf("Container %s definition changed, will be restarted", c.Name))
	case s.in.ResizePending == nil && it.resizing() && it.restartsToResize():
		s.stop(c, s.podGrace(), true, fmt.Sprintf("Container %s resize requires restart", c.Name))
	case p.Startup == Failure:
		s.stop(c, s.probeGrace(it.spec.StartupProbe), true, fmt.Sprintf("Container %s failed startup probe%s", c.Name, again))
	case p.Liveness == Failure:
		s.stop(c, s.probeGrace(it.spec.LivenessProbe), true, fmt.Sprintf("Container %s failed liveness probe%s", c.Name, again))
	}
}

// start brings a container that is not running one step nearer: back-off, image, container.
func (s *stepper) start(it *item) {
	name := it.spec.Name
	if s.busy("start/" + name) {
		return
	}
	back := it.mem.Restart
	if it.changed() {
		back = Backoff{} // what failed before was another container
	} else if c := it.cur; c != nil && c.State == Exited && c.SandboxID == s.sandbox.ID {
		at, after := it.mem.Restart.next(s.in.Now, c.FinishedAt)
		if s.in.Now.Before(at) {
			s.wake(at)
			s.event("backoff/"+c.ID, name, corev1.EventTypeWarning, "BackOff",
				fmt.Sprintf("Back-off restarting failed container %s in pod %s", name, s.podRef()))
			return
		}
		back = after
	}
	if s.waits(it.mem.StartTrouble) {
		return
	}
	attempt := s.nextAttempt(it)
	if it.mem.Image == "" || it.mem.ImageAttempt != attempt {
		if t := it.mem.ImageTrouble; s.waits(t) {
			if s.in.Now.Before(t.At.Add(freshTrouble)) {
				s.wake(t.At.Add(freshTrouble))
			} else {
				s.event("pull/"+name+t.At.String(), name, corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", it.spec.Image))
			}
			return
		}
		s.do(Action{Do: PullImage, Container: name, Attempt: attempt})
		return
	}
	s.do(Action{Do: StartContainer, Container: name, SandboxID: s.sandbox.ID, Attempt: attempt, Backoff: back})
}

// freshTrouble is how long a failed pull is shown as itself before it is shown as a back-off.
const freshTrouble = 2 * time.Second

// nextAttempt is the number of the next container of this name: its restart count.
func (s *stepper) nextAttempt(it *item) int {
	n := 0
	if it.cur != nil {
		n = it.cur.Attempt + 1
	}
	// Containers may be lost without a trace here; the count goes on all the same.
	if old := s.oldStatus(it); old != nil && old.ContainerID != "" {
		n = max(n, int(old.RestartCount)+1)
	}
	return n
}

func (s *stepper) podGrace() time.Duration {
	g := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if p := s.pod.Spec.TerminationGracePeriodSeconds; p != nil {
		g = *p
	}
	if p := s.pod.DeletionGracePeriodSeconds; p != nil {
		g = *p
	}
	return max(time.Duration(g)*time.Second, time.Second)
}

func (s *stepper) probeGrace(p *corev1.Probe) time.Duration {
	if p != nil && p.TerminationGracePeriodSeconds != nil {
		return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
	}
	return s.podGrace()
}

// stop asks to stop a container; a stop in flight with a longer grace is replaced.
func (s *stepper) stop(c *Container, grace time.Duration, hook bool, reason string) {
	a := Action{Do: StopContainer, Container: c.Name, ID: c.ID, Grace: grace, Deadline: s.in.Now.Add(grace), Reason: reason}
	if spec, ok := Find(s.pod, c.Name); ok && hook && c.State == Running && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil {
		a.PreStop = true
	}
	if b, busy := s.in.Busy[a.Key()]; busy {
		if a.Deadline.Before(b.Deadline.Add(-time.Second)) {
			s.out.Cancel = append(s.out.Cancel, a.Key())
		}
		return
	}
	s.do(a)
}

func (s *stepper) event(key, container, typ, reason, message string) {
	s.out.Events = append(s.out.Events, Event{Key: key, Type: typ, Reason: reason, Message: message, Container: container})
}

func (s *stepper) podRef() string {
	return fmt.Sprintf("%s_%s(%s)", s.pod.Name, s.pod.Namespace, s.pod.UID)
}

// end brings a pod that must end one step nearer to its end.
func (s *stepper) end() {
	for key, a := range s.in.Busy {
		if a.Do == PullImage || a.Do == StartContainer || a.Do == CreateSandbox || a.Do == MountVolumes {
			s.out.Cancel = append(s.out.Cancel, key)
		}
	}
	slices.Sort(s.out.Cancel)
	if s.stopAll() || len(s.in.Busy) > 0 {
		return
	}
	for _, sb := range s.in.Observed.Sandboxes {
		if sb.Ready {
			s.do(Action{Do: StopSandbox, ID: sb.ID})
			return
		}
	}
	m := s.in.Memory
	if !m.Cleaned {
		if !s.waits(m.VolumesTrouble) {
			s.do(Action{Do: Cleanup})
		}
		return
	}
	switch {
	case s.in.Gone:
		s.purge()
	case s.pod.DeletionTimestamp != nil && m.Reported && !m.Deleted:
		s.do(Action{Do: DeletePod})
	}
}

// stopAll stops what is alive, sidecars last and in reverse order, and reports whether anything is.
func (s *stepper) stopAll() bool {
	grace := s.endGrace()
	alive := false
	stopIf := func(c *Container, may bool) {
		if !c.alive() {
			return
		}
		alive = true
		if may {
			g := grace
			if s.in.Gone && c.Grace > 0 && len(s.pod.Spec.Containers) == 0 {
				g = c.Grace
			}
			s.stop(c, g, true, "Stopping container "+c.Name)
		}
	}
	cars := map[string]bool{}
	for _, it := range s.inits {
		if it.class == sidecar {
			cars[it.spec.Name] = true
		}
	}
	for i := range s.in.Observed.Containers {
		if c := &s.in.Observed.Containers[i]; !cars[c.Name] {
			stopIf(c, true)
		}
	}
	due := !alive || s.graceOver()
	for _, it := range slices.Backward(s.inits) {
		if it.class != sidecar {
			continue
		}
		before := alive
		for _, c := range it.all {
			stopIf(c, due)
		}
		if alive && !before && !s.graceOver() {
			due = false // the ones before it wait for this one
		}
	}
	return alive
}

// endGrace is what is left of the pod's grace period, at least a second.
func (s *stepper) endGrace() time.Duration {
	g := s.podGrace()
	since := s.in.Memory.EndingSince
	if since.IsZero() || s.pod.DeletionTimestamp == nil && !s.in.Gone {
		return g
	}
	left := since.Add(g).Sub(s.in.Now)
	if left > 0 {
		s.wake(since.Add(g))
	}
	return max(left, time.Second)
}

func (s *stepper) graceOver() bool {
	since := s.in.Memory.EndingSince
	return !since.IsZero() && s.pod.DeletionTimestamp != nil && !s.in.Now.Before(since.Add(s.podGrace()))
}

// purge removes every trace of a pod that the API no longer has.
func (s *stepper) purge() {
	for _, sb := range s.in.Observed.Sandboxes {
		s.do(Action{Do: RemoveSandbox, ID: sb.ID})
		return
	}
	for _, c := range s.in.Observed.Containers {
		s.do(Action{Do: RemoveContainer, ID: c.ID, Container: c.Name})
	}
	if len(s.in.Observed.Containers) > 0 {
		return
	}
	if !s.in.Memory.Purged {
		s.do(Action{Do: Purge})
		return
	}
	s.out.Done = true
}

// collect removes dead containers beyond the newest dead one of each name, and sandboxes that nothing is left in.
func (s *stepper) collect() {
	if s.in.Gone {
		return
	}
	dead := map[string]int{}
	used := map[string]bool{}
	for _, a := range s.in.Busy {
		used[a.SandboxID] = true
	}
	for i := range s.in.Observed.Containers {
		c := &s.in.Observed.Containers[i]
		if c.State == Exited {
			dead[c.Name]++
			if dead[c.Name] > 1 {
				s.do(Action{Do: RemoveContainer, ID: c.ID, Container: c.Name})
				continue
			}
		}
		used[c.SandboxID] = true
	}
	for i, sb := range s.in.Observed.Sandboxes {
		if i > 0 && !sb.Ready && !used[sb.ID] {
			s.do(Action{Do: RemoveSandbox, ID: sb.ID})
		}
	}
}

// probes lists the probes that should be running.
func (s *stepper) probes() []Probe {
	if s.sandbox == nil || s.in.Gone {
		return nil
	}
	ip := ""
	if len(s.sandbox.IPs) > 0 {
		ip = s.sandbox.IPs[0]
	} else if len(s.in.HostIPs) > 0 {
		ip = s.in.HostIPs[0]
	}
	var out []Probe
	for _, it := range slices.Concat(s.inits, s.mains) {
		c := it.here(s.sandbox.ID)
		if c == nil || c.State != Running || it.class == initial || s.busy("start/"+c.Name) {
			continue
		}
		add := func(k ProbeKind, p *corev1.Probe) {
			if p != nil {
				out = append(out, Probe{Container: c.Name, ID: c.ID, Kind: k, Spec: p, PodIP: ip, StartedAt: c.StartedAt})
			}
		}
		if !it.started() {
			if !s.out.Ending {
				add(Startup, it.spec.StartupProbe)
			}
			continue
		}
		if !s.out.Ending {
			add(Liveness, it.spec.LivenessProbe)
		}
		add(Readiness, it.spec.ReadinessProbe)
	}
	return out
}
