package spec

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/lifecycle"
)

// Resources are a container's limits as the runtime takes them.
func (n *Node) Resources(pod *corev1.Pod, c *corev1.Container) *runtimeapi.LinuxContainerResources {
	l := lifecycle.LimitsOf(c)
	return &runtimeapi.LinuxContainerResources{CpuShares: l.CPUShares, CpuPeriod: lifecycle.Period, CpuQuota: l.CPUQuota,
		MemoryLimitInBytes: l.Memory, OomScoreAdj: n.oomScore(pod, c)}
}

// oomScore says how soon the kernel may kill a container when the node's memory is used up: the less it asked for of
// what there is, the sooner.
func (n *Node) oomScore(pod *corev1.Pod, c *corev1.Container) int64 {
	const guaranteed, bestEffort = -997, 1000
	switch {
	case pod.Spec.PriorityClassName == "system-node-critical":
		return guaranteed
	}
	switch lifecycle.QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteed
	case corev1.PodQOSBestEffort:
		return bestEffort
	}
	if n.Memory <= 0 {
		return bestEffort - 1
	}
	req := c.Resources.Requests[corev1.ResourceMemory]
	return min(max(1000-1000*req.Value()/n.Memory, 1000+guaranteed), bestEffort-1)
}

// PodResources sums up what a pod asks for and may use: the larger of its containers together and its init
// containers one by one. A limit of 0 means that some container has none.
func PodResources(pod *corev1.Pod) (reqCPU, limCPU, limMem int64) {
	type sums struct{ req, cpu, mem int64 }
	var run, init sums
	openCPU, openMem := false, false
	add := func(s *sums, c *corev1.Container) {
		r, l, m := c.Resources.Requests[corev1.ResourceCPU], c.Resources.Limits[corev1.ResourceCPU], c.Resources.Limits[corev1.ResourceMemory]
		if r.IsZero() {
			r = l
		}
		s.req, s.cpu, s.mem = s.req+r.MilliValue(), s.cpu+l.MilliValue(), s.mem+m.Value()
		openCPU, openMem = openCPU || l.IsZero(), openMem || m.IsZero()
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(&run, c)
			continue
		}
		s := run
		add(&s, c)
		init = sums{max(init.req, s.req), max(init.cpu, s.cpu), max(init.mem, s.mem)}
	}
	for i := range pod.Spec.Containers {
		add(&run, &pod.Spec.Containers[i])
	}
	reqCPU, limCPU, limMem = max(run.req, init.req), max(run.cpu, init.cpu), max(run.mem, init.mem)
	if openCPU {
		limCPU = 0
	}
	if openMem {
		limMem = 0
	}
	return reqCPU, limCPU, limMem
}
