package lifecycle

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// status says how the pod is, as the API shows it.
func (s *stepper) status() corev1.PodStatus {
	old := s.in.Old
	st := corev1.PodStatus{
		ObservedGeneration: s.pod.Generation, QOSClass: s.pod.Status.QOSClass, StartTime: old.StartTime,
		NominatedNodeName: s.pod.Status.NominatedNodeName, Reason: old.Reason, Message: old.Message,
		ResourceClaimStatuses: s.pod.Status.ResourceClaimStatuses, ExtendedResourceClaimStatus: s.pod.Status.ExtendedResourceClaimStatus,
	}
	if st.QOSClass == "" {
		st.QOSClass = QOS(s.pod)
	}
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: s.in.Now.Truncate(1e9)}
	}
	s.addresses(&st)
	if s.in.Refused == nil {
		st.InitContainerStatuses = s.statuses(s.inits)
		st.ContainerStatuses = s.statuses(s.mains)
		st.EphemeralContainerStatuses = s.statuses(s.ephemerals)
	}
	if s.failed != nil && !finishedPhase(old.Phase) {
		st.Reason, st.Message = s.failed.Reason, s.failed.Message
	} else if finishedPhase(s.pod.Status.Phase) && st.Reason == "" {
		st.Reason, st.Message = s.pod.Status.Reason, s.pod.Status.Message
	}
	st.Phase = s.phase()
	st.Conditions = s.conditions(&st)
	return st
}

