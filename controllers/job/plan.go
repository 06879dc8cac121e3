// Package job runs Jobs to completion.
//
// Invariant: every finished pod is counted exactly once. It is first written down by UID in the status
// (uncountedTerminatedPods), then loses its finalizer, and only when it has is it moved into the counters, each write
// conditional on the status that the plan saw. Only controllers/ may import job.
package job

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// Bounds of one plan, and of the delay after failures.
const (
	burst        = 500
	maxUncounted = 500
	backoffFirst = 10 * time.Second
	backoffMost  = 10 * time.Minute
)

// Backoff is the failures in a row since the last success, for one job.
type Backoff struct {
	Failures int
	Last     time.Time
	seen     map[types.UID]bool
}

// until is when the next pod may start.
func (b *Backoff) until() time.Time {
	if b.Failures == 0 {
		return time.Time{}
	}
	d := backoffMost
	if b.Failures < 8 {
		d = min(backoffFirst<<(b.Failures-1), backoffMost)
	}
	return b.Last.Add(d)
}

// Input is all that a plan depends on.
type Input struct {
	Job     *batchv1.Job
	Pods    []*corev1.Pod // those that the job owns
	Backoff *Backoff      // kept between plans; may be changed
	Now     time.Time
}

// Decision is what to do for one job, in this order: Pods, then the status, then Finalizers.
type Decision struct {
	Pods       []plan.Action
	Status     []plan.Action // the status update and the events that go with it
	Finalizers []plan.Action
	Again      time.Duration
}

type planner struct {
	Input
	Decision
	j                   *batchv1.Job // our own copy
	active, terminating []*corev1.Pod
	uncounted           map[types.UID]bool
	indexed, perIndex   bool
	completions         int // -1: any one success
	done, failed        indexes
	failures            int32 // counted and about to be
	successes           int32
	failJob             string // what the failure policy says, or ""
	events              []plan.Action
}

// Plan is the next step of the job.
func Plan(in Input) Decision {
	p := &planner{Input: in, j: in.Job.DeepCopy(), completions: -1, uncounted: map[types.UID]bool{}}
	if p.j.Spec.Completions != nil {
		p.completions = int(*p.j.Spec.Completions)
	}
	p.indexed = ptr.Deref(p.j.Spec.CompletionMode, batchv1.NonIndexedCompletion) == batchv1.IndexedCompletion
	p.perIndex = p.indexed && p.j.Spec.BackoffLimitPerIndex != nil
	if finished(p.j) {
		for _, pod := range p.Input.Pods {
			if tracked(pod) {
				p.Finalizers = append(p.Finalizers, untrack(pod))
			}
		}
		return p.Decision
	}
	p.begin()
	p.count()
	p.decide()
	p.write()
	return p.Decision
}

func condition(j *batchv1.Job, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range j.Status.Conditions {
		if j.Status.Conditions[i].Type == t && j.Status.Conditions[i].Status == corev1.ConditionTrue {
			return &j.Status.Conditions[i]
		}
	}
	return nil
}

func finished(j *batchv1.Job) bool {
	return condition(j, batchv1.JobComplete) != nil || condition(j, batchv1.JobFailed) != nil
}

func (p *planner) suspended() bool { return ptr.Deref(p.j.Spec.Suspend, false) }

func (p *planner) setCondition(t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) bool {
	now := metav1.NewTime(p.Now)
	next := batchv1.JobCondition{Type: t, Status: status, LastProbeTime: now, LastTransitionTime: now, Reason: reason, Message: message}
	for i := range p.j.Status.Conditions {
		if c := &p.j.Status.Conditions[i]; c.Type == t {
			if c.Status == status && c.Reason == reason && c.Message == message {
				return false
			}
			if c.Status == status {
				next.LastTransitionTime = c.LastTransitionTime
			}
			*c = next
			return true
		}
	}
	if status == corev1.ConditionFalse {
		return false // nothing to take back
	}
	p.j.Status.Conditions = append(p.j.Status.Conditions, next)
	return true
}

