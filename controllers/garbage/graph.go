// Package garbage deletes objects whose owners are gone, and carries out foreground and orphaning deletion.
//
// Invariant: nothing is deleted as ownerless unless a live read, or the cache that its owner's kind fills, shows that
// no object with the owner's UID exists; every delete carries the UID that was judged. Only controllers/ may import
// garbage.
package garbage

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
)

// node is one object, or an owner that nobody has seen (kind is nil).
type node struct {
	uid        types.UID
	kind       *api.Kind
	obj        api.Object // nil: not seen, or deleted
	dependents map[types.UID]*node
}

// graph is who owns whom, over all kinds.
type graph struct {
	mu    sync.Mutex
	nodes map[types.UID]*node
}

func newGraph() *graph { return &graph{nodes: map[types.UID]*node{}} }

func (g *graph) at(uid types.UID) *node {
	n := g.nodes[uid]
	if n == nil {
		n = &node{uid: uid}
		g.nodes[uid] = n
	}
	return n
}

// drop forgets a node that is not an object and owns nothing.
func (g *graph) drop(n *node) {
	if n.obj == nil && len(n.dependents) == 0 {
		delete(g.nodes, n.uid)
	}
}

// change takes one event in and returns what must be looked at.
func (g *graph) change(k *api.Kind, old, new api.Object) (due []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old != nil && (new == nil || old.GetUID() != new.GetUID()) {
		due = g.remove(old)
	}
	if new == nil {
		return due
	}
	return append(due, g.put(k, new)...)
}

func (g *graph) put(k *api.Kind, o api.Object) (due []types.UID) {
	n := g.at(o.GetUID())
	before := n.obj
	n.kind, n.obj = k, o
	var had []metav1.OwnerReference
	if before != nil {
		had = before.GetOwnerReferences()
	}
	refs := o.GetOwnerReferences()
	if !slices.EqualFunc(had, refs, func(a, b metav1.OwnerReference) bool { return a.UID == b.UID && blocks(a) == blocks(b) }) {
		due = g.relink(n, had, refs)
	}
	if o.GetDeletionTimestamp() == nil {
		return due
	}
	switch {
	case has(o, metav1.FinalizerOrphanDependents):
		due = append(due, n.uid)
	case has(o, metav1.FinalizerDeleteDependents):
		due = append(due, n.uid)
		if before == nil || !foreground(before) {
			due = append(due, dependents(n)...)
		}
	}
	return due
}

// relink moves the node from its former to its present owners.
func (g *graph) relink(n *node, had, refs []metav1.OwnerReference) (due []types.UID) {
	for _, r := range had {
		if owner := g.nodes[r.UID]; owner != nil {
			delete(owner.dependents, n.uid)
			if owner.obj != nil && foreground(owner.obj) {
				due = append(due, owner.uid)
			}
			g.drop(owner)
		}
	}
	check := false
	for _, r := range refs {
		owner := g.at(r.UID)
		if owner.dependents == nil {
			owner.dependents = map[types.UID]*node{}
		}
		owner.dependents[n.uid] = n
		check = check || owner.obj == nil || foreground(owner.obj) || !describes(r, owner, n.obj)
		if owner.obj != nil && foreground(owner.obj) {
			due = append(due, owner.uid)
		}
	}
	if check {
		due = append(due, n.uid)
	}
	return due
}

func (g *graph) remove(o api.Object) (due []types.UID) {
	n := g.nodes[o.GetUID()]
	if n == nil || n.obj == nil {
		return nil
	}
	due = append(g.relink(n, n.obj.GetOwnerReferences(), nil), dependents(n)...)
	n.obj = nil
	g.drop(n)
	return due
}

// dependents lists the UIDs of the node's dependents.
func dependents(n *node) []types.UID {
	out := make([]types.UID, 0, len(n.dependents))
	for uid := range n.dependents {
		out = append(out, uid)
	}
	return out
}

// item is one object as the decision sees it.
type item struct {
	kind       *api.Kind
	obj        api.Object
	owners     []owner
	dependents []dependent
}

// owner is one reference, with the object that the graph has for it, if any.
type owner struct {
	ref  metav1.OwnerReference
	seen api.Object
}

type dependent struct {
	kind *api.Kind
	obj  api.Object
	ref  metav1.OwnerReference
}

// look gathers what is known about one object; false if it is not there.
func (g *graph) look(uid types.UID) (item, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil || n.obj == nil {
		return item{}, false
	}
	it := item{kind: n.kind, obj: n.obj}
	for _, r := range n.obj.GetOwnerReferences() {
		o := owner{ref: r}
		if on := g.nodes[r.UID]; on != nil && on.obj != nil && describes(r, on, n.obj) {
			o.seen = on.obj
		}
		it.owners = append(it.owners, o)
	}
	for _, d := range n.dependents {
		for _, r := range d.obj.GetOwnerReferences() {
			if r.UID == uid {
				it.dependents = append(it.dependents, dependent{d.kind, d.obj, r})
			}
		}
	}
	return it, true
}

// describes reports whether a reference names the object that has its UID: a reference with the wrong name or kind
// owns nothing.
func describes(r metav1.OwnerReference, owner *node, dep api.Object) bool {
	if owner.obj == nil || r.Name != owner.obj.GetName() || r.Kind != owner.kind.Kind || group(r.APIVersion) != owner.kind.Group {
		return false
	}
	return !owner.kind.Namespaced || owner.obj.GetNamespace() == dep.GetNamespace()
}

func has(o api.Object, finalizer string) bool { return slices.Contains(o.GetFinalizers(), finalizer) }

// foreground reports whether the object waits for its dependents to be deleted.
func foreground(o api.Object) bool {
	return o.GetDeletionTimestamp() != nil && has(o, metav1.FinalizerDeleteDependents)
}

func blocks(r metav1.OwnerReference) bool {
	return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
}