func (s *stepper) addresses(st *corev1.PodStatus) {
	for _, ip := range s.in.HostIPs {
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(s.in.HostIPs) > 0 {
		st.HostIP = s.in.HostIPs[0]
	}
	var ips []string
	switch {
	case s.pod.Spec.HostNetwork && s.in.Refused == nil:
		ips = s.in.HostIPs
	case s.sandbox != nil:
		ips = s.sandbox.IPs
	case s.out.Ending: // what it had is still of interest
		for _, p := range s.in.Old.PodIPs {
			ips = append(ips, p.IP)
		}
	}
	for _, ip := range ips {
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(ips) > 0 {
		st.PodIP = ips[0]
	}
}

// phase follows from the containers; a finished pod stays finished.
func (s *stepper) phase() corev1.PodPhase {
	for _, p := range []corev1.PodPhase{s.pod.Status.Phase, s.in.Old.Phase} {
		if finishedPhase(p) {
			return p
		}
	}
	dead := !slices.ContainsFunc(s.in.Observed.Containers, func(c Container) bool { return c.alive() }) && len(s.in.Busy) == 0
	if s.failed != nil {
		if dead {
			return corev1.PodFailed
		}
	} else if s.initFailed() {
		if dead || !s.out.Ending {
			return corev1.PodFailed
		}
		return corev1.PodPending
	}
	var waiting, running, stopped, good, again int
	for _, it := range s.mains {
		switch {
		case it.cur == nil || it.cur.State == Created || s.starting(it):
			if old := s.oldStatus(it); old != nil && ran(old) {
				stopped++
				again++
			} else {
				waiting++
			}
		case it.cur.State == Exited:
			stopped++
			if it.cur.ExitCode == 0 {
				good++
			}
			if restarts(s.pod, it.spec, it.class, it.cur.ExitCode) {
				again++
			}
		default:
			running++
		}
	}
	if s.out.Ending && dead {
		if good == len(s.mains) && len(s.mains) > 0 {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	}
	switch {
	case waiting > 0, !s.initialized():
		return corev1.PodPending
	case running > 0, again > 0, s.out.Ending:
		return corev1.PodRunning
	case good == stopped:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// ran says that a container of this name has run before, whatever is left of it.
func ran(st *corev1.ContainerStatus) bool {
	return st.RestartCount > 0 || st.State.Running != nil || st.State.Terminated != nil || st.LastTerminationState.Terminated != nil
}

// starting says that the newest container runs but is not shown as running yet: its post-start hook has not ended.
func (s *stepper) starting(it *item) bool {
	a, busy := s.in.Busy["start/"+it.spec.Name]
	return busy && a.Do == StartContainer && it.cur != nil && it.cur.State == Running
}

// initialized says that every init container has done its part.
func (s *stepper) initialized() bool {
	if slices.ContainsFunc(s.mains, func(it *item) bool {
		return it.cur != nil && (s.sandbox == nil || it.cur.SandboxID == s.sandbox.ID)
	}) {
		return true
	}
	return len(s.uninitialized()) == 0
}

func (s *stepper) uninitialized() []string {
	var out []string
	for _, it := range s.inits {
		c := it.cur
		ok := c != nil && (s.sandbox == nil || c.SandboxID == s.sandbox.ID)
		if it.class == sidecar {
			ok = ok && it.started()
		} else {
			ok = ok && c.State == Exited && c.ExitCode == 0
		}
		if !ok {
			out = append(out, it.spec.Name)
		}
	}
	return out
}

func (s *stepper) statuses(items []*item) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, it := range items {
		out = append(out, s.containerStatus(it))
	}
	return out
}

func (s *stepper) oldStatus(it *item) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{s.in.Old.ContainerStatuses, s.in.Old.InitContainerStatuses, s.in.Old.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == it.spec.Name {
				return &list[i]
			}
		}
	}
	return nil
}

// containerStatus says how one container is.
func (s *stepper) containerStatus(it *item) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: it.spec.Name, Image: it.spec.Image}
	no, old := false, s.oldStatus(it)
	if it.class != initial || it.class == ephemeral {
		st.Started = &no
	}
	if it.class == ephemeral {
		st.Started = nil
	}
	c := it.cur
	if c == nil {
		st.State.Waiting = s.waiting(it)
		if old != nil && old.ContainerID != "" {
			s.lost(&st, old, it)
		}
		return st
	}
	if s.swapping(it, old) {
		return *old.DeepCopy()
	}
	st.ContainerID = RuntimePrefix + c.ID
	st.RestartCount = int32(c.Attempt)
	if old != nil && old.ContainerID != "" {
		st.RestartCount = max(st.RestartCount, old.RestartCount)
	}
	st.ImageID = c.ImageID
	if c.Image != "" {
		st.Image = c.Image
	}
	s.resources(&st, old, it)
	if c.State == Running {
		st.User = c.User
	}
	st.VolumeMounts = mountStatuses(it.spec)
	if len(it.all) > 1 && it.all[1].State == Exited {
		st.LastTerminationState.Terminated = terminated(it.all[1])
	} else if old != nil {
		st.LastTerminationState = inherit(old, st.ContainerID)
	}
	switch c.State {
	case Running, Unknown:
		if s.starting(it) && !s.out.Ending {
			st.State.Waiting = s.defaultWaiting(it)
			return st
		}
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt.Truncate(1e9))}
		if started := it.started(); st.Started != nil {
			st.Started = &started
		}
		st.Ready = it.class == ordinary && it.ready() || it.class == sidecar && it.ready()
	case Created:
		st.State.Waiting = s.waiting(it)
	case Exited:
		t := terminated(c)
		w := s.waiting(it)
		if w.Reason != containerCreating && w.Reason != podInitializing && !s.out.Ending && restarts(s.pod, it.spec, it.class, c.ExitCode) {
			st.State.Waiting, st.LastTerminationState.Terminated = w, t
		} else {
			st.State.Terminated = t
		}
		st.Ready = it.class == initial && c.ExitCode == 0
	}
	return st
}

// swapping says that a container has ended only because its definition changed, and the next one is on its way: users
// see the old one until then, so that a change of image does not take a pod out of its services for a moment.
func (s *stepper) swapping(it *item, old *corev1.ContainerStatus) bool {
	c := it.cur
	if s.out.Ending || s.sandbox == nil || c.SandboxID != s.sandbox.ID || c.State != Exited || !it.changed() {
		return false
	}
	if old == nil || old.State.Running == nil || old.ContainerID != RuntimePrefix+c.ID || it.class == initial || it.class == ephemeral {
		return false
	}
	return it.mem.ImageTrouble == nil && it.mem.StartTrouble == nil
}