func (p *planner) begin() {
	if p.j.Status.StartTime == nil && !p.suspended() {
		p.j.Status.StartTime = ptr.To(metav1.NewTime(p.Now))
	}
	if p.j.Status.UncountedTerminatedPods == nil {
		p.j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	limit := max(p.completions, 0)
	p.done = parseIndexes(p.j.Status.CompletedIndexes, limit)
	p.failed = parseIndexes(ptr.Deref(p.j.Status.FailedIndexes, ""), limit)
}

// replaceFailedOnly says that a pod being deleted is replaced only when it is gone.
func (p *planner) replaceFailedOnly() bool {
	return p.j.Spec.PodFailurePolicy != nil || ptr.Deref(p.j.Spec.PodReplacementPolicy, batchv1.TerminatingOrFailed) == batchv1.Failed
}

func (p *planner) hasFailed(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded && !p.replaceFailedOnly()
}

// count moves finished pods one step on: from the pods into the uncounted lists, from there into the counters.
func (p *planner) count() {
	u := p.j.Status.UncountedTerminatedPods
	byUID := map[types.UID]*corev1.Pod{}
	for _, pod := range p.Input.Pods {
		byUID[pod.UID] = pod
	}
	settle := func(list []types.UID, counter *int32) []types.UID {
		return slices.DeleteFunc(list, func(uid types.UID) bool {
			if pod := byUID[uid]; pod != nil && tracked(pod) {
				p.uncounted[uid] = true
				return false
			}
			*counter++
			return true
		})
	}
	u.Succeeded = settle(u.Succeeded, &p.j.Status.Succeeded)
	u.Failed = settle(u.Failed, &p.j.Status.Failed)
	for _, pod := range p.Input.Pods {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			if pod.DeletionTimestamp == nil {
				p.active = append(p.active, pod)
				continue
			}
			p.terminating = append(p.terminating, pod)
		}
		p.countOne(pod, u)
	}
	if p.indexed {
		p.j.Status.Succeeded = int32(len(p.done))
		u.Succeeded = nil
		p.successes = int32(len(p.done))
	} else {
		p.successes = p.j.Status.Succeeded + int32(len(u.Succeeded))
	}
	p.failures = p.j.Status.Failed + int32(len(u.Failed))
}

// countOne writes a newly finished pod down. An untracked one was counted before; one that is written down already
// only loses its finalizer.
func (p *planner) countOne(pod *corev1.Pod, u *batchv1.UncountedTerminatedPods) {
	if !tracked(pod) {
		return
	}
	if p.uncounted[pod.UID] {
		p.Finalizers = append(p.Finalizers, untrack(pod))
		return
	}
	index, ok := indexOf(pod, p.completions)
	switch {
	case p.indexed && !ok:
		p.Finalizers = append(p.Finalizers, untrack(pod)) // belongs to no index of this job
	case len(u.Succeeded)+len(u.Failed) >= maxUncounted:
		p.again(time.Second)
	case pod.Status.Phase == corev1.PodSucceeded:
		p.note(pod, false)
		if p.indexed {
			p.done[index] = true
			delete(p.failed, index)
		} else {
			u.Succeeded = append(u.Succeeded, pod.UID)
		}
		p.Finalizers = append(p.Finalizers, untrack(pod))
	case p.hasFailed(pod):
		p.countFailed(pod, index, u)
	}
}

func (p *planner) countFailed(pod *corev1.Pod, index int, u *batchv1.UncountedTerminatedPods) {
	v := judge(p.j.Spec.PodFailurePolicy, pod)
	if v.action == batchv1.PodFailurePolicyActionFailJob && p.failJob == "" {
		p.failJob = v.message
	}
	if v.action != batchv1.PodFailurePolicyActionIgnore {
		u.Failed = append(u.Failed, pod.UID)
	}
	p.note(pod, true)
	if p.perIndex && !p.done[index] {
		count := annotationInt(pod, batchv1.JobIndexFailureCountAnnotation)
		if v.action == batchv1.PodFailurePolicyActionFailIndex ||
			v.action != batchv1.PodFailurePolicyActionIgnore && count >= int(*p.j.Spec.BackoffLimitPerIndex) {
			p.failed[index] = true
		}
	}
	p.Finalizers = append(p.Finalizers, untrack(pod))
}

// note keeps the row of failures: a success ends it.
func (p *planner) note(pod *corev1.Pod, failed bool) {
	b := p.Backoff
	if b.seen == nil {
		b.seen = map[types.UID]bool{}
	}
	if b.seen[pod.UID] {
		return
	}
	b.seen[pod.UID] = true
	if !failed {
		b.Failures = 0
		return
	}
	b.Failures++
	if at := finishedAt(pod, p.Now); at.After(b.Last) {
		b.Last = at
	}
}

func (p *planner) again(d time.Duration) {
	if d > 0 && (p.Again == 0 || d < p.Again) {
		p.Again = d
	}
}

