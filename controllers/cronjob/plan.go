// Package cronjob starts Jobs by the clock.
//
// Invariant: for one scheduled time at most one Job exists, because the Job's name is made of that time. Only
// controllers/ may import cronjob.
package cronjob

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var kind = batchv1.SchemeGroupVersion.WithKind("CronJob")

const (
	// tooMany missed times are worth a warning: the clock may be wrong, or the controller was away for long.
	tooMany = 100
	// slack is added to the wait for the next time, so that it has certainly come.
	slack = 100 * time.Millisecond
)

// Decision is what to do for one CronJob.
type Decision struct {
	Actions []plan.Action
	Again   time.Duration // until the next scheduled time; 0: none
}

type planner struct {
	cj      *batchv1.CronJob // our own copy
	about   *batchv1.CronJob
	jobs    []*batchv1.Job
	now     time.Time
	actions []plan.Action
}

// Plan compares the CronJob with the Jobs that it owns and with the clock.
func Plan(cj *batchv1.CronJob, jobs []*batchv1.Job, now time.Time) Decision {
	p := &planner{cj: cj.DeepCopy(), about: cj, jobs: jobs, now: now}
	p.follow()
	p.trim()
	again := time.Duration(0)
	if cj.DeletionTimestamp == nil && !ptr.Deref(cj.Spec.Suspend, false) {
		again = p.schedule()
	}
	if !equality.Semantic.DeepEqual(cj.Status, p.cj.Status) {
		p.actions = append(p.actions, plan.Status(p.cj))
	}
	return Decision{p.actions, again}
}

// outcome is the condition that ended the Job, or "".
func outcome(j *batchv1.Job) batchv1.JobConditionType {
	for _, c := range j.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.Type
		}
	}
	return ""
}

// follow keeps the list of active Jobs true.
func (p *planner) follow() {
	byUID := map[types.UID]*batchv1.Job{}
	for _, j := range p.jobs {
		byUID[j.UID] = j
	}
	s := &p.cj.Status
	s.Active = slices.DeleteFunc(s.Active, func(r corev1.ObjectReference) bool {
		j, ok := byUID[r.UID]
		if !ok {
			p.actions = append(p.actions, plan.Normal(p.about, "MissingJob", "Active job went missing: %v", r.Name))
			return true
		}
		end := outcome(j)
		if end == "" {
			return false
		}
		p.actions = append(p.actions, plan.Normal(p.about, "SawCompletedJob", "Saw completed job: %s, condition: %v", j.Name, end))
		return true
	})
	for _, j := range p.jobs {
		if outcome(j) == batchv1.JobComplete && j.Status.CompletionTime != nil &&
			(s.LastSuccessfulTime == nil || j.Status.CompletionTime.After(s.LastSuccessfulTime.Time)) {
			s.LastSuccessfulTime = j.Status.CompletionTime
		}
		// The status write that listed it may have been lost: a live Job of ours is active all the same.
		if outcome(j) == "" && j.DeletionTimestamp == nil && !slices.ContainsFunc(s.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID }) {
			s.Active = append(s.Active, referenceTo(j))
		}
		// So may the one that said when it was due, and then the clock went back.
		if at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation]); err == nil && (s.LastScheduleTime == nil || at.After(s.LastScheduleTime.Time)) {
			s.LastScheduleTime = &metav1.Time{Time: at}
		}
	}
}

func referenceTo(j *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "batch/v1", Kind: "Job", Namespace: j.Namespace, Name: j.Name, UID: j.UID, ResourceVersion: j.ResourceVersion}
}

// trim deletes finished Jobs beyond the history limits, the oldest first.
func (p *planner) trim() {
	old := func(end batchv1.JobConditionType, limit *int32) {
		if limit == nil {
			return
		}
		var list []*batchv1.Job
		for _, j := range p.jobs {
			if outcome(j) == end && j.DeletionTimestamp == nil {
				list = append(list, j)
			}
		}
		slices.SortFunc(list, func(a, b *batchv1.Job) int {
			return cmp.Or(ptr.Deref(a.Status.StartTime, a.CreationTimestamp).Compare(ptr.Deref(b.Status.StartTime, b.CreationTimestamp).Time), cmp.Compare(a.Name, b.Name))
		})
		for _, j := range list[:max(len(list)-int(*limit), 0)] {
			p.delete(j)
		}
	}
	old(batchv1.JobComplete, p.cj.Spec.SuccessfulJobsHistoryLimit)
	old(batchv1.JobFailed, p.cj.Spec.FailedJobsHistoryLimit)
}

func (p *planner) delete(j *batchv1.Job) {
	p.actions = append(p.actions, plan.Delete{Obj: j, Propagation: ptr.To(metav1.DeletePropagationBackground)},
		plan.Normal(p.about, "SuccessfulDelete", "Deleted job %v", j.Name))
}

