package core

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// shape is all pods that are equal to the rules that look at one node alone: the same demands, the same priority, the
// same profile. It remembers every node's verdict, judged anew only when the node changed.
type shape struct {
	asked, counted amount
	ports          []hostPort
	images         []string
	containers     int
	filters        []filter
	raws           []rawScore
	sample         *Pod // any pod of the shape

	cursor int     // how far of the cluster's log the verdicts have come; -1: nowhere
	codes  []code  // by node index
	counts []int32 // how many nodes have a code, by code; absent ones are not counted
	scores []int64 // by node index: what needs no comparison with others; infeasible where refused
	raw    [][]int64
	uneven []int // for each raw score, how many feasible nodes have another than 0
	prey   *prey // nil until one of the shape preempts
	used   int64 // the cluster's clock when it was last asked for
}

// rawScore is a node's score that is normalized over all feasible nodes.
type rawScore struct {
	plugin    string
	rate      func(*node) int64
	normalize func([]int64)
}

const (
	infeasible = math.MinInt64
	absent     = code(math.MaxUint16) // there is no such node
	maxShapes  = 256
)

// shapeKey is the same for pods that the rules about single nodes treat alike.
func (c *Cluster) shapeKey(p *Pod) (string, bool) {
	in := &p.obj.Spec
	spec := corev1.PodSpec{NodeName: in.NodeName, NodeSelector: in.NodeSelector, Tolerations: in.Tolerations, Overhead: in.Overhead,
		Resources: in.Resources, SchedulerName: p.profile.SchedulerName, Priority: &p.priority, HostNetwork: in.HostNetwork, OS: in.OS, HostUsers: in.HostUsers}
	if in.Affinity != nil && in.Affinity.NodeAffinity != nil {
		spec.Affinity = &corev1.Affinity{NodeAffinity: in.Affinity.NodeAffinity}
	}
	var space [4]corev1.Container
	trim := func(out []corev1.Container, in []corev1.Container) []corev1.Container {
		for i := range in {
			c := &in[i]
			out = append(out, corev1.Container{Image: c.Image, Resources: c.Resources, Ports: c.Ports, RestartPolicy: c.RestartPolicy,
				RestartPolicyRules: c.RestartPolicyRules, Lifecycle: c.Lifecycle})
		}
		return out
	}
	spec.Containers, spec.InitContainers = trim(space[:0], in.Containers), trim(nil, in.InitContainers)
	for i := range in.Volumes {
		if in.Volumes[i].Image != nil {
			spec.Volumes = append(spec.Volumes, in.Volumes[i])
		}
	}
	b, err := spec.Marshal()
	if err != nil {
		return "", false
	}
	return string(b) + c.devicesKey(p), true
}

// shapeOf finds the shape of a pod.
func (c *Cluster) shapeOf(p *Pod) *shape {
	names, ok := pinned(&p.obj.Spec)
	if ok {
		p.pinned = names
		if names == nil {
			p.pinned = []string{}
		}
		return c.newShape(p) // equal pods are on other nodes: there is nothing to remember
	}
	key, ok := c.shapeKey(p)
	s := c.shapes[key]
	if !ok || s == nil {
		s = c.newShape(p)
		if ok {
			if len(c.shapes) >= maxShapes {
				c.dropOldestShape()
			}
			c.shapes[key] = s
		}
	}
	s.used = c.clock
	return s
}

func (c *Cluster) dropOldestShape() {
	oldest, at := "", int64(0)
	for key, s := range c.shapes {
		if oldest == "" || s.used < at {
			oldest, at = key, s.used
		}
	}
	delete(c.shapes, oldest)
}