// failure says why the job has failed, or "".
func (p *planner) failure() (reason, message string) {
	j := p.j
	if c := condition(j, batchv1.JobFailureTarget); c != nil {
		return c.Reason, c.Message
	}
	switch {
	case p.failJob != "":
		return batchv1.JobReasonPodFailurePolicy, p.failJob
	case p.failures > ptr.Deref(j.Spec.BackoffLimit, 6) || p.restartedTooOften():
		return batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"
	case p.pastDeadline():
		return batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"
	case p.perIndex && j.Spec.MaxFailedIndexes != nil && len(p.failed) > int(*j.Spec.MaxFailedIndexes):
		return batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"
	case p.perIndex && len(p.failed) > 0 && len(p.failed)+len(p.done) >= p.completions:
		return batchv1.JobReasonFailedIndexes, "Job has failed indexes"
	}
	return "", ""
}

// restartedTooOften applies the limit to restarts in place, which make no failed pods.
func (p *planner) restartedTooOften() bool {
	if p.j.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	var n int32
	for _, pod := range p.active {
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for _, c := range list {
				n += c.RestartCount
			}
		}
	}
	limit := ptr.Deref(p.j.Spec.BackoffLimit, 6)
	return n > 0 && n >= limit
}

func (p *planner) pastDeadline() bool {
	s := p.j.Spec.ActiveDeadlineSeconds
	if s == nil || p.j.Status.StartTime == nil || p.suspended() {
		return false
	}
	left := p.j.Status.StartTime.Add(time.Duration(*s) * time.Second).Sub(p.Now)
	p.again(left)
	return left <= 0
}

// success says why the job has succeeded, or "".
func (p *planner) success() (reason, message string) {
	if c := condition(p.j, batchv1.JobSuccessCriteriaMet); c != nil {
		return c.Reason, c.Message
	}
	if i, ok := successRule(p.j.Spec.SuccessPolicy, p.done, max(p.completions, 0)); ok && p.indexed {
		return batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", i)
	}
	if p.completions < 0 && p.successes > 0 && len(p.active) == 0 || p.completions >= 0 && int(p.successes) >= p.completions {
		return batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods"
	}
	return "", ""
}

// decide ends the job, suspends it, or keeps it running.
func (p *planner) decide() {
	u := p.j.Status.UncountedTerminatedPods
	settled := len(u.Succeeded)+len(u.Failed) == 0
	if reason, message := p.success(); reason != "" && condition(p.j, batchv1.JobFailureTarget) == nil {
		p.setCondition(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, reason, message)
		p.stop(p.active)
		if settled && len(p.active)+len(p.terminating) == 0 {
			p.setCondition(batchv1.JobComplete, corev1.ConditionTrue, reason, message)
			p.j.Status.CompletionTime = ptr.To(metav1.NewTime(p.Now))
			p.events = append(p.events, plan.Normal(p.Job, "Completed", "Job completed"))
		}
		return
	}
	if reason, message := p.failure(); reason != "" {
		p.setCondition(batchv1.JobFailureTarget, corev1.ConditionTrue, reason, message)
		p.stop(p.active)
		if settled && len(p.active)+len(p.terminating) == 0 {
			p.setCondition(batchv1.JobFailed, corev1.ConditionTrue, reason, message)
			p.events = append(p.events, plan.Warning(p.Job, reason, "%s", message))
		}
		return
	}
	if p.suspended() {
		p.stop(p.active)
		p.j.Status.StartTime = nil
		if p.setCondition(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended") {
			p.events = append(p.events, plan.Normal(p.Job, "Suspended", "Job suspended"))
		}
		return
	}
	if p.setCondition(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed") {
		p.events = append(p.events, plan.Normal(p.Job, "Resumed", "Job resumed"))
		p.j.Status.StartTime = ptr.To(metav1.NewTime(p.Now))
	}
	if p.j.DeletionTimestamp == nil {
		p.manage()
	}
}

// stop deletes pods that are not to count: their finalizer goes first.
func (p *planner) stop(list []*corev1.Pod) {
	for _, pod := range list[:min(burst, len(list))] {
		if tracked(pod) {
			p.Decision.Pods = append(p.Decision.Pods, untrack(pod))
		}
		p.Decision.Pods = append(p.Decision.Pods, plan.Delete{Obj: pod, Report: p.Job, Noun: "pod"})
	}
}

// manage keeps the wanted number of pods running.
func (p *planner) manage() {
	if p.indexed {
		p.dropDuplicates()
	}
	parallelism := int(ptr.Deref(p.j.Spec.Parallelism, 1))
	want := parallelism
	switch {
	case p.completions < 0 && p.successes > 0:
		want = min(len(p.active), parallelism)
	case p.completions >= 0:
		want = min(parallelism, max(p.completions-int(p.successes)-len(p.failed), 0))
	}
	if excess := len(p.active) - want; excess > 0 {
		p.shrink(excess)
		return
	}
	missing := want - len(p.active)
	if p.replaceFailedOnly() {
		missing -= len(p.terminating)
	}
	if missing <= 0 {
		return
	}
	if left := p.Backoff.until().Sub(p.Now); left > 0 && !p.perIndex {
		p.again(left)
		return
	}
	p.grow(min(missing, burst))
}

