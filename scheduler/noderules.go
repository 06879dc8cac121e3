package scheduler

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

type resourceQuantity = resource.Quantity

// The rules of this file judge a node by itself: its name, its labels, its taints, its ports, its images.

func nodeNameRule(p *podState, _ *state) filter {
	if p.pod.Spec.NodeName == "" {
		return nil
	}
	return func(n *nodeState) refusal {
		if n.name == p.pod.Spec.NodeName {
			return refusal{}
		}
		return refusal{"node(s) didn't match the requested node name", true}
	}
}

func unschedulableRule(p *podState, _ *state) filter {
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if tolerates(p.pod.Spec.Tolerations, &taint) {
		return nil
	}
	return func(n *nodeState) refusal {
		if n.node.Spec.Unschedulable {
			return refusal{"node(s) were unschedulable", true}
		}
		return refusal{}
	}
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	for i := range tolerations {
		t := &tolerations[i]
		if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
			continue
		}
		switch t.Operator {
		case corev1.TolerationOpExists:
			return true
		case "", corev1.TolerationOpEqual:
			if t.Key != "" && t.Value == taint.Value {
				return true
			}
		}
	}
	return false
}

func taintRule(p *podState, _ *state) filter {
	return func(n *nodeState) refusal {
		for i := range n.node.Spec.Taints {
			t := &n.node.Spec.Taints[i]
			if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p.pod.Spec.Tolerations, t) {
				return refusal{"node(s) had untolerated taint(s)", true}
			}
		}
		return refusal{}
	}
}

// taintScore counts the taints that would rather not have the pod; fewer is better.
func taintScore(p *podState, _ *state) score {
	return func(n *nodeState) int64 {
		count := int64(0)
		for i := range n.node.Spec.Taints {
			t := &n.node.Spec.Taints[i]
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(p.pod.Spec.Tolerations, t) {
				count++
			}
		}
		return count
	}
}

func nodeAffinityRule(p *podState, _ *state) filter {
	spec := &p.pod.Spec
	if len(spec.NodeSelector) == 0 && (spec.Affinity == nil || spec.Affinity.NodeAffinity == nil ||
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil) {
		return nil
	}
	required := nodeaffinity.GetRequiredNodeAffinity(p.pod)
	return func(n *nodeState) refusal {
		if ok, _ := required.Match(n.node); ok { // an invalid selector matches nothing
			return refusal{}
		}
		return refusal{"node(s) didn't match Pod's node affinity/selector", true}
	}
}

func nodeAffinityScore(p *podState, _ *state) score {
	a := p.pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
	if err != nil {
		return nil
	}
	return func(n *nodeState) int64 { return terms.Score(n.node) }
}

// hostPort is a port that a pod takes of its node.
type hostPort struct {
	ip       string // "0.0.0.0" for all
	protocol corev1.Protocol
	port     int32
}

func hostPorts(p *corev1.Pod) []hostPort {
	var ports []hostPort
	add := func(containers []corev1.Container) {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if port.HostPort > 0 {
					ports = append(ports, hostPort{cmp.Or(port.HostIP, "0.0.0.0"), cmp.Or(port.Protocol, corev1.ProtocolTCP), port.HostPort})
				}
			}
		}
	}
	for i := range p.Spec.InitContainers {
		if policy := p.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			add(p.Spec.InitContainers[i : i+1])
		}
	}
	add(p.Spec.Containers)
	return ports
}

func portsRule(p *podState, _ *state) filter {
	if len(p.ports) == 0 {
		return nil
	}
	return func(n *nodeState) refusal {
		for taken := range n.ports {
			if slices.ContainsFunc(p.ports, func(w hostPort) bool {
				return w.port == taken.port && w.protocol == taken.protocol &&
					(w.ip == taken.ip || w.ip == "0.0.0.0" || taken.ip == "0.0.0.0")
			}) {
				return refusal{"node(s) didn't have free ports for the requested pod ports", false}
			}
		}
		return refusal{}
	}
}

// Images count for a score between these two sizes, in bytes, by container.
const (
	minImage = 23 << 20
	maxImage = 1000 << 20
)

// imageScore prefers nodes that have the pod's images, weighted by how many nodes have them.
func imageScore(p *podState, s *state) score {
	var names []string
	for _, c := range p.pod.Spec.Containers {
		names = append(names, normalImage(c.Image))
	}
	return func(n *nodeState) int64 {
		sum := int64(0)
		for _, name := range names {
			sum += n.images[name]
		}
		limit := int64(maxImage * len(names))
		return maxScore * (min(max(sum, minImage), limit) - minImage) / max(limit-minImage, 1)
	}
}

// normalImage is an image's name with its tag, as nodes report it.
func normalImage(name string) string {
	for i := len(name) - 1; i >= 0 && name[i] != '/'; i-- {
		if name[i] == ':' || name[i] == '@' {
			return name
		}
	}
	return name + ":latest"
}
