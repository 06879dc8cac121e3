package garbage

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
)

// presence is what is known about an owner.
type presence int

const (
	absent  presence = iota
	solid            // it exists
	waiting          // it exists, is being deleted, and waits for its dependents
)

// action is one write that the collector makes.
type action struct {
	kind *api.Kind
	obj  api.Object
	// Exactly one of the following.
	delete     metav1.DeletionPropagation
	owners     []metav1.OwnerReference // the references to leave, where setOwners
	setOwners  bool
	finalizers []string // the finalizers to leave, where setFinalizers
	setFinals  bool
}

// decide says what to do about one object, given the presence of each of its owners in order, and which others to
// look at next. It is called with owners' presence only if needOwners says so.
func decide(it item, owners []presence) (actions []action, next []types.UID) {
	o := it.obj
	if o.GetDeletionTimestamp() != nil {
		switch {
		case has(o, metav1.FinalizerOrphanDependents):
			return orphan(it), nil
		case has(o, metav1.FinalizerDeleteDependents):
			return waitForDependents(it)
		}
		return nil, nil
	}
	var keep, held []metav1.OwnerReference
	for i, p := range owners {
		switch p {
		case solid:
			keep = append(keep, it.owners[i].ref)
		case waiting:
			held = append(held, it.owners[i].ref)
		}
	}
	switch {
	case len(owners) == 0:
	case len(keep) == len(owners):
	case len(keep) > 0:
		actions = append(actions, action{kind: it.kind, obj: o, owners: keep, setOwners: true})
	case len(held) > 0 && len(it.dependents) > 0:
		actions = append(unblock(it, held), action{kind: it.kind, obj: o, delete: metav1.DeletePropagationForeground})
	default:
		actions = append(actions, action{kind: it.kind, obj: o, delete: ownPolicy(o)})
	}
	return actions, nil
}

// needOwners reports whether decide depends on the owners at all.
func needOwners(it item) bool { return it.obj.GetDeletionTimestamp() == nil && len(it.owners) > 0 }

// ownPolicy is the propagation that the object's own finalizers ask for.
func ownPolicy(o api.Object) metav1.DeletionPropagation {
	switch {
	case has(o, metav1.FinalizerOrphanDependents):
		return metav1.DeletePropagationOrphan
	case has(o, metav1.FinalizerDeleteDependents):
		return metav1.DeletePropagationForeground
	}
	return metav1.DeletePropagationBackground
}

// unblock resolves a circle: a dependent that is itself waiting for its dependents would wait for ever if this
// object blocked it.
func unblock(it item, held []metav1.OwnerReference) []action {
	if !slices.ContainsFunc(it.dependents, func(d dependent) bool { return foreground(d.obj) }) {
		return nil
	}
	refs := slices.Clone(it.obj.GetOwnerReferences())
	changed := false
	for i := range refs {
		if blocks(refs[i]) && slices.ContainsFunc(held, func(h metav1.OwnerReference) bool { return h.UID == refs[i].UID }) {
			no := false
			refs[i].BlockOwnerDeletion = &no
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return []action{{kind: it.kind, obj: it.obj, owners: refs, setOwners: true}}
}

// orphan takes the object out of its dependents' references, then lets it go.
func orphan(it item) (actions []action) {
	for _, d := range it.dependents {
		refs := slices.DeleteFunc(slices.Clone(d.obj.GetOwnerReferences()), func(r metav1.OwnerReference) bool { return r.UID == it.obj.GetUID() })
		actions = append(actions, action{kind: d.kind, obj: d.obj, owners: refs, setOwners: true})
	}
	return append(actions, without(it, metav1.FinalizerOrphanDependents))
}

// waitForDependents lets the object go when no dependent blocks it any more; until then its dependents are due.
func waitForDependents(it item) (actions []action, next []types.UID) {
	blocked := false
	for _, d := range it.dependents {
		blocked = blocked || blocks(d.ref)
		if d.obj.GetDeletionTimestamp() == nil {
			next = append(next, d.obj.GetUID())
		}
	}
	if !blocked {
		return []action{without(it, metav1.FinalizerDeleteDependents)}, next
	}
	return nil, next
}

func without(it item, finalizer string) action {
	left := slices.DeleteFunc(slices.Clone(it.obj.GetFinalizers()), func(f string) bool { return f == finalizer })
	return action{kind: it.kind, obj: it.obj, finalizers: left, setFinals: true}
}

func group(apiVersion string) string {
	g, _, found := strings.Cut(apiVersion, "/")
	if !found {
		return ""
	}
	return g
}
