package core

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podresource "k8s.io/component-helpers/resource"
)

// amount is how much there is, or is asked for, of everything that nodes have.
type amount struct {
	cpu       int64 // thousandths of a core
	memory    int64 // bytes
	ephemeral int64 // bytes of local storage
	pods      int64
	extended  map[corev1.ResourceName]int64 // everything else; nil when there is nothing
}

// What a container counts for in scores when it asks for nothing, so that such pods spread too.
var (
	defaultCPU    = *resource.NewMilliQuantity(100, resource.DecimalSI)
	defaultMemory = *resource.NewQuantity(200<<20, resource.DecimalSI)
)

func amountOf(list corev1.ResourceList) amount {
	var a amount
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			a.cpu = q.MilliValue()
		case corev1.ResourceMemory:
			a.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			a.ephemeral = q.Value()
		case corev1.ResourcePods:
			a.pods = q.Value()
		default:
			if a.extended == nil {
				a.extended = map[corev1.ResourceName]int64{}
			}
			a.extended[name] = q.Value()
		}
	}
	return a
}

// requests is what a pod asks for, and what it counts for in scores. A bound pod that is being resized counts with the
// larger of what it has and what it wants.
func requests(p *corev1.Pod) (asked, counted amount) {
	opts := podresource.PodResourcesOptions{UseStatusResources: p.Spec.NodeName != "", InPlacePodLevelResourcesVerticalScalingEnabled: true}
	list := podresource.PodRequests(p, opts)
	asked = amountOf(list)
	asked.pods = 1
	opts.NonMissingContainerRequests = corev1.ResourceList{corev1.ResourceCPU: defaultCPU, corev1.ResourceMemory: defaultMemory}
	counted = amountOf(podresource.PodRequests(p, opts))
	counted.pods = 1
	return asked, counted
}

// add adds n times o.
func (a *amount) add(o *amount, n int64) {
	a.cpu += n * o.cpu
	a.memory += n * o.memory
	a.ephemeral += n * o.ephemeral
	a.pods += n * o.pods
	for name, v := range o.extended {
		if a.extended == nil {
			a.extended = map[corev1.ResourceName]int64{}
		}
		a.extended[name] += n * v
	}
}

func (a *amount) clone() amount {
	b := *a
	b.extended = maps.Clone(a.extended)
	return b
}

// of is the amount of one resource.
func (a *amount) of(name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return a.cpu
	case corev1.ResourceMemory:
		return a.memory
	case corev1.ResourceEphemeralStorage:
		return a.ephemeral
	case corev1.ResourcePods:
		return a.pods
	}
	return a.extended[name]
}

// isExtended tells resources that devices' plug-ins and administrators define from those that every node has.
func isExtended(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods, corev1.ResourceStorage:
		return false
	}
	return true
}

// fits reports whether a node that has so much, of which used is taken, has room for a.
func (a *amount) fits(has, used *amount) bool {
	if used.pods >= has.pods || a.cpu > 0 && a.cpu > has.cpu-used.cpu || a.memory > 0 && a.memory > has.memory-used.memory ||
		a.ephemeral > 0 && a.ephemeral > has.ephemeral-used.ephemeral {
		return false
	}
	for name, v := range a.extended {
		if v > 0 && v > has.extended[name]-used.extended[name] {
			return false
		}
	}
	return true
}

// lacks names everything of which there is too little, as upstream words it. Lasting says that the node would be too
// small even if it were empty.
func (a *amount) lacks(has, used *amount) (reasons []string, lasting bool) {
	short := func(asked, has, used int64, reason string) {
		if asked > 0 && asked > has-used {
			reasons = append(reasons, reason)
			lasting = lasting || asked > has
		}
	}
	if used.pods >= has.pods {
		reasons = append(reasons, "Too many pods")
	}
	short(a.cpu, has.cpu, used.cpu, "Insufficient cpu")
	short(a.memory, has.memory, used.memory, "Insufficient memory")
	short(a.ephemeral, has.ephemeral, used.ephemeral, "Insufficient ephemeral-storage")
	for _, name := range slices.Sorted(maps.Keys(a.extended)) {
		short(a.extended[name], has.extended[name], used.extended[name], "Insufficient "+string(name))
	}
	return reasons, lasting
}
