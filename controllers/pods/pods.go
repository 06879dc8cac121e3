// Package pods holds what several workload controllers ask of pods: whether one is active, ready or available,
// which of many to delete first, and how one is made from a template.
//
// Invariant: everything here is a pure function. The controllers under controllers/ may import pods.
package pods

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/skiff-sh/skiff/api"
)

// Condition finds a condition of the pod, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// Ready reports whether the pod's Ready condition is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available reports whether the pod has been ready for minReady seconds. If it is ready but not for long enough,
// wait says how long is left.
func Available(p *corev1.Pod, minReady int32, now time.Time) (ok bool, wait time.Duration) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReady == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, 0
	}
	left := c.LastTransitionTime.Add(time.Duration(minReady) * time.Second).Sub(now)
	return left <= 0, max(left, 0)
}

// Finished reports whether the pod has run to its end, well or badly.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active reports whether the pod counts as a replica: not finished and not being deleted.
func Active(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp == nil }

// Restarts is the greatest restart count of the pod's restartable containers.
func Restarts(p *corev1.Pod) int32 {
	var n int32
	for i := range p.Status.ContainerStatuses {
		n = max(n, p.Status.ContainerStatuses[i].RestartCount)
	}
	return n
}

// FromTemplate makes a pod of a template: controlled by owner, its name to be generated from the owner's.
func FromTemplate(t *corev1.PodTemplateSpec, owner api.Object, gvk schema.GroupVersionKind) *corev1.Pod {
	t = t.DeepCopy()
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       owner.GetNamespace(),
			GenerateName:    GenerateName(owner.GetName()),
			Labels:          t.Labels,
			Annotations:     t.Annotations,
			Finalizers:      t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, gvk)},
		},
		Spec: t.Spec,
	}
}

// GenerateName is the prefix of the names of what an owner makes: its own name and a dash, if a pod may be called so.
func GenerateName(owner string) string {
	if len(owner) < 250 {
		return owner + "-"
	}
	return owner
}

// Hash names a template's content in 32 bits of FNV-1a, in letters and digits that are safe in names and labels.
// The collision count, when set, varies it.
func Hash(template any, collisions *int32) string {
	h := fnv.New32a()
	data, err := json.Marshal(template)
	if err != nil {
		panic(fmt.Sprintf("a template that came out of JSON goes into JSON: %v", err))
	}
	h.Write(data)
	if collisions != nil {
		fmt.Fprintf(h, "%d", *collisions)
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// SortForDeletion orders pods by how little is lost with them, the first to be deleted first: unassigned before
// assigned, pending before unknown before running, not ready before ready, a lower deletion cost first, more
// neighbours of the same owner on the node first, then ready for a shorter time, restarted more often, younger.
// Related counts the pods of the same kind of owner on each node; nil counts the given pods. Times are compared in
// powers of two, so that pods of about the same age are told apart by UID and the choice is spread.
func SortForDeletion(list []*corev1.Pod, related map[string]int, now time.Time) {
	if related == nil {
		related = map[string]int{}
		for _, p := range list {
			related[p.Spec.NodeName]++
		}
	}
	slices.SortStableFunc(list, func(a, b *corev1.Pod) int { return compareForDeletion(a, b, related, now) })
}

var phaseOrder = map[corev1.PodPhase]int{corev1.PodPending: 0, "": 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}

func compareForDeletion(a, b *corev1.Pod, related map[string]int, now time.Time) int {
	if c := compareBool(a.Spec.NodeName != "", b.Spec.NodeName != ""); c != 0 {
		return c
	}
	if c := phaseOrder[a.Status.Phase] - phaseOrder[b.Status.Phase]; c != 0 {
		return c
	}
	ra, rb := Ready(a), Ready(b)
	if c := compareBool(ra, rb); c != 0 {
		return c
	}
	if ca, cb := deletionCost(a), deletionCost(b); ca != cb {
		return sign(ca, cb)
	}
	if na, nb := related[a.Spec.NodeName], related[b.Spec.NodeName]; na != nb {
		return sign(int64(nb), int64(na))
	}
	if ra && rb {
		ta, tb := Condition(a, corev1.PodReady).LastTransitionTime, Condition(b, corev1.PodReady).LastTransitionTime
		if !ta.Equal(&tb) {
			return compareAge(ta, tb, a, b, now)
		}
	}
	if na, nb := Restarts(a), Restarts(b); na != nb {
		return sign(int64(nb), int64(na))
	}
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return compareAge(a.CreationTimestamp, b.CreationTimestamp, a, b, now)
	}
	return 0
}

// compareAge puts the younger first, where their ages differ by a power of two; else the UIDs decide.
func compareAge(ta, tb metav1.Time, a, b *corev1.Pod, now time.Time) int {
	la, lb := logAge(ta, now), logAge(tb, now)
	if la != lb {
		return sign(int64(la), int64(lb))
	}
	return strings.Compare(string(a.UID), string(b.UID))
}

func logAge(t metav1.Time, now time.Time) int {
	if t.IsZero() {
		return -1
	}
	n := 0
	for d := now.Sub(t.Time); d > 0; d >>= 1 {
		n++
	}
	return n
}

// DeletionCostAnnotation lets a user order the deletion of pods (KEP-2255).
const DeletionCostAnnotation = corev1.PodDeletionCost

func deletionCost(p *corev1.Pod) int64 {
	var n int64
	if s, ok := p.Annotations[DeletionCostAnnotation]; ok {
		if _, err := fmt.Sscanf(s, "%d", &n); err != nil || fmt.Sprint(n) != s {
			return 0
		}
	}
	return n
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func sign(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// SetCondition puts a condition into the list; unchanged status keeps its transition time. It reports a change.
func SetCondition(p *corev1.Pod, c corev1.PodCondition) bool {
	old := Condition(p, c.Type)
	if old == nil {
		p.Status.Conditions = append(p.Status.Conditions, c)
		return true
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	if c.ObservedGeneration == 0 {
		c.ObservedGeneration = old.ObservedGeneration
	}
	if *old == c {
		return false
	}
	*old = c
	return true
}
