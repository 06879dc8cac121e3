package core

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Cluster is the world as decisions see it. Nodes have dense indexes, which are reused; the log names the nodes that
// changed, in order, so that a shape knows which of its verdicts to judge anew.
type Cluster struct {
	nodes  []*node // by index; nil where a node left
	byName map[string]*node
	free   []int // indexes to reuse
	ready  int   // nodes that exist, not only in pods' bindings
	pods   map[types.UID]*Pod

	log   []int32 // indexes of changed nodes since the cluster was made or last trimmed
	first int     // the position of log[0]
	trial bool    // pods are taken off and put back only to ask the rules; nothing changes

	columns    map[string]*column
	eligible   map[string]*eligibility
	shapes     map[string]*shape
	kins       map[string]*kin // that bound pods are of
	tallies    map[string]*tally
	owned      map[string]*ownedTerm
	priorities map[int32]int // of bound pods
	// wiring counts changes of which tallies there are and of what they count; what kins and plans remember is from one.
	wiring int
	clock  int64 // counts decisions, for what was used longest ago
	refusals

	nominated map[types.UID]nomination // pods that room is being made for
	waiting   map[int][]*Pod           // the same by their node's index
	departing map[types.UID]bool       // pods that are being evicted, until they are gone

	namespaces map[string]map[string]string // labels by namespace
	imageNodes map[string]int               // how many nodes have an image
	others
	scratch
}

// node is a node and what its pods take of it.
type node struct {
	index   int
	obj     *corev1.Node // nil: pods are bound to a name that has no node (yet)
	name    string
	has     amount
	used    amount // asked for by the pods on it
	counted amount // the same, with defaults for those that ask for nothing
	pods    map[types.UID]*Pod
	ports   map[hostPort]int
	images  map[string]int64 // bytes by name
}

// Pod is a pod with all that rules ask about it, worked out once. It belongs to the Cluster that made it.
type Pod struct {
	obj      *corev1.Pod
	profile  *Profile
	shape    *shape   // nil for bound pods
	pinned   []string // the nodes that it names itself; nil: it does not
	kin      *kin
	asked    *amount
	counted  *amount
	ports    []hostPort
	priority int32
	node     *node // where it is bound or assumed to be
}

// Object is the API's object.
func (p *Pod) Object() *corev1.Pod { return p.obj }

// scratch is arrays that one decision after the other uses.
type scratch struct {
	candidates   []int32
	totals       []int64
	raw          []int64
	sums, worths []float64
}

// New makes an empty cluster.
func New() *Cluster {
	return &Cluster{byName: map[string]*node{}, pods: map[types.UID]*Pod{}, columns: map[string]*column{},
		eligible: map[string]*eligibility{}, shapes: map[string]*shape{}, kins: map[string]*kin{}, tallies: map[string]*tally{},
		owned: map[string]*ownedTerm{}, priorities: map[int32]int{}, refusals: newRefusals(), nominated: map[types.UID]nomination{}, waiting: map[int][]*Pod{},
		departing: map[types.UID]bool{}, imageNodes: map[string]int{}, namespaces: map[string]map[string]string{}, others: newOthers()}
}

// Nodes is how many nodes there are.
func (c *Cluster) Nodes() int { return c.ready }

// Pods is how many pods have a node, or were promised one.
func (c *Cluster) Pods() int { return len(c.pods) }

// maxLog bounds the change log; a shape that is further behind judges all nodes anew.
const maxLog = 1 << 14

func (c *Cluster) changed(n *node) {
	if c.trial {
		return
	}
	c.log = append(c.log, int32(n.index))
	if len(c.log) > maxLog {
		drop := len(c.log) / 2
		c.log = append(c.log[:0], c.log[drop:]...)
		c.first += drop
	}
}

// changedAll makes all shapes judge all nodes anew.
func (c *Cluster) changedAll() {
	c.first += len(c.log) + 1
	c.log = c.log[:0]
}

// nodeFor finds a node by name, and makes room for it.
func (c *Cluster) nodeFor(name string) *node {
	if n, ok := c.byName[name]; ok {
		return n
	}
	n := &node{name: name, pods: map[types.UID]*Pod{}, ports: map[hostPort]int{}}
	if last := len(c.free) - 1; last >= 0 {
		n.index = c.free[last]
		c.free = c.free[:last]
		c.nodes[n.index] = n
	} else {
		n.index = len(c.nodes)
		c.nodes = append(c.nodes, n)
	}
	c.byName[name] = n
	c.place(n)
	return n
}

// place tells columns, eligibilities and tallies what a node is now. Whoever changes a node's labels, taints or existence
// calls displace before.
func (c *Cluster) place(n *node) {
	for _, col := range c.columns {
		col.set(n)
	}
	for _, e := range c.eligible {
		e.set(n)
	}
	for _, t := range c.tallies {
		t.place(n.index)
	}
	for _, o := range c.owned {
		o.tally.place(n.index)
	}
}

func (c *Cluster) displace(n *node) {
	for _, t := range c.tallies {
		t.displace(n.index)
	}
	for _, o := range c.owned {
		o.tally.displace(n.index)
	}
}