func (p *planner) shrink(excess int) {
	list := slices.Clone(p.active)
	if p.indexed {
		slices.SortStableFunc(list, func(a, b *corev1.Pod) int {
			ia, _ := indexOf(a, p.completions)
			ib, _ := indexOf(b, p.completions)
			return cmp.Compare(ib, ia)
		})
	} else {
		pods.SortForDeletion(list, nil, p.Now)
	}
	p.stop(list[:excess])
	p.active = slices.DeleteFunc(p.active, func(pod *corev1.Pod) bool { return slices.Contains(list[:excess], pod) })
}

// dropDuplicates deletes pods of no index, of a finished one, and all but the oldest of the same.
func (p *planner) dropDuplicates() {
	slices.SortStableFunc(p.active, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	seen := indexes{}
	var extra, keep []*corev1.Pod
	for _, pod := range p.active {
		i, ok := indexOf(pod, p.completions)
		if !ok || seen[i] || p.done[i] || p.failed[i] {
			extra = append(extra, pod)
			continue
		}
		seen[i] = true
		keep = append(keep, pod)
	}
	p.stop(extra)
	p.active = keep
}

func (p *planner) grow(n int) {
	create := func(pod *corev1.Pod) {
		p.Decision.Pods = append(p.Decision.Pods, plan.Create{Obj: pod, Report: p.Job, Noun: "pod"})
	}
	if !p.indexed {
		for range n {
			create(newPod(p.j, -1, nil, nil))
		}
		return
	}
	busy := indexes{}
	for _, pod := range p.active {
		if i, ok := indexOf(pod, p.completions); ok {
			busy[i] = true
		}
	}
	if p.replaceFailedOnly() {
		for _, pod := range p.terminating {
			if i, ok := indexOf(pod, p.completions); ok {
				busy[i] = true
			}
		}
	}
	for i := 0; i < p.completions && n > 0; i++ {
		if busy[i] || p.done[i] || p.failed[i] {
			continue
		}
		if !p.perIndex {
			create(newPod(p.j, i, nil, nil))
			n--
			continue
		}
		failures, ignored, at := p.history(i)
		if left := (&Backoff{Failures: failures + ignored, Last: at}).until().Sub(p.Now); left > 0 {
			p.again(left)
			continue
		}
		create(newPod(p.j, i, &failures, &ignored))
		n--
	}
}

// history counts an index's failures from its pods, each of which carries the count before it.
func (p *planner) history(index int) (failures, ignored int, last time.Time) {
	for _, pod := range p.Input.Pods {
		if i, ok := indexOf(pod, p.completions); !ok || i != index || !p.hasFailed(pod) {
			continue
		}
		f, g := annotationInt(pod, batchv1.JobIndexFailureCountAnnotation), annotationInt(pod, batchv1.JobIndexIgnoredFailureCountAnnotation)
		if judge(p.j.Spec.PodFailurePolicy, pod).action == batchv1.PodFailurePolicyActionIgnore {
			g++
		} else {
			f++
		}
		if f+g > failures+ignored {
			failures, ignored, last = f, g, finishedAt(pod, p.Now)
		}
	}
	return failures, ignored, last
}

// write completes the status and plans its update if it changed.
func (p *planner) write() {
	s := &p.j.Status
	s.Active = int32(len(p.active))
	if finished(p.j) || p.suspended() {
		s.Active = int32(len(p.active)) - stopped(p.Decision.Pods)
	}
	ready := int32(0)
	for _, pod := range p.active {
		if pods.Ready(pod) {
			ready++
		}
	}
	s.Ready = &ready
	s.Terminating = ptr.To(int32(len(p.terminating)))
	if p.indexed {
		s.CompletedIndexes = p.done.String()
		if p.perIndex {
			s.FailedIndexes = ptr.To(p.failed.String())
		}
	}
	if finished(p.j) {
		s.Active, s.Ready = 0, ptr.To[int32](0)
	}
	if !equality.Semantic.DeepEqual(p.Job.Status, *s) {
		p.Decision.Status = append(p.Decision.Status, plan.Status(p.j))
	}
	p.Decision.Status = append(p.Decision.Status, p.events...)
}

func stopped(actions []plan.Action) (n int32) {
	for _, a := range actions {
		if _, ok := a.(plan.Delete); ok {
			n++
		}
	}
	return n
}
