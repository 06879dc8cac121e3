// Package deployment rolls a Deployment's pod template out through ReplicaSets.
//
// Invariant: during a rolling update the wanted replicas of all sets together never exceed replicas + maxSurge, and
// no set is scaled down so far that fewer than replicas - maxUnavailable pods could be available. Only controllers/
// may import deployment.
package deployment

import (
	"cmp"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// Input is all that a plan depends on.
type Input struct {
	Deployment *appsv1.Deployment
	Sets       []*appsv1.ReplicaSet // those that the deployment owns
	// Named finds any set of the namespace by name: a name may be taken by a stranger.
	Named func(name string) (*appsv1.ReplicaSet, bool)
	// Pods are the pods that a set controls; asked for by the strategy Recreate.
	Pods func(*appsv1.ReplicaSet) []*corev1.Pod
	Now  time.Time
}

// rollout is one plan in the making.
type rollout struct {
	Input
	d        *appsv1.Deployment // our own copy
	new      *appsv1.ReplicaSet // nil: not made yet
	old      []*appsv1.ReplicaSet
	actions  []plan.Action
	replicas int32
	surge    int32 // pods above replicas
	missing  int32 // maxUnavailable, resolved
}

// Plan is the next step of the rollout, and when to look again if nothing happens (0: no need). A step that changes
// the Deployment or a set ends the plan; the change itself brings the next one.
func Plan(in Input) (actions []plan.Action, again time.Duration) {
	r := newRollout(in)
	switch {
	case equality.Semantic.DeepEqual(in.Deployment.Spec.Selector, &metav1.LabelSelector{}):
		r.actions = append(r.actions, plan.Warning(in.Deployment, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required."))
		r.d.Status.ObservedGeneration = r.d.Generation
		r.writeStatus()
	case in.Deployment.DeletionTimestamp != nil:
		r.status()
	case r.pauseChanged():
		r.writeStatus()
	case r.d.Spec.Paused:
		r.step(false, r.scale, r.cleanup)
	case r.resized():
		r.step(false, r.scale)
	case r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		r.recreate()
	default:
		r.step(true, r.growNew, r.shrinkOld, r.finish)
	}
	return r.actions, r.stuckAfter()
}

func newRollout(in Input) *rollout {
	r := &rollout{Input: in, d: in.Deployment.DeepCopy()}
	r.replicas = ptr.Deref(r.d.Spec.Replicas, 1)
	r.surge, r.missing = Limits(r.d)
	sets := slices.Clone(in.Sets)
	slices.SortFunc(sets, byAge)
	for _, rs := range sets {
		if r.new == nil && SameTemplate(&rs.Spec.Template, &r.d.Spec.Template) {
			r.new = rs
		} else {
			r.old = append(r.old, rs)
		}
	}
	return r
}

// Limits resolves maxSurge and maxUnavailable to pods. Percentages round up for the surge and down for the
// unavailable; if both come to zero one pod may be unavailable, or nothing could ever move.
func Limits(d *appsv1.Deployment) (surge, unavailable int32) {
	ru := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || ru == nil {
		return 0, 0
	}
	replicas := int(ptr.Deref(d.Spec.Replicas, 1))
	s, _ := intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(ru.MaxSurge, intstr.FromInt32(0))), replicas, true)
	u, _ := intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(ru.MaxUnavailable, intstr.FromInt32(0))), replicas, false)
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), int32(min(u, replicas))
}

// SameTemplate compares two pod templates without the label that names a template's hash.
func SameTemplate(a, b *corev1.PodTemplateSpec) bool {
	x, y := *a, *b
	x.Labels, y.Labels = withoutHash(a.Labels), withoutHash(b.Labels)
	return equality.Semantic.DeepEqual(&x, &y)
}

func withoutHash(labels map[string]string) map[string]string {
	if _, ok := labels[appsv1.DefaultDeploymentUniqueLabelKey]; !ok {
		return labels
	}
	labels = maps.Clone(labels)
	delete(labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return labels
}

func byAge(a, b *appsv1.ReplicaSet) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	return cmp.Compare(a.Name, b.Name)
}

// step brings the sets' metadata up to date, making the new set if create says so, then does the first of the parts
// that has something to do, and tells the status.
func (r *rollout) step(create bool, parts ...func() bool) {
	if r.syncNew(create) {
		return
	}
	for _, part := range parts {
		if part() {
			break
		}
	}
	r.status()
}

// all is every set, the new one last.
func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.new == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.new)
}

func want(rs *appsv1.ReplicaSet) int32 { return ptr.Deref(rs.Spec.Replicas, 1) }