// setNode takes a new or changed node. It reports whether anything that matters to scheduling changed.
func (c *Cluster) setNode(obj *corev1.Node) bool {
	n := c.nodeFor(obj.Name)
	old := n.obj
	if old != nil && sameForScheduling(old, obj) {
		n.obj = obj
		return false
	}
	if old == nil || !maps.Equal(old.Labels, obj.Labels) || !equalTaints(old.Spec.Taints, obj.Spec.Taints) {
		c.displace(n)
		n.obj = obj
		c.place(n)
	}
	n.obj = obj
	if old == nil {
		c.ready++
		c.setLimits(n.name, c.csiNodes[n.name])
	}
	n.has = amountOf(obj.Status.Allocatable)
	n.images = map[string]int64{}
	for _, image := range obj.Status.Images {
		for _, name := range image.Names {
			n.images[name] = image.SizeBytes
		}
	}
	c.countImages(old, obj)
	c.changed(n)
	return true
}

func sameForScheduling(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable && maps.Equal(a.Labels, b.Labels) &&
		equalTaints(a.Spec.Taints, b.Spec.Taints) && equalLists(a.Status.Allocatable, b.Status.Allocatable) &&
		slices.EqualFunc(a.Status.Images, b.Status.Images, func(x, y corev1.ContainerImage) bool {
			return x.SizeBytes == y.SizeBytes && slices.Equal(x.Names, y.Names)
		}) && slices.Equal(a.Status.DeclaredFeatures, b.Status.DeclaredFeatures)
}

func equalTaints(a, b []corev1.Taint) bool {
	return slices.EqualFunc(a, b, func(x, y corev1.Taint) bool { return x.Key == y.Key && x.Value == y.Value && x.Effect == y.Effect })
}

func equalLists(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y quantity) bool { return x.Cmp(y) == 0 })
}

// dropNode forgets a node; pods that are still bound to its name keep its place.
func (c *Cluster) dropNode(name string) {
	n, ok := c.byName[name]
	if !ok || n.obj == nil {
		return
	}
	c.ready--
	c.displace(n)
	c.countImages(n.obj, nil)
	n.obj, n.has, n.images = nil, amount{}, nil
	c.place(n)
	c.changed(n)
	c.release(n)
}

func (c *Cluster) release(n *node) {
	if n.obj == nil && len(n.pods) == 0 && !c.trial {
		c.setLimits(n.name, nil)
		delete(c.byName, n.name)
		delete(c.waiting, n.index)
		c.nodes[n.index] = nil
		c.free = append(c.free, n.index)
	}
}

// setNamespace takes a namespace's labels; nil when it is gone. Tallies remember which pods their terms match, which may
// hang on these labels.
func (c *Cluster) setNamespace(name string, labels map[string]string) (changed bool) {
	old, ok := c.namespaces[name]
	if labels == nil {
		delete(c.namespaces, name)
	} else {
		c.namespaces[name] = labels
	}
	if labels == nil || ok && maps.Equal(old, labels) {
		return false
	}
	clear(c.tallies)
	c.wiring++
	return true
}

// Pod prepares a pod that wants a node, for the profile that it asked for.
func (c *Cluster) Pod(obj *corev1.Pod, profile *Profile) *Pod {
	p := &Pod{obj: obj, profile: profile, priority: priorityOf(obj)}
	p.kin = c.kinOf(obj)
	p.shape = c.shapeOf(p)
	p.asked, p.counted, p.ports = &p.shape.asked, &p.shape.counted, p.shape.ports
	return p
}

// boundPod prepares a pod that has a node.
func (c *Cluster) boundPod(obj *corev1.Pod) *Pod {
	p := &Pod{obj: obj, kin: c.kinOf(obj), ports: hostPorts(obj), priority: priorityOf(obj)}
	asked, counted := requests(obj)
	p.asked, p.counted = &asked, &counted
	return p
}

// Assume notes that a pod was placed by a decision.
func (c *Cluster) Assume(p *Pod, node string) {
	c.unnominate(p.obj.UID)
	c.settle(p, node)
}

// settle puts a pod on a node. A pod that has ended takes nothing.
func (c *Cluster) settle(p *Pod, node string) {
	c.lift(p.obj.UID)
	if p.obj.Status.Phase == corev1.PodSucceeded || p.obj.Status.Phase == corev1.PodFailed {
		return
	}
	p.node = c.nodeFor(node)
	c.pods[p.obj.UID] = p
	p.node.pods[p.obj.UID] = p
	c.join(p)
	c.account(p, 1)
}

// lift takes a pod off its node, if it is known.
func (c *Cluster) lift(uid types.UID) bool {
	p, ok := c.pods[uid]
	if !ok {
		return false
	}
	delete(c.pods, uid)
	delete(p.node.pods, uid)
	c.account(p, -1)
	c.leave(p)
	c.release(p.node)
	return true
}

func (c *Cluster) account(p *Pod, sign int64) {
	n := p.node
	n.used.add(p.asked, sign)
	n.counted.add(p.counted, sign)
	for _, port := range p.ports {
		if n.ports[port] += int(sign); n.ports[port] == 0 {
			delete(n.ports, port)
		}
	}
	for _, add := range c.contributions(p.kin) {
		add.tally.add(n.index, sign*add.count)
	}
	if c.priorities[p.priority] += int(sign); c.priorities[p.priority] == 0 {
		delete(c.priorities, p.priority)
	}
	c.attach(p, int(sign))
	c.changed(n)
}
