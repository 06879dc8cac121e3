package controllers_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// What containers end with, and what the failure policy makes of it.
const (
	exitCounts  = 1
	exitFailJob = 42
	exitIgnored = 43
	exitIndex   = 44
)

func exits(code int32) corev1.PodStatus {
	phase := corev1.PodFailed
	if code == 0 {
		phase = corev1.PodSucceeded
	}
	return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.Now()}}}}}
}

func onExit(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
		Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}}
}

// ordinals reads "0-2,5".
func ordinals(t *testing.T, s string) map[string]bool {
	out := map[string]bool{}
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		var a, b int
		if n, _ := fmt.Sscanf(part, "%d-%d", &a, &b); n == 1 {
			b = a
		} else if n != 2 {
			t.Fatalf("indexes %q", s)
		}
		for i := a; i <= b; i++ {
			out[fmt.Sprint(i)] = true
		}
	}
	return out
}

// TestJobPolicyHistories drives indexed jobs with failure policies, limits for each index and success policies.
func TestJobPolicyHistories(t *testing.T) {
	each(t, []string{"job-controller", "pod-garbage-collector-controller"}, func(h *history) {
		completions, parallelism := h.r.Int32N(6)+1, h.r.Int32N(4)+1
		var limit, most, enough *int32
		if h.r.IntN(3) > 0 {
			limit = ptr.To(h.r.Int32N(3))
			if h.r.IntN(3) == 0 {
				most = ptr.To(h.r.Int32N(completions) + 1)
			}
		}
		var rules []batchv1.PodFailurePolicyRule
		if h.r.IntN(3) > 0 {
			rules = append(rules, onExit(batchv1.PodFailurePolicyActionIgnore, exitIgnored), onExit(batchv1.PodFailurePolicyActionFailJob, exitFailJob))
			if limit != nil {
				rules = append(rules, onExit(batchv1.PodFailurePolicyActionFailIndex, exitIndex))
			}
		}
		if h.r.IntN(3) == 0 {
			enough = ptr.To(h.r.Int32N(completions) + 1)
		}
		replacing := len(rules) > 0 || h.r.IntN(2) == 0
		var mu sync.Mutex
		fate := rand.New(rand.NewPCG(h.r.Uint64(), 3))
		ends := map[string]map[int32]int{} // what the pods of each index ended with, and how often
		h.ends(func(p *corev1.Pod) corev1.PodStatus {
			mu.Lock()
			defer mu.Unlock()
			code := int32(0)
			switch n := fate.IntN(24); {
			case n < 6:
				code = exitCounts
			case n < 9:
				code = exitIgnored
			case n < 11:
				code = exitIndex
			case n == 11:
				code = exitFailJob
			}
			i := p.Annotations[batchv1.JobCompletionIndexAnnotation]
			if ends[i] == nil {
				ends[i] = map[int32]int{}
			}
			ends[i][code]++
			return exits(code)
		})
		h.check = func(verb string, _ api.Object) {
			there := 0
			for _, p := range list[*corev1.Pod](h.cluster) {
				if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed && (replacing || p.DeletionTimestamp == nil) {
					there++
				}
			}
			if verb == "create" && h.calm && h.quiet() && there > int(parallelism) {
				h.t.Errorf("%d pods at once, %d may be", there, parallelism)
			}
		}
		h.create(job("j", func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.BackoffLimit, s.CompletionMode = &completions, &parallelism, ptr.To[int32](1000), ptr.To(batchv1.IndexedCompletion)
			s.BackoffLimitPerIndex, s.MaxFailedIndexes = limit, most
			if len(rules) > 0 {
				s.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: rules}
			}
			if replacing {
				s.PodReplacementPolicy = ptr.To(batchv1.Failed)
			}
			if enough != nil {
				s.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededCount: enough}}}
			}
		}))
		var done map[string]bool
		var end string
		look := func() *batchv1.Job {
			j := get[*batchv1.Job](h.cluster, "j")
			now := ordinals(h.t, j.Status.CompletedIndexes)
			for i := range done {
				if !now[i] {
					h.t.Errorf("index %s is complete no more", i)
				}
			}
			done = now
			for i := range ordinals(h.t, ptr.Deref(j.Status.FailedIndexes, "")) {
				if done[i] {
					h.t.Errorf("index %s is complete and has failed", i)
				}
			}
			complete, failed := jobCondition(j, batchv1.JobComplete), jobCondition(j, batchv1.JobFailed)
			if complete != "" && failed != "" || end != "" && complete+failed != end {
				h.t.Errorf("ended as %q and %q, before as %q", complete, failed, end)
			}
			end = complete + failed
			return j
		}
		for range 14 {
			h.settle(time.Duration(h.r.IntN(20000)) * time.Millisecond)
			look()
			switch h.r.IntN(3) {
			case 0:
				if !h.calm {
					h.kill()
				}
			case 1:
				h.disturb()
				change(h.cluster, "j", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(!ptr.Deref(j.Spec.Suspend, false)) })
			}
		}
		h.still()
		h.disturb()
		change(h.cluster, "j", func(j *batchv1.Job) { j.Spec.Suspend = nil })
		h.settle(48 * time.Hour)
		j := look()
		if end == "" {
			h.t.Fatalf("not ended: %+v", j.Status)
		}
		switch {
		case jobCondition(j, batchv1.JobComplete) != "" && jobCondition(j, batchv1.JobSuccessCriteriaMet) == "",
			jobCondition(j, batchv1.JobFailed) != "" && jobCondition(j, batchv1.JobFailureTarget) != jobCondition(j, batchv1.JobFailed):
			h.t.Errorf("conditions %+v", j.Status.Conditions)
		case jobCondition(j, batchv1.JobComplete) == batchv1.JobReasonCompletionsReached && len(done) != int(completions),
			jobCondition(j, batchv1.JobComplete) == batchv1.JobReasonSuccessPolicy && (enough == nil || len(done) < int(*enough)):
			h.t.Errorf("complete as %s with %v of %d", end, done, completions)
		}
		if int(j.Status.Succeeded) != len(done) || j.Status.Active != 0 || ptr.Deref(j.Status.Ready, 0) != 0 || ptr.Deref(j.Status.Terminating, 0) != 0 {
			h.t.Errorf("status %+v", j.Status)
		}
		if u := j.Status.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
			h.t.Errorf("left uncounted: %+v", u)
		}
		for _, p := range list[*corev1.Pod](h.cluster) {
			if len(p.Finalizers) > 0 || p.Status.Phase == corev1.PodRunning {
				h.t.Errorf("%s is %s and has %v", p.Name, p.Status.Phase, p.Finalizers)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		failJob := 0
		for i, codes := range ends {
			failJob += codes[exitFailJob]
			if done[i] && codes[0] == 0 {
				h.t.Errorf("index %s is complete and no pod of it succeeded: %v", i, codes)
			}
		}
		if !h.calm {
			return
		}
		if failJob == 0 && end == batchv1.JobReasonPodFailurePolicy {
			h.t.Error("failed by a policy that nothing matched")
		}
		if limit == nil {
			return
		}
		broken := ordinals(h.t, ptr.Deref(j.Status.FailedIndexes, ""))
		for i, codes := range ends {
			counted := codes[exitCounts] + codes[exitFailJob]
			if len(rules) == 0 {
				counted += codes[exitIgnored] + codes[exitIndex]
			} else if codes[exitIndex] > 0 {
				counted = int(*limit) + 1
			}
			// Pods that a suspension or the end of the job cut off may have ended before anybody looked.
			if broken[i] && counted <= int(*limit) {
				h.t.Errorf("index %s has failed with %v of a limit of %d", i, codes, *limit)
			}
			if !broken[i] && !done[i] && counted > int(*limit) && end == "" {
				h.t.Errorf("index %s has not failed with %v of a limit of %d", i, codes, *limit)
			}
		}
	})
}

