package core

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	declared "k8s.io/component-helpers/nodedeclaredfeatures"
	schedhelpers "k8s.io/component-helpers/scheduling/corev1"

	"github.com/skiff-sh/skiff/internal/version"
)

type quantity = resource.Quantity

func priorityOf(p *corev1.Pod) int32 { return schedhelpers.PodPriority(p) }

// The rules of this file judge a node by itself, for all pods of one shape: its name, its labels, its taints, its ports,
// its room, its features. Each makes the filter of a pod, or nil if it has nothing to say about it.

// filter judges one node; 0 is no objection.
type filter func(*node) code

func (c *Cluster) localFilters(p *Pod) []filter {
	makers := map[string]func(*Pod) filter{NodeUnschedulable: c.unschedulableRule, NodeName: c.nodeNameRule, TaintToleration: c.taintRule,
		NodeAffinity: c.nodeAffinityRule, NodePorts: c.portsRule, NodeResourcesFit: c.fitRule, DynamicResources: c.devicesRule,
		NodeDeclaredFeatures: c.featuresRule}
	var out []filter
	for _, name := range FilterOrder {
		if make := makers[name]; make != nil && p.profile.Filters[name] {
			if f := make(p); f != nil {
				out = append(out, f)
			}
		}
	}
	return out
}

func (c *Cluster) unschedulableRule(p *Pod) filter {
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if tolerates(p.obj.Spec.Tolerations, &taint) {
		return nil
	}
	no := c.of(Refusal{NodeUnschedulable, "node(s) were unschedulable", true})
	return func(n *node) code {
		if n.obj.Spec.Unschedulable {
			return no
		}
		return 0
	}
}

func (c *Cluster) nodeNameRule(p *Pod) filter {
	want := p.obj.Spec.NodeName
	if want == "" {
		return nil
	}
	no := c.of(Refusal{NodeName, "node(s) didn't match the requested node name", true})
	return func(n *node) code {
		if n.name != want {
			return no
		}
		return 0
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
			if t.Value == taint.Value {
				return true
			}
		}
	}
	return false
}

// untolerated is the first taint that keeps a pod away.
func untolerated(taints []corev1.Taint, tolerations []corev1.Toleration) *corev1.Taint {
	for i := range taints {
		if t := &taints[i]; t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(tolerations, t) {
			return t
		}
	}
	return nil
}

func (c *Cluster) taintRule(p *Pod) filter {
	tolerations := p.obj.Spec.Tolerations
	no := c.of(Refusal{TaintToleration, "node(s) had untolerated taint(s)", true})
	return func(n *node) code {
		if len(n.obj.Spec.Taints) > 0 && untolerated(n.obj.Spec.Taints, tolerations) != nil {
			return no
		}
		return 0
	}
}

// taintScore counts the taints that would rather not have the pod; fewer is better.
func taintScore(p *Pod) func(*node) int64 {
	tolerations := p.obj.Spec.Tolerations
	return func(n *node) int64 {
		count := int64(0)
		for i := range n.obj.Spec.Taints {
			if t := &n.obj.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !tolerates(tolerations, t) {
				count++
			}
		}
		return count
	}
}

func (c *Cluster) nodeAffinityRule(p *Pod) filter {
	var filters []filter
	if a := p.profile.Affinity; a != nil && a.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		added := c.selectorOf(a.RequiredDuringSchedulingIgnoredDuringExecution)
		no := c.of(Refusal{NodeAffinity, "node(s) didn't match scheduler-enforced node affinity", true})
		filters = append(filters, func(n *node) code {
			if !added.match(n.index) {
				return no
			}
			return 0
		})
	}
	if names, ok := pinned(&p.obj.Spec); ok {
		no := c.of(Refusal{NodeAffinity, "node(s) didn't satisfy plugin(s) [NodeAffinity]", true})
		filters = append(filters, func(n *node) code {
			if !slices.Contains(names, n.name) {
				return no
			}
			return 0
		})
	}
	if required := c.requiredSelector(&p.obj.Spec); required != nil {
		no := c.of(Refusal{NodeAffinity, "node(s) didn't match Pod's node affinity/selector", true})
		filters = append(filters, func(n *node) code {
			if !required.match(n.index) {
				return no
			}
			return 0
		})
	}
	if len(filters) == 0 {
		return nil
	}
	return func(n *node) code {
		for _, f := range filters {
			if no := f(n); no != 0 {
				return no
			}
		}
		return 0
	}
}

