package scheduler

import (
	"slices"
	"strings"
)

const maxScore = 100

// refusal is why a node was refused; the zero value is none.
type refusal struct {
	reason string // several are joined by joinReasons
	// lasting says that removing pods from the node would not help, so preemption need not look at it.
	lasting bool
}

// joinReasons makes one text of reasons that are counted separately in messages.
func joinReasons(reasons []string) string { return strings.Join(reasons, "\n") }

// filter judges one node for the pod that it was made for. score rates one.
type (
	filter func(*nodeState) refusal
	score  func(*nodeState) int64
)

// filterRule makes the filter of a pod, or nil if the rule has nothing to say about it.
type filterRule struct {
	name string // upstream's plug-in
	make func(*podState, *state) filter
	// crossNode says that the verdict on a node depends on other nodes' pods.
	crossNode bool
}

// scoreRule makes the score of a pod, or nil. Raw scores are brought to 0..100 by normalize over all feasible nodes,
// where it is set, and then multiplied by the weight.
type scoreRule struct {
	name      string
	weight    int64
	make      func(*podState, *state) score
	normalize func(raw []int64)
	crossNode bool
}

// filters and scores are upstream's default plug-ins in their order, with their weights.
var filters = []filterRule{
	{name: "NodeUnschedulable", make: unschedulableRule},
	{name: "NodeName", make: nodeNameRule},
	{name: "TaintToleration", make: taintRule},
	{name: "NodeAffinity", make: nodeAffinityRule},
	{name: "NodePorts", make: portsRule},
	{name: "VolumeBinding", make: volumeRule, crossNode: true},
	{name: "PodTopologySpread", make: spreadRule, crossNode: true},
	{name: "InterPodAffinity", make: podAffinityRule, crossNode: true},
	{name: "DefaultPreemption", make: nominationRule, crossNode: true},
}

var scores = []scoreRule{
	{name: "TaintToleration", weight: 3, make: taintScore, normalize: fewerIsBetter},
	{name: "NodeAffinity", weight: 2, make: nodeAffinityScore, normalize: moreIsBetter},
	{name: "PodTopologySpread", weight: 2, make: spreadScore, normalize: fewerIsBetter, crossNode: true},
	{name: "InterPodAffinity", weight: 2, make: podAffinityScore, normalize: spanToHundred, crossNode: true},
	{name: "ImageLocality", weight: 1, make: imageScore},
}

// moreIsBetter gives the highest raw score 100.
func moreIsBetter(raw []int64) {
	if top := slices.Max(raw); top > 0 {
		for i := range raw {
			raw[i] = raw[i] * maxScore / top
		}
	}
}

// fewerIsBetter gives 0 the score 100, and the highest raw score 0.
func fewerIsBetter(raw []int64) {
	top := slices.Max(raw)
	for i := range raw {
		if top == 0 {
			raw[i] = maxScore
		} else {
			raw[i] = maxScore - raw[i]*maxScore/top
		}
	}
}

// spanToHundred gives the lowest raw score 0 and the highest 100.
func spanToHundred(raw []int64) {
	low, top := slices.Min(raw), slices.Max(raw)
	for i := range raw {
		if top == low {
			raw[i] = 0
		} else {
			raw[i] = (raw[i] - low) * maxScore / (top - low)
		}
	}
}
