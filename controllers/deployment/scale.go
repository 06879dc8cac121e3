package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
)

// Annotations that say for which size of the Deployment a set was last scaled.
const (
	desiredAnnotation = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation     = "deployment.kubernetes.io/max-replicas"
)

func annotateSize(rs *appsv1.ReplicaSet, desired, most int32) (changed bool) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, n := range map[string]int32{desiredAnnotation: desired, maxAnnotation: most} {
		if s := strconv.Itoa(int(n)); rs.Annotations[k] != s {
			rs.Annotations[k], changed = s, true
		}
	}
	return changed
}

func sizeAnnotation(rs *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[key], 10, 32)
	return int32(n), err == nil
}

// resized reports whether the Deployment's size has changed since its active sets were last scaled.
func (r *rollout) resized() bool {
	return slices.ContainsFunc(active(r.all()), func(rs *appsv1.ReplicaSet) bool {
		n, ok := sizeAnnotation(rs, desiredAnnotation)
		return ok && n != r.replicas
	})
}

// scale brings a new size to the sets without moving the rollout on: all of it to the only active set, or else to
// each in proportion.
func (r *rollout) scale() bool {
	if rs := r.activeOrLatest(); rs != nil {
		return want(rs) != r.replicas && r.set(rs, r.replicas) || r.note(rs)
	}
	if r.saturated() {
		changed := false
		for _, rs := range active(r.old) {
			changed = r.set(rs, 0) || changed
		}
		return changed
	}
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	return r.proportional()
}

// note records the size for which the set is already right, or it would look resized for ever.
func (r *rollout) note(rs *appsv1.ReplicaSet) bool {
	if _, ok := sizeAnnotation(rs, desiredAnnotation); !ok {
		return false
	}
	return r.set(rs, want(rs))
}

func (r *rollout) activeOrLatest() *appsv1.ReplicaSet {
	switch act := active(r.all()); {
	case len(act) == 1:
		return act[0]
	case len(act) > 1:
		return nil
	case r.new != nil:
		return r.new
	case len(r.old) > 0:
		return r.old[len(r.old)-1]
	}
	return nil
}

// saturated reports whether the new set carries the whole Deployment.
func (r *rollout) saturated() bool {
	if r.new == nil {
		return false
	}
	n, ok := sizeAnnotation(r.new, desiredAnnotation)
	return ok && n == r.replicas && want(r.new) == r.replicas && r.new.Status.AvailableReplicas == r.replicas
}

// proportional spreads the difference to replicas + maxSurge over the active sets by their size, what rounding
// leaves to the largest. Growth favours the newer of two sets of a size, shrinking takes from the older first.
func (r *rollout) proportional() bool {
	sets := active(r.all())
	var most int32
	if r.replicas > 0 {
		most = r.replicas + r.surge
	}
	rest := most - total(sets)
	slices.SortStableFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		if c := cmp.Compare(want(b), want(a)); c != 0 {
			return c
		}
		if rest > 0 {
			return byAge(b, a)
		}
		return byAge(a, b)
	})
	sizes := make([]int32, len(sets))
	for i, rs := range sets {
		sizes[i] = want(rs)
		part := clampToward(r.share(rs, most), rest)
		sizes[i] += part
		rest -= part
	}
	sizes[0] = max(sizes[0]+rest, 0)
	changed := false
	for i, rs := range sets {
		changed = r.set(rs, sizes[i]) || changed
	}
	return changed
}

// share is by how much a set should grow when the whole goes from what it was scaled for to most.
func (r *rollout) share(rs *appsv1.ReplicaSet, most int32) int32 {
	if r.replicas == 0 {
		return -want(rs)
	}
	before, ok := sizeAnnotation(rs, maxAnnotation)
	if !ok || before == 0 {
		before = r.Deployment.Status.Replicas
	}
	if before == 0 {
		return 0
	}
	return int32(math.Round(float64(want(rs))*float64(most)/float64(before))) - want(rs)
}

// clampToward limits a part to what rest leaves, in rest's direction.
func clampToward(part, rest int32) int32 {
	if rest >= 0 {
		return min(max(part, 0), rest)
	}
	return max(min(part, 0), rest)
}
