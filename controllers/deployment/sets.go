package deployment

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// Annotations of sets and Deployments.
const (
	// RevisionAnnotation numbers the rollouts of a Deployment, on it and on its sets.
	RevisionAnnotation        = "deployment.kubernetes.io/revision"
	revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	// revisionHistoryBytes bounds the annotation; the oldest revisions are dropped.
	revisionHistoryBytes = 2000
)

// notInherited are annotations of a Deployment that its sets do not take over.
var notInherited = []string{
	corev1.LastAppliedConfigAnnotation, RevisionAnnotation, revisionHistoryAnnotation,
	desiredAnnotation, maxAnnotation, appsv1.DeprecatedRollbackTo,
}

func revision(o metav1.Object) int64 {
	n, _ := strconv.ParseInt(o.GetAnnotations()[RevisionAnnotation], 10, 64)
	return n
}

// syncNew brings the new set's metadata up to date, or makes the set. It reports whether the plan ends here because
// the Deployment itself or its new set is being changed.
func (r *rollout) syncNew(create bool) bool {
	next := int64(1)
	for _, rs := range r.old {
		next = max(next, revision(rs)+1)
	}
	switch {
	case r.new != nil:
		return r.syncExisting(next)
	case create:
		r.make(next)
		return true
	}
	return false
}

func (r *rollout) syncExisting(next int64) bool {
	rs := r.new.DeepCopy()
	changed := r.inherit(rs)
	if now := revision(rs); now < next {
		rs.Annotations[RevisionAnnotation] = strconv.FormatInt(next, 10)
		if now > 0 {
			rs.Annotations[revisionHistoryAnnotation] = appendHistory(rs.Annotations[revisionHistoryAnnotation], now)
		}
		changed = true
	}
	if rs.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		rs.Spec.MinReadySeconds, changed = r.d.Spec.MinReadySeconds, true
	}
	if changed {
		r.actions = append(r.actions, plan.Update{Obj: rs})
		return true
	}
	if r.number(rs) {
		return true
	}
	if r.hasDeadline() && condition(&r.d.Status, appsv1.DeploymentProgressing) == nil {
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet", "Found new replica set %q", rs.Name)
		r.writeStatus()
		return true
	}
	return false
}

// number writes the new set's revision on the Deployment.
func (r *rollout) number(rs *appsv1.ReplicaSet) bool {
	if r.d.Annotations[RevisionAnnotation] == rs.Annotations[RevisionAnnotation] {
		return false
	}
	d := r.Deployment.DeepCopy()
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[RevisionAnnotation] = rs.Annotations[RevisionAnnotation]
	r.actions = append(r.actions, plan.Update{Obj: d})
	return true
}

// inherit copies the Deployment's annotations to the set.
func (r *rollout) inherit(rs *appsv1.ReplicaSet) (changed bool) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range r.d.Annotations {
		if !slices.Contains(notInherited, k) && rs.Annotations[k] != v {
			rs.Annotations[k], changed = v, true
		}
	}
	return changed
}

func appendHistory(history string, n int64) string {
	s := strconv.FormatInt(n, 10)
	if history == "" {
		return s
	}
	all := append(strings.Split(history, ","), s)
	for len(strings.Join(all, ",")) > revisionHistoryBytes {
		all = all[1:]
	}
	return strings.Join(all, ",")
}

// make creates the set for the Deployment's template. A name that a stranger has taken counts as a hash collision:
// the next attempt hashes differently.
func (r *rollout) make(next int64) {
	rs := r.newSet(next)
	if other, taken := r.Named(rs.Name); taken && !r.ours(other) {
		r.d.Status.CollisionCount = ptr.To(ptr.Deref(r.d.Status.CollisionCount, 0) + 1)
		r.writeStatus()
		return
	}
	r.actions = append(r.actions, plan.Create{Obj: rs, IfMissing: true})
	if n := want(rs); n > 0 {
		r.actions = append(r.actions, plan.Normal(r.Deployment, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, n))
	}
	if r.hasDeadline() {
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated", "Created new replica set %q", rs.Name)
	}
	r.status()
}

func (r *rollout) ours(rs *appsv1.ReplicaSet) bool {
	return metav1.IsControlledBy(rs, r.d) && SameTemplate(&rs.Spec.Template, &r.d.Spec.Template)
}

func (r *rollout) newSet(next int64) *appsv1.ReplicaSet {
	d := r.d
	template := *d.Spec.Template.DeepCopy()
	hash := pods.Hash(&d.Spec.Template, d.Status.CollisionCount)
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To(r.newSize(0)), MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	r.inherit(rs)
	annotateSize(rs, r.replicas, r.replicas+r.surge)
	rs.Annotations[RevisionAnnotation] = strconv.FormatInt(next, 10)
	return rs
}

func with(m map[string]string, k, v string) map[string]string {
	out := make(map[string]string, len(m)+1)
	maps.Copy(out, m)
	out[k] = v
	return out
}
