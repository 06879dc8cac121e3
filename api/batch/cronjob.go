package batch

import (
	"github.com/robfig/cron/v3"
	"github.com/skiff-sh/skiff/api/core"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"
	"time"

	"github.com/skiff-sh/skiff/api"
)

var cronJob = &api.Kind{
	Group: "batch", Version: "v1", Kind: "CronJob",
	Plural: "cronjobs", Singular: "cronjob", ShortNames: []string{"cj"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "cronjobs",
	New:         api.New[batchv1.CronJob], NewList: api.NewList[batchv1.CronJobList],
	Validate:       api.Check(validateCronJob),
	Warnings:       core.TemplateWarnings(field.NewPath("spec", "jobTemplate", "spec", "template"), true, func(x *batchv1.CronJob) *corev1.PodTemplateSpec { return &x.Spec.JobTemplate.Spec.Template }),
	ValidateUpdate: api.CheckUpdate(func(x, _ *batchv1.CronJob) field.ErrorList { return validateCronJob(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Schedule", "string", func(x *batchv1.CronJob) any { return x.Spec.Schedule }),
		api.Col("Timezone", "string", func(x *batchv1.CronJob) any { return orNone(x.Spec.TimeZone) }),
		api.Col("Suspend", "boolean", func(x *batchv1.CronJob) any {
			if x.Spec.Suspend != nil && *x.Spec.Suspend {
				return "True"
			}
			return "False"
		}),
		api.Col("Active", "integer", func(x *batchv1.CronJob) any { return int64(len(x.Status.Active)) }),
		api.ColAt("Last Schedule", lastSchedule),
		api.AgeColumn(),
		api.Col("Containers", "string", func(x *batchv1.CronJob) any { return core.ContainerNames(&x.Spec.JobTemplate.Spec.Template.Spec) }).Wide(),
		api.Col("Images", "string", func(x *batchv1.CronJob) any { return core.ContainerImages(&x.Spec.JobTemplate.Spec.Template.Spec) }).Wide(),
		api.Col("Selector", "string", func(x *batchv1.CronJob) any { return metav1.FormatLabelSelector(x.Spec.JobTemplate.Spec.Selector) }).Wide(),
	},
	Default:       api.Defaults(defaultCronJob),
	HasGeneration: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultCronJob(x *batchv1.CronJob) {
	s := &x.Spec
	api.Fill(&s.ConcurrencyPolicy, batchv1.AllowConcurrent)
	api.FillPtr(&s.Suspend, false)
	api.FillPtr(&s.SuccessfulJobsHistoryLimit, 3)
	api.FillPtr(&s.FailedJobsHistoryLimit, 1)
	defaultFailurePolicy(s.JobTemplate.Spec.PodFailurePolicy)
	core.DefaultPodTemplate(&s.JobTemplate.Spec.Template)
}

func orNone(s *string) string {
	if s == nil {
		return "<none>"
	}
	return *s
}

func lastSchedule(x *batchv1.CronJob, now time.Time) any {
	if x.Status.LastScheduleTime == nil {
		return "<none>"
	}
	return api.Age(*x.Status.LastScheduleTime, now)
}

func validateCronJob(x *batchv1.CronJob) field.ErrorList {
	var errs field.ErrorList
	path, s := field.NewPath("spec"), &x.Spec
	errs = append(errs, validateSchedule(path.Child("schedule"), s.Schedule)...)
	if z := s.TimeZone; z != nil {
		switch _, err := time.LoadLocation(*z); {
		case *z == "":
			errs = append(errs, field.Invalid(path.Child("timeZone"), *z, "timeZone must be nil or non-empty string"))
		case strings.EqualFold(*z, "Local"):
			errs = append(errs, field.Invalid(path.Child("timeZone"), *z, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
		case err != nil:
			errs = append(errs, field.Invalid(path.Child("timeZone"), *z, "unknown time zone "+*z))
		}
	}
	errs = append(errs, core.NotNegative(path.Child("startingDeadlineSeconds"), s.StartingDeadlineSeconds)...)
	errs = append(errs, core.OneOf(path.Child("concurrencyPolicy"), s.ConcurrencyPolicy, batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	errs = append(errs, core.NotNegative(path.Child("successfulJobsHistoryLimit"), s.SuccessfulJobsHistoryLimit)...)
	errs = append(errs, core.NotNegative(path.Child("failedJobsHistoryLimit"), s.FailedJobsHistoryLimit)...)
	errs = append(errs, validateJobSpec(path.Child("jobTemplate", "spec"), &s.JobTemplate.Spec)...)
	if s.JobTemplate.Spec.ManualSelector != nil && *s.JobTemplate.Spec.ManualSelector {
		errs = append(errs, field.NotSupported(path.Child("jobTemplate", "spec", "manualSelector"), true, []string{"nil", "false"}))
	}
	if len(x.Name) > 52 { // an eleven character suffix makes a job's name of it
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), x.Name, "must be no more than 52 characters"))
	}
	return errs
}

func validateSchedule(path *field.Path, s string) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	if _, err := cron.ParseStandard(s); err != nil {
		return field.ErrorList{field.Invalid(path, s, err.Error())}
	}
	if strings.Contains(s, "TZ") {
		return field.ErrorList{field.Invalid(path, s, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")}
	}
	return nil
}
