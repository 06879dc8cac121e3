package scheduler

import (
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	podresource "k8s.io/component-helpers/resource"
)

// resources is an amount of everything that nodes have and pods ask for.
type resources struct {
	cpu       int64 // thousandths of a core
	memory    int64 // bytes
	ephemeral int64 // bytes of local storage
	pods      int64
	extended  map[corev1.ResourceName]int64 // everything else; nil when there is nothing
}

// What a container counts for in scores when it asks for nothing, so that such pods spread too.
const (
	defaultCPU    = 100
	defaultMemory = 200 << 20
)

func resourcesOf(list corev1.ResourceList) resources {
	var r resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.cpu = q.MilliValue()
		case corev1.ResourceMemory:
			r.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = q.Value()
		case corev1.ResourcePods:
			r.pods = q.Value()
		default:
			if q.IsZero() {
				continue
			}
			if r.extended == nil {
				r.extended = map[corev1.ResourceName]int64{}
			}
			r.extended[name] = q.Value()
		}
	}
	return r
}

// requests is what a pod asks for, and what it counts for in scores.
func requests(p *corev1.Pod) (asked, counted resources) {
	opts := podresource.PodResourcesOptions{UseStatusResources: p.Status.Phase != "" && p.Spec.NodeName != ""}
	asked = resourcesOf(podresource.PodRequests(p, opts))
	asked.pods = 1
	counted = asked
	if asked.cpu == 0 || asked.memory == 0 {
		for i := range p.Spec.Containers {
			req := p.Spec.Containers[i].Resources.Requests
			if req.Cpu().IsZero() && asked.cpu == 0 {
				counted.cpu += defaultCPU
			}
			if req.Memory().IsZero() && asked.memory == 0 {
				counted.memory += defaultMemory
			}
		}
	}
	return asked, counted
}

// add adds n times o.
func (r *resources) add(o *resources, n int64) {
	r.cpu += n * o.cpu
	r.memory += n * o.memory
	r.ephemeral += n * o.ephemeral
	r.pods += n * o.pods
	for name, v := range o.extended {
		if r.extended == nil {
			r.extended = map[corev1.ResourceName]int64{}
		}
		r.extended[name] += n * v
	}
}

// lacks names the first things of which a node has too little for a pod, each as upstream words it. Impossible says
// that the node would be too small even if it were empty.
func (n *nodeState) lacks(p *podState) (reasons []string, impossible bool) {
	want := &p.asked
	short := func(asked, has, used int64, reason string) {
		if asked > 0 && asked > has-used {
			reasons = append(reasons, reason)
			impossible = impossible || asked > has
		}
	}
	short(1, n.has.pods, n.used.pods, "Too many pods")
	short(want.cpu, n.has.cpu, n.used.cpu, "Insufficient cpu")
	short(want.memory, n.has.memory, n.used.memory, "Insufficient memory")
	short(want.ephemeral, n.has.ephemeral, n.used.ephemeral, "Insufficient ephemeral-storage")
	for _, name := range slices.Sorted(maps.Keys(want.extended)) {
		asked := want.extended[name]
		short(asked, n.has.extended[name], n.used.extended[name], "Insufficient "+string(name))
	}
	return reasons, impossible
}

// fits is lacks without the words.
func (n *nodeState) fits(p *podState) bool {
	want := &p.asked
	if n.used.pods >= n.has.pods || want.cpu > 0 && want.cpu > n.has.cpu-n.used.cpu ||
		want.memory > 0 && want.memory > n.has.memory-n.used.memory ||
		want.ephemeral > 0 && want.ephemeral > n.has.ephemeral-n.used.ephemeral {
		return false
	}
	for name, asked := range want.extended {
		if asked > n.has.extended[name]-n.used.extended[name] {
			return false
		}
	}
	return true
}

// leastAllocated is 100 for an empty node and 0 for a full one, on average over cpu and memory.
func leastAllocated(n *nodeState, p *podState) int64 {
	free := func(used, has int64) int64 {
		if has == 0 || used > has {
			return 0
		}
		return (has - used) * maxScore / has
	}
	return (free(n.counted.cpu+p.counted.cpu, n.has.cpu) + free(n.counted.memory+p.counted.memory, n.has.memory)) / 2
}

// balancedAllocation is higher the closer the used shares of cpu and memory are to one another.
func balancedAllocation(n *nodeState, p *podState) int64 {
	share := func(used, has int64) float64 {
		if has == 0 {
			return 1
		}
		return min(float64(used)/float64(has), 1)
	}
	// The standard deviation of two values is half their difference.
	d := math.Abs(share(n.used.cpu+p.asked.cpu, n.has.cpu)-share(n.used.memory+p.asked.memory, n.has.memory)) / 2
	return int64((1 - d) * float64(maxScore))
}
