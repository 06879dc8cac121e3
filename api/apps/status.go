package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

// This file judges the statuses that controllers write.

func validateDeploymentStatus(x, old *appsv1.Deployment) field.ErrorList {
	s, path := &x.Status, field.NewPath("status")
	errs := core.Counts(path, core.Count{Field: "observedGeneration", N: s.ObservedGeneration}, core.Count{Field: "replicas", N: int64(s.Replicas)},
		core.Count{Field: "updatedReplicas", N: int64(s.UpdatedReplicas)}, core.Count{Field: "readyReplicas", N: int64(s.ReadyReplicas)},
		core.Count{Field: "availableReplicas", N: int64(s.AvailableReplicas)}, core.Count{Field: "unavailableReplicas", N: int64(s.UnavailableReplicas)})
	if t := s.TerminatingReplicas; t != nil {
		errs = append(errs, core.Counts(path, core.Count{Field: "terminatingReplicas", N: int64(*t)})...)
	}
	errs = append(errs, core.AtMost(path.Child("updatedReplicas"), s.UpdatedReplicas, s.Replicas, "status.replicas")...)
	errs = append(errs, core.AtMost(path.Child("readyReplicas"), s.ReadyReplicas, s.Replicas, "status.replicas")...)
	errs = append(errs, core.AtMost(path.Child("availableReplicas"), s.AvailableReplicas, s.Replicas, "status.replicas")...)
	errs = append(errs, core.AtMost(path.Child("availableReplicas"), s.AvailableReplicas, s.ReadyReplicas, "readyReplicas")...)
	return append(errs, core.NotDecremented(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)...)
}

func validateReplicaSetStatus(x, _ *appsv1.ReplicaSet) field.ErrorList {
	s := &x.Status
	return core.ReplicaCounts(field.NewPath("status"), s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, s.TerminatingReplicas, s.ObservedGeneration)
}

func validateDaemonSetStatus(x, old *appsv1.DaemonSet) field.ErrorList {
	s, path := &x.Status, field.NewPath("status")
	errs := core.Counts(path, core.Count{Field: "currentNumberScheduled", N: int64(s.CurrentNumberScheduled)},
		core.Count{Field: "numberMisscheduled", N: int64(s.NumberMisscheduled)}, core.Count{Field: "desiredNumberScheduled", N: int64(s.DesiredNumberScheduled)},
		core.Count{Field: "numberReady", N: int64(s.NumberReady)}, core.Count{Field: "observedGeneration", N: s.ObservedGeneration},
		core.Count{Field: "updatedNumberScheduled", N: int64(s.UpdatedNumberScheduled)}, core.Count{Field: "numberAvailable", N: int64(s.NumberAvailable)},
		core.Count{Field: "numberUnavailable", N: int64(s.NumberUnavailable)})
	return append(errs, core.NotDecremented(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)...)
}

func validateStatefulSetStatus(x, old *appsv1.StatefulSet) field.ErrorList {
	s, path := &x.Status, field.NewPath("status")
	errs := core.Counts(path, core.Count{Field: "replicas", N: int64(s.Replicas)}, core.Count{Field: "readyReplicas", N: int64(s.ReadyReplicas)},
		core.Count{Field: "currentReplicas", N: int64(s.CurrentReplicas)}, core.Count{Field: "updatedReplicas", N: int64(s.UpdatedReplicas)},
		core.Count{Field: "availableReplicas", N: int64(s.AvailableReplicas)}, core.Count{Field: "observedGeneration", N: s.ObservedGeneration})
	errs = append(errs, core.NotDecremented(path.Child("collisionCount"), s.CollisionCount, old.Status.CollisionCount)...)
	errs = append(errs, core.AtMost(path.Child("readyReplicas"), s.ReadyReplicas, s.Replicas, "status.replicas")...)
	errs = append(errs, core.AtMost(path.Child("currentReplicas"), s.CurrentReplicas, s.Replicas, "status.replicas")...)
	errs = append(errs, core.AtMost(path.Child("updatedReplicas"), s.UpdatedReplicas, s.Replicas, "status.replicas")...)
	errs = append(errs, core.AtMost(path.Child("availableReplicas"), s.AvailableReplicas, s.Replicas, "status.replicas")...)
	return append(errs, core.AtMost(path.Child("availableReplicas"), s.AvailableReplicas, s.ReadyReplicas, "status.readyReplicas")...)
}
