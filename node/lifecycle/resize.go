package lifecycle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Limits are what the kernel holds a container to. Zero is no limit.
type Limits struct {
	CPUShares int64
	CPUQuota  int64 // microseconds for each Period
	Memory    int64 // bytes
}

// Period is what a CPU quota is for, in microseconds.
const Period = 100_000

const (
	minQuota  = 1_000
	minShares = 2
	maxShares = 262_144
)

// Shares are the CPU shares of an amount of CPU.
func Shares(milli int64) int64 {
	if milli <= 0 {
		return minShares
	}
	return min(max(milli*1024/1000, minShares), maxShares)
}

// Quota is the CPU time in microseconds for each Period; 0 is no limit.
func Quota(milli int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(milli*Period/1000, minQuota)
}

// LimitsOf are the limits that a container's resources mean.
func LimitsOf(c *corev1.Container) Limits {
	req, lim := c.Resources.Requests, c.Resources.Limits
	cpu, ok := req[corev1.ResourceCPU]
	if !ok {
		cpu = lim[corev1.ResourceCPU]
	}
	limCPU, limMem := lim[corev1.ResourceCPU], lim[corev1.ResourceMemory]
	return Limits{CPUShares: Shares(cpu.MilliValue()), CPUQuota: Quota(limCPU.MilliValue()), Memory: limMem.Value()}
}

// resizing reports whether a container runs under other limits than its resources mean. What the runtime does not tell
// cannot be judged, and counts as right.
func (it *item) resizing() bool {
	return it.cur != nil && it.cur.State == Running && it.cur.Limits != nil && it.class != initial && it.class != ephemeral &&
		*it.cur.Limits != LimitsOf(it.spec)
}

// restartsToResize reports whether the container has asked to be restarted when what has changed changes.
func (it *item) restartsToResize() bool {
	want, have := LimitsOf(it.spec), *it.cur.Limits
	return slices.ContainsFunc(it.spec.ResizePolicy, func(p corev1.ContainerResizePolicy) bool {
		if p.RestartPolicy != corev1.RestartContainer {
			return false
		}
		if p.ResourceName == corev1.ResourceMemory {
			return want.Memory != have.Memory
		}
		return p.ResourceName == corev1.ResourceCPU && (want.CPUShares != have.CPUShares || want.CPUQuota != have.CPUQuota)
	})
}

// resize brings the limits of running containers to what the pod asks for, unless the node has no room for it.
func (s *stepper) resize() {
	if s.in.ResizePending == nil && s.resizingAny() && !s.waits(s.in.Memory.ResizeTrouble) {
		s.do(Action{Do: ResizePod})
	}
}

func (s *stepper) resizingAny() bool {
	return slices.ContainsFunc(slices.Concat(s.inits, s.mains), (*item).resizing)
}

// resources fills in what a container has been given: while a resize has not been done, what it had before.
func (s *stepper) resources(st, old *corev1.ContainerStatus, it *item) {
	st.Resources = it.spec.Resources.DeepCopy()
	if it.cur.State == Running {
		st.AllocatedResources = it.spec.Resources.Requests.DeepCopy()
	}
	if old == nil || old.ContainerID != st.ContainerID || old.Resources == nil {
		return
	}
	if s.in.ResizePending != nil {
		st.AllocatedResources = old.AllocatedResources.DeepCopy()
	}
	if s.in.ResizePending != nil || it.resizing() {
		st.Resources = old.Resources.DeepCopy()
	}
}

// resizeConditions say what keeps the pod from having the resources that it asks for.
func (s *stepper) resizeConditions() []corev1.PodCondition {
	var out []corev1.PodCondition
	set := func(t corev1.PodConditionType, reason, message string) {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message,
			ObservedGeneration: s.pod.Generation, LastTransitionTime: metav1.NewTime(s.in.Now.Truncate(1e9))}
		if i := slices.IndexFunc(s.in.Old.Conditions, func(o corev1.PodCondition) bool { return o.Type == t }); i >= 0 {
			c.LastTransitionTime = s.in.Old.Conditions[i].LastTransitionTime
		}
		out = append(out, c)
	}
	if s.out.Ending {
		return nil
	}
	if p := s.in.ResizePending; p != nil {
		set(corev1.PodResizePending, p.Reason, p.Message)
	} else if s.resizingAny() {
		if t := s.in.Memory.ResizeTrouble; t != nil {
			set(corev1.PodResizeInProgress, t.Reason, t.Message)
		} else {
			set(corev1.PodResizeInProgress, "", "")
		}
	}
	return out
}