// RuntimePrefix goes before the IDs of containers in the API.
const RuntimePrefix = "containerd://"

const (
	containerCreating = "ContainerCreating"
	podInitializing   = "PodInitializing"
)

// inherit takes the last end of a container from what was said before, if its own trace has been collected.
func inherit(old *corev1.ContainerStatus, id string) corev1.ContainerState {
	if t := old.State.Terminated; t != nil && t.ContainerID != id {
		return corev1.ContainerState{Terminated: t.DeepCopy()}
	}
	if t := old.LastTerminationState.Terminated; t != nil && t.ContainerID != id {
		return corev1.ContainerState{Terminated: t.DeepCopy()}
	}
	return corev1.ContainerState{}
}

// lost fills in the status of a container that the runtime no longer knows.
func (s *stepper) lost(st *corev1.ContainerStatus, old *corev1.ContainerStatus, it *item) {
	st.RestartCount, st.ImageID, st.ContainerID = old.RestartCount, old.ImageID, old.ContainerID
	if old.State.Terminated != nil && (s.out.Ending || it.class == initial && old.State.Terminated.ExitCode == 0) {
		st.State, st.LastTerminationState = old.State, old.LastTerminationState
		st.Ready = it.class == initial && old.State.Terminated.ExitCode == 0
		return
	}
	t := old.State.Terminated
	if t == nil && old.State.Running != nil {
		t = &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137,
			Message: "The container could not be located when the pod was terminated"}
	}
	if t == nil {
		st.LastTerminationState = old.LastTerminationState
		return
	}
	if s.out.Ending {
		st.State = corev1.ContainerState{Terminated: t}
		return
	}
	st.LastTerminationState.Terminated = t
}

func (s *stepper) defaultWaiting(it *item) *corev1.ContainerStateWaiting {
	if len(s.inits) > 0 && it.class != ephemeral {
		return &corev1.ContainerStateWaiting{Reason: podInitializing}
	}
	return &corev1.ContainerStateWaiting{Reason: containerCreating}
}

// waiting says what a container that is not running waits for.
func (s *stepper) waiting(it *item) *corev1.ContainerStateWaiting {
	now := s.in.Now
	if t := it.mem.ImageTrouble; t != nil {
		if now.Before(t.At.Add(freshTrouble)) || t.Reason == "InvalidImageName" || t.Reason == "ErrImageNeverPull" {
			return &corev1.ContainerStateWaiting{Reason: t.Reason, Message: t.Message}
		}
		return &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff",
			Message: fmt.Sprintf("Back-off pulling image %q: %s: %s", it.spec.Image, t.Reason, t.Message)}
	}
	if t := it.mem.StartTrouble; t != nil {
		return &corev1.ContainerStateWaiting{Reason: t.Reason, Message: t.Message}
	}
	if c := it.cur; c != nil && c.State == Exited && it.mem.Restart.Delay > 0 && !it.changed() && !s.busy("start/"+it.spec.Name) {
		if at, _ := it.mem.Restart.next(now, c.FinishedAt); now.Before(at) {
			return &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff",
				Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", shortDuration(it.mem.Restart.Delay.String()), it.spec.Name, s.podRef())}
		}
	}
	return s.defaultWaiting(it)
}

// shortDuration keeps Go's form ("1m20s", "5m0s"), which is what users grep for.
func shortDuration(s string) string { return s }