// nodeAffinityScore adds up the weights of the preferences that a node satisfies.
func (c *Cluster) nodeAffinityScore(p *Pod) func(*node) int64 {
	type preference struct {
		term   nodeTerm
		weight int64
	}
	var all []preference
	add := func(a *corev1.NodeAffinity) {
		if a == nil {
			return
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			if t := &a.PreferredDuringSchedulingIgnoredDuringExecution[i]; t.Weight != 0 {
				all = append(all, preference{c.termOf(&t.Preference), int64(t.Weight)})
			}
		}
	}
	add(p.profile.Affinity)
	if a := p.obj.Spec.Affinity; a != nil {
		add(a.NodeAffinity)
	}
	if len(all) == 0 {
		return nil
	}
	return func(n *node) int64 {
		sum := int64(0)
		for i := range all {
			if all[i].term.match(n.index) {
				sum += all[i].weight
			}
		}
		return sum
	}
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

func (c *Cluster) portsRule(p *Pod) filter {
	if len(p.ports) == 0 {
		return nil
	}
	wanted := p.ports
	no := c.of(Refusal{NodePorts, "node(s) didn't have free ports for the requested pod ports", false})
	return func(n *node) code {
		for taken := range n.ports {
			if slices.ContainsFunc(wanted, taken.conflicts) {
				return no
			}
		}
		return 0
	}
}

func (h hostPort) conflicts(o hostPort) bool {
	return h.port == o.port && h.protocol == o.protocol && (h.ip == o.ip || h.ip == "0.0.0.0" || o.ip == "0.0.0.0")
}

func (c *Cluster) fitRule(p *Pod) filter {
	want := *p.asked
	for name := range p.asked.extended {
		if p.profile.ignores(name) {
			want.extended = maps.Clone(want.extended)
			maps.DeleteFunc(want.extended, func(name corev1.ResourceName, _ int64) bool { return p.profile.ignores(name) })
			break
		}
	}
	return func(n *node) code {
		want := want
		if names := c.delegated(&want, n); len(names) > 0 && p.profile.Filters[DynamicResources] {
			want = want.without(names)
		}
		if want.fits(&n.has, &n.used) {
			return 0
		}
		reasons, lasting := want.lacks(&n.has, &n.used)
		return c.of(Refusal{NodeResourcesFit, strings.Join(reasons, "\n"), lasting})
	}
}

// ignores reports whether an extended resource is an extender's business alone.
func (p *Profile) ignores(name corev1.ResourceName) bool {
	if !isExtended(name) {
		return false
	}
	if p.Ignored[string(name)] {
		return true
	}
	if len(p.Groups) == 0 {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' {
			return p.Groups[string(name[:i])]
		}
	}
	return false
}

// featuresRule keeps pods that need a feature of the node agent off nodes that do not declare it (KEP-5328).
func (c *Cluster) featuresRule(p *Pod) filter {
	target, err := utilversion.Parse(version.Kubernetes)
	if err != nil {
		return nil
	}
	needed, err := declared.DefaultFramework.InferForPodScheduling(&declared.PodInfo{Spec: &p.obj.Spec}, target)
	if err != nil || needed.IsEmpty() {
		return nil
	}
	no := c.of(Refusal{NodeDeclaredFeatures, "node(s) didn't match Pod's required features", true})
	return func(n *node) code {
		if ok, err := needed.IsSubset(declared.DefaultFramework.TryMap(n.obj.Status.DeclaredFeatures)); err != nil || !ok {
			return no
		}
		return 0
	}
}
