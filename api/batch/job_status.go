package batch

import (
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

// The functions here judge what a job's controller writes, Skiff's own or another (KEP-4368): a job that has ended has
// ended, what is counted stays counted, and the conditions come in their order. What a status had wrong before may stay.

func has(s *batchv1.JobStatus, t batchv1.JobConditionType) bool {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func validateJobStatus(x, old *batchv1.Job) field.ErrorList {
	s, path := &x.Status, field.NewPath("status")
	errs := core.Counts(path, core.Count{Field: "active", N: int64(s.Active)}, core.Count{Field: "succeeded", N: int64(s.Succeeded)}, core.Count{Field: "failed", N: int64(s.Failed)})
	if s.Ready != nil {
		errs = append(errs, core.Counts(path, core.Count{Field: "ready", N: int64(*s.Ready)})...)
	}
	if s.Terminating != nil {
		errs = append(errs, core.Counts(path, core.Count{Field: "terminating", N: int64(*s.Terminating)})...)
	}
	errs = append(errs, validateUncounted(path.Child("uncountedTerminatedPods"), s.UncountedTerminatedPods)...)
	errs = append(errs, validateEnd(path, s, &old.Status)...)
	errs = append(errs, validateIndexes(path, x, old)...)
	if changed := !equality.Semantic.DeepEqual(s.Ready, old.Status.Ready) || s.Active != old.Status.Active; changed && s.Ready != nil && *s.Ready > s.Active {
		errs = append(errs, field.Invalid(path.Child("ready"), *s.Ready, "cannot set more ready pods than active"))
	}
	return append(errs, validateProgress(path, x, &old.Status)...)
}

func validateUncounted(path *field.Path, u *batchv1.UncountedTerminatedPods) field.ErrorList {
	if u == nil {
		return nil
	}
	var errs field.ErrorList
	known := map[types.UID]bool{}
	for _, l := range []struct {
		name string
		uids []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, uid := range l.uids {
			at := path.Child(l.name).Index(i)
			switch {
			case uid == "":
				errs = append(errs, field.Invalid(at, uid, "must not be empty"))
			case known[uid]:
				errs = append(errs, field.Duplicate(at, uid))
			}
			known[uid] = true
		}
	}
	return errs
}

// validateEnd checks that times and conditions agree about a job's end.
func validateEnd(path *field.Path, s, was *batchv1.JobStatus) field.ErrorList {
	var errs field.ErrorList
	conditions := path.Child("conditions")
	refuse := func(text string) { errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, text)) }
	complete, failed := has(s, batchv1.JobComplete), has(s, batchv1.JobFailed)
	ended := complete || failed
	endedNow := ended && !(has(was, batchv1.JobComplete) || has(was, batchv1.JobFailed))
	if endedNow || ended && s.Active != was.Active {
		if s.Active > 0 {
			errs = append(errs, field.Invalid(path.Child("active"), s.Active, "active>0 is invalid for finished job"))
		}
	}
	if ended && s.Terminating != nil && *s.Terminating > 0 && (endedNow || !equality.Semantic.DeepEqual(s.Terminating, was.Terminating)) {
		errs = append(errs, field.Invalid(path.Child("terminating"), *s.Terminating, "terminating>0 is invalid for finished job"))
	}
	startChanged, endChanged := !s.StartTime.Equal(was.StartTime), !s.CompletionTime.Equal(was.CompletionTime)
	if ended && s.StartTime == nil && (endedNow || startChanged) {
		errs = append(errs, field.Required(path.Child("startTime"), "startTime is required for finished job"))
	}
	if completeChanged := complete != has(was, batchv1.JobComplete); completeChanged || endChanged {
		switch at := path.Child("completionTime"); {
		case s.CompletionTime != nil && !complete:
			errs = append(errs, field.Invalid(at, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
		case s.CompletionTime == nil && complete:
			errs = append(errs, field.Required(at, "completionTime is required for Complete jobs"))
		}
	}
	if s.CompletionTime != nil && s.StartTime != nil && s.CompletionTime.Before(s.StartTime) && (startChanged || endChanged) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if equality.Semantic.DeepEqual(s.Conditions, was.Conditions) {
		return errs
	}
	target, met := has(s, batchv1.JobFailureTarget), has(s, batchv1.JobSuccessCriteriaMet)
	if failed && !target {
		refuse("cannot set Failed=True condition without the FailureTarget=true condition")
	}
	if complete && !met {
		refuse("cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	}
	if complete && failed {
		refuse("cannot set Complete=True and Failed=true conditions")
	}
	if complete && target {
		refuse("cannot set Complete=True and FailureTarget=true conditions")
	}
	if met && failed {
		refuse("cannot set Failed=True and SuccessCriteriaMet=true conditions")
	}
	if met && target {
		refuse("cannot set FailureTarget=True and SuccessCriteriaMet=true conditions")
	}
	return errs
}

func validateIndexes(path *field.Path, x, old *batchv1.Job) field.ErrorList {
	var errs field.ErrorList
	s := &x.Status
	completions := int32(0)
	if x.Spec.Completions != nil {
		completions = *x.Spec.Completions
	}
	if at := path.Child("completedIndexes"); s.CompletedIndexes != old.Status.CompletedIndexes && s.CompletedIndexes != "" {
		if !indexed(&x.Spec) {
			errs = append(errs, field.Invalid(at, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
		}
		if _, err := countIndexes(s.CompletedIndexes, completions); err != nil {
			errs = append(errs, field.Invalid(at, s.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err)))
		}
	}
	if at := path.Child("failedIndexes"); s.FailedIndexes != nil && !equality.Semantic.DeepEqual(s.FailedIndexes, old.Status.FailedIndexes) {
		if x.Spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(at, *s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"))
		}
		if _, err := countIndexes(*s.FailedIndexes, completions); err != nil {
			errs = append(errs, field.Invalid(at, *s.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err)))
		}
	}
	return errs
}

// validateProgress checks that nothing is taken back.
func validateProgress(path *field.Path, x *batchv1.Job, was *batchv1.JobStatus) field.ErrorList {
	var errs field.ErrorList
	s, conditions := &x.Status, path.Child("conditions")
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget} {
		if has(was, t) && !has(s, t) {
			errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	for _, n := range []struct {
		name     string
		now, was int32
	}{{"failed", s.Failed, was.Failed}, {"succeeded", s.Succeeded, was.Succeeded}} {
		if n.now < n.was {
			errs = append(errs, field.Invalid(path.Child(n.name), n.now, fmt.Sprintf("cannot decrease the %s counter", n.name)))
		}
	}
	if running := x.Spec.Suspend == nil || !*x.Spec.Suspend; running && was.StartTime != nil && !s.StartTime.Equal(was.StartTime) {
		errs = append(errs, field.Invalid(path.Child("startTime"), s.StartTime, "field is immutable for unsuspended job once set"))
	}
	if was.CompletionTime != nil && s.CompletionTime != nil && !s.CompletionTime.Truncate(time.Second).Equal(was.CompletionTime.Truncate(time.Second)) {
		errs = append(errs, field.Invalid(path.Child("completionTime"), s.CompletionTime, "field is immutable"))
	}
	if has(was, batchv1.JobSuccessCriteriaMet) && !has(s, batchv1.JobSuccessCriteriaMet) {
		errs = append(errs, field.Invalid(conditions, field.OmitValueType{}, "cannot disable the SuccessCriteriaMet=True condition"))
	}
	return errs
}