func (c *Cluster) newShape(p *Pod) *shape {
	s := &shape{cursor: -1, ports: hostPorts(p.obj)}
	s.asked, s.counted = requests(p.obj)
	s.images, s.containers = imagesOf(p.obj)
	sample := *p
	sample.asked, sample.counted, sample.ports = &s.asked, &s.counted, s.ports
	sample.shape, s.sample = s, &sample
	s.filters = c.localFilters(s.sample)
	add := func(plugin string, rate func(*node) int64, normalize func([]int64)) {
		if rate != nil && p.profile.Weights[plugin] != 0 {
			s.raws = append(s.raws, rawScore{plugin, rate, normalize})
		}
	}
	add(TaintToleration, taintScore(s.sample), fewerIsBetter)
	add(NodeAffinity, c.nodeAffinityScore(s.sample), moreIsBetter)
	add(DynamicResources, c.devicesScore(s.sample), moreIsBetter)
	s.raw, s.uneven = make([][]int64, len(s.raws)), make([]int, len(s.raws))
	return s
}

// update judges the nodes that changed since the last time.
func (s *shape) update(c *Cluster) {
	end := c.first + len(c.log)
	if len(s.codes) < len(c.nodes) {
		more := len(c.nodes) - len(s.codes)
		for range more {
			s.codes = append(s.codes, absent)
			s.scores = append(s.scores, infeasible)
		}
		for k := range s.raw {
			s.raw[k] = append(s.raw[k], make([]int64, more)...)
		}
	}
	if s.cursor < c.first || end-s.cursor > len(c.nodes) {
		for i := range c.nodes {
			s.judge(i, c)
		}
	} else {
		for _, i := range c.log[s.cursor-c.first:] {
			s.judge(int(i), c)
		}
	}
	s.cursor = end
}

func (s *shape) judge(i int, c *Cluster) {
	for k, raw := range s.raw {
		if raw[i] != 0 {
			s.uneven[k]--
			raw[i] = 0
		}
	}
	n := c.nodes[i]
	s.scores[i] = infeasible
	if n == nil || n.obj == nil {
		s.note(i, absent)
		return
	}
	no := c.refuse(s.sample, n, "")
	if s.note(i, no); no != 0 {
		return
	}
	s.scores[i] = s.score(n, c)
	for k := range s.raws {
		if r := s.raws[k].rate(n); r != 0 {
			s.raw[k][i] = r
			s.uneven[k]++
		}
	}
}

// note sets a node's code and keeps the counts.
func (s *shape) note(i int, no code) {
	if old := s.codes[i]; old != absent {
		s.counts[old]--
	}
	if s.codes[i] = no; no == absent {
		return
	}
	for int(no) >= len(s.counts) {
		s.counts = append(s.counts, 0)
	}
	s.counts[no]++
}

// refuse asks the rules about single nodes, with what is kept free for pods of the same or a higher priority and without,
// because a pod may also be kept away by what is not there yet. A nomination of the pod itself does not count.
func (c *Cluster) refuse(p *Pod, n *node, self types.UID) code {
	if len(c.waiting) > 0 {
		if waiting := c.waiting[n.index]; len(waiting) > 0 {
			if with := n.with(waiting, p.priority, self); with != nil {
				if no := p.shape.ask(with); no != 0 {
					return no
				}
			}
		}
	}
	return p.shape.ask(n)
}

func (s *shape) ask(n *node) code {
	for _, f := range s.filters {
		if no := f(n); no != 0 {
			return no
		}
	}
	return 0
}

// score is what a node is worth by itself.
func (s *shape) score(n *node, c *Cluster) int64 {
	p, weights := s.sample, s.sample.profile.Weights
	sum := int64(0)
	if w := weights[NodeResourcesFit]; w != 0 {
		sum += w * p.profile.Fit.scoreOf(p, n)
	}
	if w := weights[BalancedAllocation]; w != 0 {
		sum += w * balanceScore(p.profile.Balanced, p, n)
	}
	if w := weights[ImageLocality]; w != 0 {
		sum += w * c.imageScore(s.images, s.containers, n)
	}
	return sum
}