func total(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += want(rs)
	}
	return n
}

func available(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += rs.Status.AvailableReplicas
	}
	return n
}

// surelyAvailable counts a set's available pods without those that it has been told to delete but still reports.
func surelyAvailable(rs *appsv1.ReplicaSet) int32 { return min(rs.Status.AvailableReplicas, want(rs)) }

// present counts the pods that are or will be there: those that a set was told to delete but has not count too.
func present(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += max(want(rs), rs.Status.Replicas)
	}
	return n
}

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(sets), func(rs *appsv1.ReplicaSet) bool { return want(rs) == 0 })
}

// set scales a replica set and notes in it what it was scaled for. It reports whether anything changes.
func (r *rollout) set(rs *appsv1.ReplicaSet, n int32) bool {
	from := want(rs)
	rs = rs.DeepCopy()
	changed := annotateSize(rs, r.replicas, r.replicas+r.surge)
	if from == n && !changed {
		return false
	}
	rs.Spec.Replicas = &n
	r.actions = append(r.actions, plan.Update{Obj: rs})
	if from != n {
		verb := "up"
		if n < from {
			verb = "down"
		}
		r.actions = append(r.actions, plan.Normal(r.Deployment, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", verb, rs.Name, from, n))
	}
	return true
}

// newSize is how many replicas the new set may have now.
func (r *rollout) newSize(current int32) int32 {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return r.replicas
	}
	room := r.replicas + r.surge - present(r.all())
	if room <= 0 {
		return current
	}
	return current + min(room, r.replicas-current)
}

// growNew gives the new set as many replicas as the surge allows.
func (r *rollout) growNew() bool {
	n := want(r.new)
	switch {
	case n == r.replicas:
		return false
	case n > r.replicas:
		return r.set(r.new, r.replicas)
	}
	next := r.newSize(n)
	return next != n && r.set(r.new, next)
}

// shrinkOld takes replicas from the old sets: first those that are not available anyway, then as many as may be
// missing.
func (r *rollout) shrinkOld() bool {
	old := active(r.old)
	if len(old) == 0 {
		return false
	}
	floor := r.replicas - r.missing
	spare := total(r.all()) - floor - (want(r.new) - surelyAvailable(r.new))
	if spare <= 0 {
		return false
	}
	sizes := make([]int32, len(old))
	var cleaned int32
	for i, rs := range old {
		sizes[i] = want(rs)
		if n := min(spare-cleaned, sizes[i]-surelyAvailable(rs)); n > 0 {
			sizes[i] -= n
			cleaned += n
		}
	}
	room := -floor
	for _, rs := range r.all() {
		room += surelyAvailable(rs)
	}
	room = min(room, spare-cleaned)
	for i := range old {
		if n := min(room, sizes[i]); n > 0 {
			sizes[i] -= n
			room -= n
		}
	}
	changed := false
	for i, rs := range old {
		if sizes[i] != want(rs) {
			changed = r.set(rs, sizes[i]) || changed
		}
	}
	return changed
}

// recreate ends all old pods before it makes new ones.
func (r *rollout) recreate() {
	if r.syncNew(false) {
		return
	}
	scaled := false
	for _, rs := range active(r.old) {
		scaled = r.set(rs, 0) || scaled
	}
	if scaled || r.oldPodsLive() {
		r.status()
		return
	}
	r.step(true, func() bool { return want(r.new) != r.replicas && r.set(r.new, r.replicas) }, r.finish)
}

func (r *rollout) oldPodsLive() bool {
	for _, rs := range r.old {
		if slices.ContainsFunc(r.Pods(rs), func(p *corev1.Pod) bool { return !pods.Finished(p) }) {
			return true
		}
	}
	return false
}

// finish removes history once the rollout is complete.
func (r *rollout) finish() bool { return r.complete(r.d.Status) && r.cleanup() }

// cleanup deletes the oldest empty sets beyond revisionHistoryLimit.
func (r *rollout) cleanup() bool {
	if r.d.Spec.RevisionHistoryLimit == nil {
		return false
	}
	old := slices.DeleteFunc(slices.Clone(r.old), func(rs *appsv1.ReplicaSet) bool { return rs.DeletionTimestamp != nil })
	excess := len(old) - int(*r.d.Spec.RevisionHistoryLimit)
	if excess <= 0 {
		return false
	}
	slices.SortStableFunc(old, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	for _, rs := range old[:excess] {
		if rs.Status.Replicas == 0 && want(rs) == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			r.actions = append(r.actions, plan.Delete{Obj: rs, Propagation: ptr.To(metav1.DeletePropagationBackground)})
		}
	}
	return true
}
