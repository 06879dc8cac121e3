package batch

import (
	"fmt"
	"github.com/skiff-sh/skiff/api/core"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"math"
	"strconv"
	"time"

	"github.com/skiff-sh/skiff/api"
)

var job = &api.Kind{
	Group: "batch", Version: "v1", Kind: "Job",
	Plural: "jobs", Singular: "job", Categories: []string{"all"}, Namespaced: true,
	StoragePath: "jobs",
	New:         api.New[batchv1.Job], NewList: api.NewList[batchv1.JobList],
	Validate:       api.Check(validateJob),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "template"), true, func(x *batchv1.Job) *corev1.PodTemplateSpec { return &x.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(validateJobUpdate),
	ValidateStatus: api.CheckUpdate(validateJobStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Status", "string", func(x *batchv1.Job) any { return jobStatus(x) }),
		api.Col("Completions", "string", func(x *batchv1.Job) any { return jobCompletions(x) }),
		api.ColAt("Duration", jobDuration),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *batchv1.Job) any { return core.ContainerNames(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *batchv1.Job) any { return core.ContainerImages(&x.Spec.Template.Spec) }).Wide(),
		api.Col("Selector", "string", func(x *batchv1.Job) any { return metav1.FormatLabelSelector(x.Spec.Selector) }).Wide(),
	},
	PrepareUpdate: api.OnUpdate(func(x, old *batchv1.Job) { core.DropDisabledInTemplate(&x.Spec.Template, &old.Spec.Template) }),
	PrepareCreate: api.OnCreate(createJob),
	FieldKeys:     []string{"status.successful"},
	Fields: api.Selectable(func(x *batchv1.Job) map[string]string {
		return map[string]string{"status.successful": strconv.Itoa(int(x.Status.Succeeded))}
	}),
	Default:       api.Defaults(defaultJob),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultJob(x *batchv1.Job) {
	s := &x.Spec
	if s.Completions == nil && s.Parallelism == nil {
		s.Completions = api.Ptr(int32(1))
	}
	api.FillPtr(&s.Parallelism, 1)
	if s.BackoffLimit == nil {
		s.BackoffLimit = api.Ptr(int32(6))
		if s.BackoffLimitPerIndex != nil {
			s.BackoffLimit = api.Ptr(int32(math.MaxInt32))
		}
	}
	if len(x.Labels) == 0 {
		x.Labels = s.Template.Labels // the very same: what createJob adds to the pods' labels is then the job's too, as upstream
	}
	api.FillPtr(&s.CompletionMode, batchv1.NonIndexedCompletion)
	api.FillPtr(&s.Suspend, false)
	api.FillPtr(&s.ManualSelector, false)
	if s.PodReplacementPolicy == nil {
		s.PodReplacementPolicy = api.Ptr(batchv1.TerminatingOrFailed)
		if s.PodFailurePolicy != nil {
			s.PodReplacementPolicy = api.Ptr(batchv1.Failed)
		}
	}
	defaultFailurePolicy(s.PodFailurePolicy)
	core.DefaultPodTemplate(&s.Template)
}

func defaultFailurePolicy(p *batchv1.PodFailurePolicy) {
	if p == nil {
		return
	}
	for i := range p.Rules {
		for j := range p.Rules[i].OnPodConditions {
			api.Fill(&p.Rules[i].OnPodConditions[j].Status, corev1.ConditionTrue)
		}
	}
}

func createJob(x *batchv1.Job) {
	x.Status = batchv1.JobStatus{}
	core.DropDisabledInTemplate(&x.Spec.Template, nil)
	if x.Spec.ManualSelector != nil && *x.Spec.ManualSelector {
		return
	}
	own := map[string]string{
		batchv1.ControllerUidLabel: string(x.UID), "controller-uid": string(x.UID),
		batchv1.JobNameLabel: x.Name, "job-name": x.Name,
	}
	labels := x.Spec.Template.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	for k, v := range own {
		if _, ok := labels[k]; !ok {
			labels[k] = v
		}
	}
	x.Spec.Template.Labels = labels
	if x.Spec.Selector == nil {
		x.Spec.Selector = &metav1.LabelSelector{}
	}
	if x.Spec.Selector.MatchLabels == nil {
		x.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := x.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		x.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(x.UID)
	}
}

func jobStatus(x *batchv1.Job) string {
	has := func(t batchv1.JobConditionType) bool {
		for _, c := range x.Status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	}
	switch {
	case has(batchv1.JobComplete):
		return "Complete"
	case has(batchv1.JobFailed):
		return "Failed"
	case x.DeletionTimestamp != nil:
		return "Terminating"
	case has(batchv1.JobSuspended):
		return "Suspended"
	case has(batchv1.JobFailureTarget):
		return "FailureTarget"
	case has(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func jobCompletions(x *batchv1.Job) string {
	if x.Spec.Completions != nil {
		return fmt.Sprintf("%d/%d", x.Status.Succeeded, *x.Spec.Completions)
	}
	if x.Spec.Parallelism != nil && *x.Spec.Parallelism > 1 {
		return fmt.Sprintf("%d/1 of %d", x.Status.Succeeded, *x.Spec.Parallelism)
	}
	return fmt.Sprintf("%d/1", x.Status.Succeeded)
}

func jobDuration(x *batchv1.Job, now time.Time) any {
	switch {
	case x.Status.StartTime == nil:
		return ""
	case x.Status.CompletionTime == nil:
		return duration.HumanDuration(now.Sub(x.Status.StartTime.Time))
	}
	return duration.HumanDuration(x.Status.CompletionTime.Sub(x.Status.StartTime.Time))
}
