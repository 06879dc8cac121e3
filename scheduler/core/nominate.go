package core

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// nomination is the room that victims left, or are leaving, for a pod.
type nomination struct {
	pod  *Pod
	node string
}

// with is a node as it will be when the pods that wait for room on it are there: those of the given priority or a higher
// one, but for the pod itself. Nil if there are none.
func (n *node) with(waiting []*Pod, priority int32, self types.UID) *node {
	var copied *node
	for _, w := range waiting {
		if w.priority < priority || w.obj.UID == self {
			continue
		}
		if copied == nil {
			shallow := *n
			copied = &shallow
			copied.used, copied.ports = n.used.clone(), maps.Clone(n.ports)
		}
		copied.used.add(w.asked, 1)
		for _, port := range w.ports {
			copied.ports[port]++
		}
	}
	return copied
}

// crowd keeps a pod off nodes where it would be too near to one that waits for room there.
func (c *Cluster) crowd(p *Pod) func(i int) code {
	noAnti := c.of(Refusal{InterPodAffinity, "node(s) didn't match pod anti-affinity rules", false})
	noExisting := c.of(Refusal{InterPodAffinity, "node(s) didn't satisfy existing pods anti-affinity rules", false})
	near := func(t *term, i int, k *kin) bool {
		return t.matches(k, c) && c.column(t.topologyKey).byNode[i] != none
	}
	return func(i int) code {
		for _, w := range c.waiting[i] {
			if w.priority < p.priority || w.obj.UID == p.obj.UID {
				continue
			}
			for _, t := range p.kin.terms.requiredAnti {
				if near(t, i, w.kin) {
					return noAnti
				}
			}
			for _, t := range w.kin.terms.requiredAnti {
				if near(t, i, p.kin) {
					return noExisting
				}
			}
		}
		return 0
	}
}

// Nominate notes that p waits for room on a node, and takes the nominations of less important pods there away.
func (c *Cluster) Nominate(p *Pod, node string) (displaced []*Pod) {
	c.unnominate(p.obj.UID)
	n, ok := c.byName[node]
	if !ok {
		return nil
	}
	for _, other := range slices.Clone(c.waiting[n.index]) {
		if other.priority < p.priority {
			displaced = append(displaced, other)
			c.unnominate(other.obj.UID)
		}
	}
	c.nominated[p.obj.UID] = nomination{p, node}
	c.waiting[n.index] = append(c.waiting[n.index], p)
	c.changed(n)
	return displaced
}

// Nominated is the node that a pod waits for room on.
func (c *Cluster) Nominated(uid types.UID) string { return c.nominated[uid].node }

func (c *Cluster) unnominate(uid types.UID) {
	old, ok := c.nominated[uid]
	if !ok {
		return
	}
	delete(c.nominated, uid)
	n := c.byName[old.node]
	if n == nil {
		return
	}
	left := slices.DeleteFunc(c.waiting[n.index], func(p *Pod) bool { return p.obj.UID == uid })
	if c.waiting[n.index] = left; len(left) == 0 {
		delete(c.waiting, n.index)
	}
	c.changed(n)
}

// Unnominate takes a pod's nomination away.
func (c *Cluster) Unnominate(uid types.UID) { c.unnominate(uid) }

// Depart notes that a pod is being evicted; false if that was known. Stay takes it back.
func (c *Cluster) Depart(uid types.UID) bool {
	if c.departing[uid] {
		return false
	}
	c.departing[uid] = true
	return true
}

// Stay takes Depart back.
func (c *Cluster) Stay(uid types.UID) { delete(c.departing, uid) }
