package cronjob

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var noon = time.Date(2026, 5, 1, 12, 0, 30, 0, time.UTC)

func summary(d Decision) (creates, deletes int, events []string) {
	for _, a := range d.Actions {
		switch a := a.(type) {
		case plan.Create:
			creates++
		case plan.Delete:
			deletes++
		case plan.Event:
			events = append(events, a.Reason)
		}
	}
	return creates, deletes, events
}

func TestPlan(t *testing.T) {
	running := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "old", UID: "1"}}
	for name, c := range map[string]struct {
		edit             func(*batchv1.CronJob)
		jobs             []*batchv1.Job
		creates, deletes int
		event            string
		again            time.Duration
	}{
		"due":       {creates: 1, event: "SuccessfulCreate", again: 30*time.Second + slack},
		"suspended": {edit: func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(true) }},
		"done": {edit: func(c *batchv1.CronJob) {
			c.Status.LastScheduleTime = ptr.To(metav1.NewTime(noon.Truncate(time.Minute)))
		}, again: 30*time.Second + slack},
		"forbidden":       {edit: func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ForbidConcurrent }, jobs: []*batchv1.Job{running}, event: "JobAlreadyActive", again: 30*time.Second + slack},
		"replaced":        {edit: func(c *batchv1.CronJob) { c.Spec.ConcurrencyPolicy = batchv1.ReplaceConcurrent }, jobs: []*batchv1.Job{running}, creates: 1, deletes: 1, event: "SuccessfulDelete", again: 30*time.Second + slack},
		"unreadable":      {edit: func(c *batchv1.CronJob) { c.Spec.Schedule = "now and then" }, event: "UnparseableSchedule"},
		"missed long ago": {edit: func(c *batchv1.CronJob) { c.CreationTimestamp = metav1.NewTime(noon.AddDate(-1, 0, 0)) }, creates: 1, event: "TooManyMissedTimes", again: 30*time.Second + slack},
	} {
		t.Run(name, func(t *testing.T) {
			cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Name: "tick", CreationTimestamp: metav1.NewTime(noon.Add(-45 * time.Second))}, Spec: batchv1.CronJobSpec{Schedule: "* * * * *"}}
			if c.edit != nil {
				c.edit(cj)
			}
			d := Plan(cj, c.jobs, noon)
			creates, deletes, events := summary(d)
			if creates != c.creates || deletes != c.deletes || d.Again != c.again {
				t.Errorf("%d creates, %d deletes, again in %v; want %d, %d, %v", creates, deletes, d.Again, c.creates, c.deletes, c.again)
			}
			if c.event != "" && (len(events) == 0 || events[0] != c.event) {
				t.Errorf("events %v, want first %s", events, c.event)
			}
		})
	}
}

func TestHistoryLimits(t *testing.T) {
	cj := &batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", SuccessfulJobsHistoryLimit: ptr.To[int32](2)}, ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon)}}
	var jobs []*batchv1.Job
	for i := range 5 {
		jobs = append(jobs, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: string(rune('a' + i)), CreationTimestamp: metav1.NewTime(noon.Add(time.Duration(i) * time.Minute))},
			Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}})
	}
	var gone []string
	for _, a := range Plan(cj, jobs, noon).Actions {
		if d, ok := a.(plan.Delete); ok {
			gone = append(gone, d.Obj.GetName())
		}
	}
	if len(gone) != 3 || gone[0] != "a" || gone[2] != "c" {
		t.Errorf("deleted %v, want the three oldest", gone)
	}
}
