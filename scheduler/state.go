package scheduler

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// state is the cluster as decisions see it. One goroutine owns it. Nodes have dense indexes, which are reused; the log
// names the nodes that changed, in order, so that a class knows which of its verdicts to judge anew.
type state struct {
	nodes  []*nodeState // by index; nil where a node left
	byName map[string]*nodeState
	free   []int // indexes to reuse
	pods   map[types.UID]*podState

	log   []int // indexes of changed nodes since the state was made or last trimmed
	first int   // the position of log[0]

	counters map[string]*counter
	classes  map[string]*class
	anti     map[types.UID]*podState // bound pods with required anti-affinity
	lean     map[types.UID]*podState // bound pods with any other inter-pod term
	rev      int64                   // counts changes of anything that classes with cross-node rules depend on

	nominated map[types.UID]nomination // pods that room is being made for, by their UID
	evicting  map[types.UID]bool       // pods that are being preempted, until they are gone
	trial     bool                     // pods are taken off and put back only to ask the rules; nothing changes

	namespaces map[string]map[string]string // labels by namespace
	volumes    volumeLookup
}

// maxLog bounds the change log; a class that is further behind judges all nodes anew.
const maxLog = 1 << 14

// nodeState is a node and what its pods take of it.
type nodeState struct {
	index   int
	node    *corev1.Node // nil: pods are bound to a name that has no node (yet)
	name    string
	has     resources
	used    resources // asked for by the pods on it
	counted resources // the same, with defaults for those that ask for nothing
	pods    map[types.UID]*podState
	ports   map[hostPort]int
	images  map[string]int64 // bytes by name
}

// podState is a pod with all that rules ask about it, worked out once.
type podState struct {
	pod     *corev1.Pod
	asked   resources
	counted resources
	ports   []hostPort
	terms   podTerms
	node    *nodeState // where it is bound or assumed to be
}

func newState() *state {
	return &state{byName: map[string]*nodeState{}, pods: map[types.UID]*podState{}, counters: map[string]*counter{},
		classes: map[string]*class{}, anti: map[types.UID]*podState{}, lean: map[types.UID]*podState{},
		nominated: map[types.UID]nomination{}, evicting: map[types.UID]bool{}, namespaces: map[string]map[string]string{}}
}

func newPodState(p *corev1.Pod) *podState {
	ps := &podState{pod: p, ports: hostPorts(p), terms: termsOf(p)}
	ps.asked, ps.counted = requests(p)
	return ps
}

func (s *state) changed(n *nodeState) {
	if s.trial {
		return
	}
	s.rev++
	s.log = append(s.log, n.index)
	if len(s.log) > maxLog {
		drop := len(s.log) / 2
		s.log = append(s.log[:0], s.log[drop:]...)
		s.first += drop
	}
}

// nodeFor finds a node's state by name, and makes room for it.
func (s *state) nodeFor(name string) *nodeState {
	if n, ok := s.byName[name]; ok {
		return n
	}
	n := &nodeState{name: name, pods: map[types.UID]*podState{}, ports: map[hostPort]int{}}
	if last := len(s.free) - 1; last >= 0 {
		n.index = s.free[last]
		s.free = s.free[:last]
		s.nodes[n.index] = n
	} else {
		n.index = len(s.nodes)
		s.nodes = append(s.nodes, n)
	}
	s.byName[name] = n
	return n
}

// setNamespace takes a namespace's labels; nil when it is gone. Counters remember which pods their terms match, which
// may hang on these labels.
func (s *state) setNamespace(name string, labels map[string]string) (changed bool) {
	old, ok := s.namespaces[name]
	if labels == nil {
		delete(s.namespaces, name)
	} else {
		s.namespaces[name] = labels
	}
	if ok && !maps.Equal(old, labels) {
		clear(s.counters)
		return true
	}
	return false
}

// setNode takes a new or changed node. It reports whether anything that matters to scheduling changed.
func (s *state) setNode(node *corev1.Node) bool {
	n := s.nodeFor(node.Name)
	old := n.node
	n.node = node
	if old != nil && sameForScheduling(old, node) {
		return false
	}
	n.has = resourcesOf(node.Status.Allocatable)
	n.images = map[string]int64{}
	for _, image := range node.Status.Images {
		for _, name := range image.Names {
			n.images[name] = image.SizeBytes
		}
	}
	s.changed(n)
	return true
}

func sameForScheduling(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable && maps.Equal(a.Labels, b.Labels) &&
		equalTaints(a.Spec.Taints, b.Spec.Taints) && equalLists(a.Status.Allocatable, b.Status.Allocatable) &&
		len(a.Status.Images) == len(b.Status.Images)
}

func equalTaints(a, b []corev1.Taint) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || a[i].Value != b[i].Value || a[i].Effect != b[i].Effect {
			return false
		}
	}
	return true
}

func equalLists(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y resourceQuantity) bool { return x.Cmp(y) == 0 })
}

// dropNode forgets a node; pods that are still bound to its name keep its place.
func (s *state) dropNode(name string) {
	n, ok := s.byName[name]
	if !ok {
		return
	}
	n.node, n.has, n.images = nil, resources{}, nil
	s.changed(n)
	s.release(n)
}

func (s *state) release(n *nodeState) {
	if n.node == nil && len(n.pods) == 0 {
		delete(s.byName, n.name)
		s.nodes[n.index] = nil
		s.free = append(s.free, n.index)
	}
}

// setPod takes a pod that is bound, or that a decision has just placed. A pod that has ended takes nothing.
func (s *state) setPod(p *podState, node string) {
	s.dropPod(p.pod.UID)
	if p.pod.Status.Phase == corev1.PodSucceeded || p.pod.Status.Phase == corev1.PodFailed {
		return
	}
	n := s.nodeFor(node)
	p.node = n
	s.pods[p.pod.UID] = p
	n.pods[p.pod.UID] = p
	s.account(p, 1)
}

// dropPod forgets a bound pod, if it is known.
func (s *state) dropPod(uid types.UID) bool {
	p, ok := s.pods[uid]
	if !ok {
		return false
	}
	delete(s.pods, uid)
	delete(p.node.pods, uid)
	s.account(p, -1)
	s.release(p.node)
	return true
}

func (s *state) account(p *podState, sign int64) {
	n := p.node
	n.used.add(&p.asked, sign)
	n.counted.add(&p.counted, sign)
	for _, port := range p.ports {
		if n.ports[port] += int(sign); n.ports[port] == 0 {
			delete(n.ports, port)
		}
	}
	for _, c := range s.counters {
		c.count(p, int(sign))
	}
	set := func(m map[types.UID]*podState, has bool) {
		if has && sign > 0 {
			m[p.pod.UID] = p
		} else {
			delete(m, p.pod.UID)
		}
	}
	set(s.anti, len(p.terms.requiredAnti) > 0)
	set(s.lean, len(p.terms.required)+len(p.terms.preferred)+len(p.terms.preferredAnti) > 0)
	s.changed(n)
}