func terminated(c *Container) *corev1.ContainerStateTerminated {
	reason := c.Reason
	if reason == "" {
		reason = "Error"
		if c.ExitCode == 0 {
			reason = "Completed"
		}
	}
	return &corev1.ContainerStateTerminated{ExitCode: c.ExitCode, Reason: reason, Message: c.Message, ContainerID: RuntimePrefix + c.ID,
		StartedAt: metav1.NewTime(c.StartedAt.Truncate(1e9)), FinishedAt: metav1.NewTime(c.FinishedAt.Truncate(1e9))}
}

func mountStatuses(c *corev1.Container) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		st := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			st.RecursiveReadOnly = &mode
		}
		out = append(out, st)
	}
	return out
}

// conditions are the node's own five beside whatever others have set.
func (s *stepper) conditions(st *corev1.PodStatus) []corev1.PodCondition {
	var out []corev1.PodCondition
	set := func(t corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			ObservedGeneration: s.pod.Generation, LastTransitionTime: metav1.NewTime(s.in.Now.Truncate(1e9))}
		if ok {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, reason, message
		}
		for _, from := range [][]corev1.PodCondition{s.in.Old.Conditions, s.pod.Status.Conditions} {
			if i := slices.IndexFunc(from, func(o corev1.PodCondition) bool { return o.Type == t }); i >= 0 && from[i].Status == c.Status {
				c.LastTransitionTime = from[i].LastTransitionTime
				break
			}
		}
		out = append(out, c)
	}
	has := s.sandbox != nil && !(s.out.Ending && finishedPhase(st.Phase))
	set(corev1.PodReadyToStartContainers, has, "", "")
	done, failed := st.Phase == corev1.PodSucceeded, st.Phase == corev1.PodFailed
	if un := s.uninitialized(); done || s.initialized() {
		reason := ""
		if done {
			reason = "PodCompleted"
		}
		set(corev1.PodInitialized, true, reason, "")
	} else {
		set(corev1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(un, " ")))
	}
	var unready []string
	for _, list := range [][]*item{s.inits, s.mains} {
		for i, it := range list {
			if it.class == initial {
				continue
			}
			from := st.ContainerStatuses
			if it.class == sidecar {
				from = st.InitContainerStatuses
			}
			if i >= len(from) || !from[i].Ready {
				unready = append(unready, it.spec.Name)
			}
		}
	}
	ready, reason, message := len(unready) == 0, "", ""
	switch {
	case done:
		ready, reason = false, "PodCompleted"
	case failed:
		ready, reason = false, "PodFailed"
	case !ready:
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	gatesMessage := s.gates()
	if ready && gatesMessage != "" {
		set(corev1.PodReady, false, "ReadinessGatesNotReady", gatesMessage)
	} else {
		set(corev1.PodReady, ready, reason, message)
	}
	set(corev1.ContainersReady, ready, reason, message)
	out = append(out, s.resizeConditions()...)
	own := map[corev1.PodConditionType]bool{corev1.PodResizePending: true, corev1.PodResizeInProgress: true}
	for _, c := range out {
		own[c.Type] = true
	}
	scheduled := false
	for _, c := range s.pod.Status.Conditions {
		if !own[c.Type] {
			out = append(out, c)
			scheduled = scheduled || c.Type == corev1.PodScheduled
		}
	}
	if !scheduled {
		set(corev1.PodScheduled, true, "", "")
	}
	return out
}

// gates is empty if every readiness gate is open, or says which is not.
func (s *stepper) gates() string {
	var out []string
	for _, g := range s.pod.Spec.ReadinessGates {
		i := slices.IndexFunc(s.pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		switch {
		case i < 0:
			out = append(out, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", g.ConditionType))
		case s.pod.Status.Conditions[i].Status != corev1.ConditionTrue:
			out = append(out, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", g.ConditionType, s.pod.Status.Conditions[i].Status))
		}
	}
	return strings.Join(out, ", ")
}

// QOS is a pod's quality of service class.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	any, guaranteed := false, true
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			r := &list[i].Resources
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				req, lim := r.Requests[name], r.Limits[name]
				any = any || !req.IsZero() || !lim.IsZero()
				if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
					guaranteed = false
				}
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}