// TestCronJobHistories: the clock jumps, jobs take their time, and users suspend and resume.
func TestCronJobHistories(t *testing.T) {
	each(t, []string{"cronjob-controller"}, func(h *history) {
		policy := []batchv1.ConcurrencyPolicy{batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent}[h.r.IntN(3)]
		good, bad := h.r.Int32N(4), h.r.Int32N(3)
		cj := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "tick"}, Spec: batchv1.CronJobSpec{
			Schedule: "*/2 * * * *", ConcurrencyPolicy: policy, SuccessfulJobsHistoryLimit: &good, FailedJobsHistoryLimit: &bad,
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template("tick", "v1")}}}}
		if h.r.IntN(2) == 0 {
			cj.Spec.StartingDeadlineSeconds = ptr.To(h.r.Int64N(300) + 10)
		}
		var mu sync.Mutex
		times := map[string]int{} // creates by scheduled time
		h.watching = "jobs"
		h.check = func(verb string, obj api.Object) {
			j := obj.(*batchv1.Job)
			if verb != "create" {
				return
			}
			at, err := time.Parse(time.RFC3339, j.Annotations[batchv1.CronJobScheduledTimestampAnnotation])
			if err != nil || at.After(h.now()) || at.Minute()%2 != 0 {
				h.t.Errorf("%s was scheduled for %v (%v), it is %v", j.Name, at, err, h.now())
			}
			if d := cj.Spec.StartingDeadlineSeconds; d != nil && h.now().Sub(at) > time.Duration(*d+1)*time.Second {
				h.t.Errorf("%s was started %v late, the deadline is %d s", j.Name, h.now().Sub(at), *d)
			}
			mu.Lock()
			if times[j.Name]++; times[j.Name] > 1 {
				h.t.Errorf("%s was created twice", j.Name)
			}
			mu.Unlock()
			if !h.quiet() {
				return
			}
			if ptr.Deref(get[*batchv1.CronJob](h.cluster, "tick").Spec.Suspend, false) {
				h.t.Errorf("%s was created while suspended", j.Name)
			}
			for _, other := range list[*batchv1.Job](h.cluster) {
				if policy != batchv1.AllowConcurrent && other.Name != j.Name && other.DeletionTimestamp == nil &&
					jobCondition(other, batchv1.JobComplete)+jobCondition(other, batchv1.JobFailed) == "" {
					h.t.Errorf("%s was created beside %s and the policy is %s", j.Name, other.Name, policy)
				}
			}
		}
		h.create(cj)
		finish := func(share int) {
			for _, j := range list[*batchv1.Job](h.cluster) {
				if h.r.IntN(100) >= share || jobCondition(j, batchv1.JobComplete)+jobCondition(j, batchv1.JobFailed) != "" {
					continue
				}
				h.disturb()
				j = j.DeepCopy()
				now := metav1.NewTime(h.now())
				c := batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, Reason: "Done", LastTransitionTime: now}
				if h.r.IntN(3) == 0 {
					c.Type = batchv1.JobFailed
				} else {
					j.Status.CompletionTime = &now
				}
				j.Status.StartTime, j.Status.Conditions = &j.CreationTimestamp, append(j.Status.Conditions, c)
				if _, err := client.UpdateStatus(h.ctx, h.API, j); err != nil {
					h.t.Fatal(err)
				}
			}
		}
		for range 25 {
			h.settle(time.Duration(h.r.IntN(200)) * time.Second)
			switch h.r.IntN(6) {
			case 0, 1:
				finish(60)
			case 2:
				h.disturb()
				change(h.cluster, "tick", func(c *batchv1.CronJob) { c.Spec.Suspend = ptr.To(!ptr.Deref(c.Spec.Suspend, false)) })
			case 3:
				h.jump(time.Duration(h.r.IntN(36*3600)) * time.Second)
			case 4:
				h.jump(-time.Duration(h.r.IntN(600)) * time.Second)
			case 5: // a user's hand
				if all := list[*batchv1.Job](h.cluster); len(all) > 0 && !h.calm {
					h.disturb()
					j := all[h.r.IntN(len(all))]
					_ = client.Delete[*batchv1.Job](h.ctx, h.API, j.Namespace, j.Name, j.UID)
				}
			}
		}
		h.still()
		h.disturb()
		change(h.cluster, "tick", func(c *batchv1.CronJob) { c.Spec.Suspend = nil })
		h.settle(time.Hour)
		finish(100)
		h.settle(time.Second)
		last := get[*batchv1.CronJob](h.cluster, "tick").Status.LastScheduleTime
		if last == nil || h.now().Sub(last.Time) > 5*time.Minute && policy != batchv1.ForbidConcurrent {
			h.t.Errorf("last scheduled at %v, it is %v", last, h.now())
		}
		h.settle(5 * time.Minute)
		var active, complete, failed int
		for _, j := range list[*batchv1.Job](h.cluster) {
			switch {
			case jobCondition(j, batchv1.JobComplete) != "":
				complete++
			case jobCondition(j, batchv1.JobFailed) != "":
				failed++
			default:
				active++
			}
		}
		s := get[*batchv1.CronJob](h.cluster, "tick").Status
		if len(s.Active) != active || complete > int(good) || failed > int(bad) || active == 0 || policy != batchv1.AllowConcurrent && active > 1 {
			h.t.Errorf("%s: %d active (status %v), %d complete of %d, %d failed of %d", policy, active, s.Active, complete, good, failed, bad)
		}
	})
}

