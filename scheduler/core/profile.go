package core

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Upstream's plug-ins, by the names under which users configure them and messages mention them.
const (
	NodeUnschedulable    = "NodeUnschedulable"
	NodeName             = "NodeName"
	TaintToleration      = "TaintToleration"
	NodeAffinity         = "NodeAffinity"
	NodePorts            = "NodePorts"
	NodeResourcesFit     = "NodeResourcesFit"
	BalancedAllocation   = "NodeResourcesBalancedAllocation"
	VolumeRestrictions   = "VolumeRestrictions"
	NodeVolumeLimits     = "NodeVolumeLimits"
	VolumeBinding        = "VolumeBinding"
	VolumeZone           = "VolumeZone"
	PodTopologySpread    = "PodTopologySpread"
	InterPodAffinity     = "InterPodAffinity"
	DynamicResources     = "DynamicResources"
	DefaultPreemption    = "DefaultPreemption"
	ImageLocality        = "ImageLocality"
	NodeDeclaredFeatures = "NodeDeclaredFeatures"
	SchedulingGates      = "SchedulingGates"
	PrioritySort         = "PrioritySort"
	DefaultBinder        = "DefaultBinder"
	GangScheduling       = "GangScheduling"
)

// Profile is which rules count, with what weights and arguments, for the pods that ask for one scheduler name. It must
// not be changed once a Cluster has seen it.
type Profile struct {
	SchedulerName string
	Filters       map[string]bool  // the plug-ins that may refuse a node
	Weights       map[string]int64 // of the plug-ins that score; 0: it does not
	Preempt       bool             // DefaultPreemption is on

	Fit                                Strategy
	Ignored                            map[string]bool // extended resources that the fit leaves to an extender
	Groups                             map[string]bool // the same, by the part before the slash
	Balanced                           []WeightedResource
	Affinity                           *corev1.NodeAffinity // added to every pod's
	HardPodAffinityWeight              int64
	IgnorePreferredTermsOfExistingPods bool
	// DefaultConstraints spread pods that have none of their own and belong to a service or a controller.
	DefaultConstraints []corev1.TopologySpreadConstraint
	// SystemDefaulted says that DefaultConstraints are not an administrator's: nodes that lack a key count too.
	SystemDefaulted bool
	BindTimeout     time.Duration // for volumes
	DeviceTimeout   time.Duration // for devices' binding conditions
}

// StrategyType is how the fit scores nodes.
type StrategyType string

// The fit's strategies.
const (
	LeastAllocated           StrategyType = "LeastAllocated"
	MostAllocated            StrategyType = "MostAllocated"
	RequestedToCapacityRatio StrategyType = "RequestedToCapacityRatio"
)

// Strategy is how the fit scores nodes, and by which resources.
type Strategy struct {
	Type      StrategyType
	Resources []WeightedResource
	// Shape is the score (0 to 100) by utilization (0 to 100), ascending, for RequestedToCapacityRatio.
	Shape []ShapePoint
}

// WeightedResource is a resource with its weight.
type WeightedResource struct {
	Name   corev1.ResourceName
	Weight int64
}

// ShapePoint is one point of a broken line.
type ShapePoint struct{ Utilization, Score int64 }

func cpuAndMemory() []WeightedResource {
	return []WeightedResource{{corev1.ResourceCPU, 1}, {corev1.ResourceMemory, 1}}
}

// DefaultProfile is upstream's, with its default gates.
func DefaultProfile() *Profile {
	p := &Profile{SchedulerName: corev1.DefaultSchedulerName, Filters: map[string]bool{}, Preempt: true,
		Weights: map[string]int64{TaintToleration: 3, NodeAffinity: 2, NodeResourcesFit: 1, PodTopologySpread: 2,
			InterPodAffinity: 2, DynamicResources: 2, BalancedAllocation: 1, ImageLocality: 1},
		Fit: Strategy{Type: LeastAllocated, Resources: cpuAndMemory()}, Balanced: cpuAndMemory(), HardPodAffinityWeight: 1,
		DefaultConstraints: SystemConstraints(), SystemDefaulted: true, BindTimeout: 10 * time.Minute, DeviceTimeout: 10 * time.Minute}
	for _, name := range FilterOrder {
		p.Filters[name] = true
	}
	return p
}

// FilterOrder is the plug-ins that refuse nodes, in the order in which they are asked.
var FilterOrder = []string{NodeUnschedulable, NodeName, TaintToleration, NodeAffinity, NodePorts, NodeResourcesFit,
	VolumeRestrictions, NodeVolumeLimits, VolumeBinding, VolumeZone, PodTopologySpread, InterPodAffinity, DynamicResources, NodeDeclaredFeatures}

// SystemConstraints is the spread that pods of a service or a controller get when nobody configured another.
func SystemConstraints() []corev1.TopologySpreadConstraint {
	return []corev1.TopologySpreadConstraint{
		{TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 3},
		{TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.ScheduleAnyway, MaxSkew: 5},
	}
}