// parse reads the schedule in the CronJob's time zone.
func (p *planner) parse() (cron.Schedule, bool) {
	spec := p.cj.Spec.Schedule
	if zone := p.cj.Spec.TimeZone; zone != nil {
		if _, err := time.LoadLocation(*zone); err != nil {
			p.actions = append(p.actions, plan.Warning(p.about, "UnknownTimeZone", "invalid timeZone: %q: %s", *zone, err))
			return nil, false
		}
		if !strings.Contains(spec, "TZ=") {
			spec = "TZ=" + *zone + " " + spec
		}
	}
	s, err := cron.ParseStandard(spec)
	if err != nil {
		p.actions = append(p.actions, plan.Warning(p.about, "UnparseableSchedule", "unparseable schedule: %q : %s", p.cj.Spec.Schedule, err))
		return nil, false
	}
	return s, true
}

// schedule starts the Job of the latest time that has come, and says how long it is until the next.
func (p *planner) schedule() time.Duration {
	sched, ok := p.parse()
	if !ok {
		return 0
	}
	due, missed := p.latest(sched)
	next := sched.Next(p.now)
	again := time.Duration(0)
	if !next.IsZero() {
		again = next.Sub(p.now) + slack
	}
	if missed > tooMany {
		p.actions = append(p.actions, plan.Warning(p.about, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"))
	}
	if !due.IsZero() {
		p.start(due)
	}
	return again
}

// latest is the last scheduled time that has come since the last start, and how many have. Beyond tooMany it leaps.
func (p *planner) latest(sched cron.Schedule) (due time.Time, missed int) {
	from := p.cj.CreationTimestamp.Time
	if t := p.cj.Status.LastScheduleTime; t != nil {
		from = t.Time
	}
	if s := p.cj.Spec.StartingDeadlineSeconds; s != nil {
		if limit := p.now.Add(-time.Duration(*s) * time.Second); limit.After(from) {
			from = limit
		}
	}
	for t := sched.Next(from); !t.IsZero() && !t.After(p.now); t = sched.Next(t) {
		due = t
		if missed++; missed == tooMany+1 {
			if gap := sched.Next(t).Sub(t); gap > 0 && p.now.Sub(t) > 2*gap {
				leap := p.now.Add(-2 * gap)
				if leap.After(t) {
					t = leap
				}
			}
		}
	}
	return due, missed
}

func (p *planner) start(due time.Time) {
	name := jobName(p.cj, due)
	for _, r := range p.cj.Status.Active {
		if r.Name == name {
			return
		}
	}
	if slices.ContainsFunc(p.jobs, func(j *batchv1.Job) bool { return j.Name == name }) {
		p.cj.Status.LastScheduleTime = &metav1.Time{Time: due}
		return
	}
	if s := p.cj.Spec.StartingDeadlineSeconds; s != nil && due.Add(time.Duration(*s)*time.Second).Before(p.now) {
		p.actions = append(p.actions, plan.Warning(p.about, "MissSchedule", "Missed scheduled time to start a job: %s", due.UTC().Format(time.RFC1123Z)))
		return
	}
	if len(p.cj.Status.Active) > 0 {
		switch p.cj.Spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			p.actions = append(p.actions, plan.Normal(p.about, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid"))
			return
		case batchv1.ReplaceConcurrent:
			for _, j := range p.jobs {
				if slices.ContainsFunc(p.cj.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == j.UID }) {
					p.delete(j)
				}
			}
			p.cj.Status.Active = nil
		}
	}
	p.actions = append(p.actions, plan.Create{Obj: newJob(p.cj, due, name), IfMissing: true}, plan.Normal(p.about, "SuccessfulCreate", "Created job %v", name))
	p.cj.Status.LastScheduleTime = &metav1.Time{Time: due}
}

func jobName(cj *batchv1.CronJob, due time.Time) string {
	return fmt.Sprintf("%s-%d", cj.Name, due.Unix()/60)
}

func newJob(cj *batchv1.CronJob, due time.Time, name string) *batchv1.Job {
	t := cj.Spec.JobTemplate.DeepCopy()
	annotations := map[string]string{}
	maps.Copy(annotations, t.Annotations)
	if zone := cj.Spec.TimeZone; zone != nil {
		if loc, err := time.LoadLocation(*zone); err == nil {
			due = due.In(loc)
		}
	}
	annotations[batchv1.CronJobScheduledTimestampAnnotation] = due.Format(time.RFC3339)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: cj.Namespace, Name: name, Labels: t.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, kind)}},
		Spec: t.Spec,
	}
}