// TestClaimRetentionHistories: claims of a stateful set go when its policy says so, and never those of a pod that is wanted.
func TestClaimRetentionHistories(t *testing.T) {
	each(t, []string{"statefulset-controller", "garbage-collector-controller"}, func(h *history) {
		choose := func() appsv1.PersistentVolumeClaimRetentionPolicyType {
			if h.r.IntN(2) == 0 {
				return appsv1.RetainPersistentVolumeClaimRetentionPolicyType
			}
			return appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		}
		policy := appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: choose(), WhenDeleted: choose()}
		retain := appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		h.create(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](3), ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Template: template("db", "v1"),
			PodManagementPolicy: appsv1.OrderedReadyPodManagement, UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
			PersistentVolumeClaimRetentionPolicy: policy.DeepCopy(),
			VolumeClaimTemplates:                 []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}}})
		size, least := int32(3), int32(3) // the claims of ordinals below least were wanted all the time
		uids := func() map[string]string {
			out := map[string]string{}
			for _, c := range list[*corev1.PersistentVolumeClaim](h.cluster) {
				out[c.Name] = string(c.UID)
			}
			return out
		}
		h.settle(time.Minute)
		first := uids()
		for range 16 {
			switch h.r.IntN(4) {
			case 0, 1:
				size = h.r.Int32N(5)
				least = min(least, size)
				change(h.cluster, "db", func(s *appsv1.StatefulSet) { s.Spec.Replicas = &size })
			case 2:
				change(h.cluster, "db", func(s *appsv1.StatefulSet) { *image(&s.Spec.Template) = fmt.Sprintf("v%d", h.r.IntN(4)) })
			case 3:
				if !h.calm {
					h.kill()
				}
			}
			h.someTime()
			before := uids()
			for i := range least {
				if name := fmt.Sprintf("data-db-%d", i); first[name] != "" && before[name] != first[name] {
					h.t.Fatalf("the claim %s of a pod that was wanted all the time is gone or another", name)
				}
			}
		}
		h.still()
		// A claim whose pod was gone when the set became too small for it stays, as upstream's does. Each gets a pod once more.
		change(h.cluster, "db", func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](5) })
		h.settle(10 * time.Minute)
		change(h.cluster, "db", func(s *appsv1.StatefulSet) { s.Spec.Replicas = &size })
		h.settle(20 * time.Minute)
		before := uids()
		for i := range size {
			if before[fmt.Sprintf("data-db-%d", i)] == "" {
				h.t.Errorf("no claim for db-%d: %v", i, before)
			}
		}
		for name := range before {
			var n int32
			if _, err := fmt.Sscanf(name, "data-db-%d", &n); err != nil {
				h.t.Fatal(name, err)
			}
			if n >= size && policy.WhenScaled != retain {
				h.t.Errorf("%s is left over, of %d", name, size)
			}
		}
		if policy.WhenScaled == retain {
			for name := range first {
				if before[name] != first[name] {
					h.t.Errorf("%s was to be retained", name)
				}
			}
		}
		if err := client.Delete[*appsv1.StatefulSet](h.ctx, h.API, "default", "db", ""); err != nil {
			h.t.Fatal(err)
		}
		h.settle(20 * time.Minute)
		after := uids()
		for i := range size {
			name := fmt.Sprintf("data-db-%d", i)
			if kept := after[name] != ""; kept != (policy.WhenDeleted == retain) {
				h.t.Errorf("the set is deleted, %s there: %v, policy %s", name, kept, policy.WhenDeleted)
			}
		}
		if n := len(list[*corev1.Pod](h.cluster)); n > 0 {
			h.t.Errorf("%d pods outlive the set", n)
		}
		if !slices.Equal(sorted(after), sorted(uids())) {
			h.t.Error("claims still change")
		}
	})
}

func sorted(m map[string]string) (out []string) {
	for k, v := range m {
		out = append(out, k+" "+v)
	}
	slices.Sort(out)
	return out
}
