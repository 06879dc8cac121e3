package batch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

const (
	mostIndexes    = 100000
	mostRules      = 20
	mostExitCodes  = 255
	mostConditions = 20
	mostManagedBy  = 63
)

func indexed(s *batchv1.JobSpec) bool {
	return s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
}

func validateJob(x *batchv1.Job) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateGenerated(path, x)
	errs = append(errs, validateJobSpec(path, &x.Spec)...)
	if indexed(&x.Spec) && x.Spec.Completions != nil && *x.Spec.Completions > 0 {
		last := fmt.Sprintf("%s-%d", x.Name, *x.Spec.Completions-1)
		if msgs := validation.IsDNS1123Label(last); len(msgs) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), x.Name, "will not able to create pod with invalid DNS label: "+last))
		}
	}
	if x.Spec.Selector == nil {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	errs = append(errs, core.LabelSelector(path.Child("selector"), x.Spec.Selector)...)
	if sel, err := metav1.LabelSelectorAsSelector(x.Spec.Selector); err == nil && !sel.Matches(labels.Set(x.Spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), x.Spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// validateGenerated checks the labels and the selector that the server gives a job whose user leaves the choice to it.
func validateGenerated(path *field.Path, x *batchv1.Job) field.ErrorList {
	if m := x.Spec.ManualSelector; m != nil && *m || x.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	for _, want := range []struct{ key, value string }{{"controller-uid", string(x.UID)}, {"job-name", x.Name},
		{batchv1.ControllerUidLabel, string(x.UID)}, {batchv1.JobNameLabel, x.Name}} {
		at := path.Child("template", "metadata", "labels").Key(want.key)
		switch got, ok := x.Spec.Template.Labels[want.key]; {
		case !ok:
			errs = append(errs, field.Required(at, fmt.Sprintf("must be '%s'", want.value)))
		case got != want.value:
			errs = append(errs, field.Invalid(at, x.Spec.Template.Labels, fmt.Sprintf("must be '%s'", want.value)))
		}
	}
	sel, err := metav1.LabelSelectorAsSelector(x.Spec.Selector)
	if err != nil {
		return errs
	}
	if !sel.Matches(labels.Set{batchv1.ControllerUidLabel: string(x.UID), batchv1.JobNameLabel: x.Name, "controller-uid": string(x.UID), "job-name": x.Name}) {
		errs = append(errs, field.Invalid(path.Child("selector"), x.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

func validateJobSpec(path *field.Path, s *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		n    *int32
	}{{"parallelism", s.Parallelism}, {"completions", s.Completions}, {"backoffLimit", s.BackoffLimit}, {"ttlSecondsAfterFinished", s.TTLSecondsAfterFinished},
		{"backoffLimitPerIndex", s.BackoffLimitPerIndex}, {"maxFailedIndexes", s.MaxFailedIndexes}} {
		errs = append(errs, core.NotNegative(path.Child(f.name), f.n)...)
	}
	errs = append(errs, core.NotNegative(path.Child("activeDeadlineSeconds"), s.ActiveDeadlineSeconds)...)
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	if m := s.ManagedBy; m != nil {
		at := path.Child("managedBy")
		errs = append(errs, validation.IsDomainPrefixedPath(at, *m)...)
		if len(*m) > mostManagedBy {
			errs = append(errs, field.TooLong(at, *m, mostManagedBy))
		}
	}
	errs = append(errs, validateCompletionMode(path, s)...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, validateFailurePolicy(path.Child("podFailurePolicy"), s)...)
	}
	if s.SuccessPolicy != nil {
		if !indexed(s) {
			errs = append(errs, field.Invalid(path.Child("successPolicy"), *s.SuccessPolicy, "requires indexed completion mode"))
		} else {
			errs = append(errs, validateSuccessPolicy(path.Child("successPolicy"), s)...)
		}
	}
	errs = append(errs, validateReplacement(path.Child("podReplacementPolicy"), s)...)
	errs = append(errs, core.ValidatePodTemplate(path.Child("template"), &s.Template)...)
	at := path.Child("template", "spec", "restartPolicy")
	switch p := s.Template.Spec.RestartPolicy; {
	case p == "" || p == corev1.RestartPolicyAlways:
		errs = append(errs, field.Required(at, "valid values: \"OnFailure\", \"Never\""))
	case p != corev1.RestartPolicyOnFailure && p != corev1.RestartPolicyNever:
		errs = append(errs, field.NotSupported(at, p, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	case s.PodFailurePolicy != nil && p != corev1.RestartPolicyNever:
		errs = append(errs, field.Invalid(at, p, "only \"Never\" is supported when podFailurePolicy is specified"))
	}
	return errs
}

func validateCompletionMode(path *field.Path, s *batchv1.JobSpec) field.ErrorList {
	if s.CompletionMode == nil {
		return nil
	}
	var errs field.ErrorList
	switch *s.CompletionMode {
	case batchv1.NonIndexedCompletion:
		if n := s.BackoffLimitPerIndex; n != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *n, "requires indexed completion mode"))
		}
		if n := s.MaxFailedIndexes; n != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *n, "requires indexed completion mode"))
		}
	case batchv1.IndexedCompletion:
		if s.Completions == nil {
			errs = append(errs, field.Required(path.Child("completions"), "when completion mode is Indexed"))
		}
		if n := s.Parallelism; n != nil && *n > mostIndexes {
			errs = append(errs, field.Invalid(path.Child("parallelism"), *n, fmt.Sprintf("must be less than or equal to %d when completion mode is Indexed", mostIndexes)))
		}
		if n := s.MaxFailedIndexes; n != nil {
			if s.Completions != nil && *n > *s.Completions {
				errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *n, "must be less than or equal to completions"))
			}
			if *n > mostIndexes {
				errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *n, fmt.Sprintf("must be less than or equal to %d", mostIndexes)))
			}
		}
	default:
		errs = append(errs, core.Known(path.Child("completionMode"), *s.CompletionMode, batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)...)
	}
	return errs
}

func validateReplacement(path *field.Path, s *batchv1.JobSpec) field.ErrorList {
	switch {
	case s.PodReplacementPolicy == nil:
		return nil
	case s.PodFailurePolicy != nil:
		return core.Known(path, *s.PodReplacementPolicy, batchv1.Failed)
	}
	return core.Known(path, *s.PodReplacementPolicy, batchv1.Failed, batchv1.TerminatingOrFailed)
}

func validateFailurePolicy(path *field.Path, s *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	rules := path.Child("rules")
	if n := len(s.PodFailurePolicy.Rules); n > mostRules {
		errs = append(errs, field.TooMany(rules, n, mostRules))
	}
	var containers []string
	for i := range s.Template.Spec.Containers {
		containers = append(containers, s.Template.Spec.Containers[i].Name)
	}
	for i := range s.Template.Spec.InitContainers {
		containers = append(containers, s.Template.Spec.InitContainers[i].Name)
	}
	for i := range s.PodFailurePolicy.Rules {
		errs = append(errs, validateFailureRule(rules.Index(i), &s.PodFailurePolicy.Rules[i], containers, s)...)
	}
	return errs
}

func validateFailureRule(path *field.Path, r *batchv1.PodFailurePolicyRule, containers []string, s *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	actions := []batchv1.PodFailurePolicyAction{batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore}
	switch {
	case r.Action == "":
		errs = append(errs, field.Required(path.Child("action"), fmt.Sprintf("valid values: %q", actions)))
	case r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil:
		errs = append(errs, field.Invalid(path.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
	default:
		errs = append(errs, core.Known(path.Child("action"), r.Action, actions...)...)
	}
	if r.OnExitCodes != nil {
		errs = append(errs, validateExitCodes(path.Child("onExitCodes"), r.OnExitCodes, containers)...)
	}
	if n := len(r.OnPodConditions); n > 0 {
		at := path.Child("onPodConditions")
		if n > mostConditions {
			errs = append(errs, field.TooMany(at, n, mostConditions))
		}
		for i, c := range r.OnPodConditions {
			errs = append(errs, metavalidation.ValidateLabelName(string(c.Type), at.Index(i).Child("type"))...)
			if c.Status == "" {
				errs = append(errs, field.Required(at.Index(i).Child("status"), `valid values: ["False" "True" "Unknown"]`))
			} else {
				errs = append(errs, core.Known(at.Index(i).Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
			}
		}
	}
	switch {
	case r.OnExitCodes != nil && len(r.OnPodConditions) > 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
	case r.OnExitCodes == nil && len(r.OnPodConditions) == 0:
		errs = append(errs, field.Invalid(path, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
	}
	return errs
}

func validateExitCodes(path *field.Path, r *batchv1.PodFailurePolicyOnExitCodesRequirement, containers []string) field.ErrorList {
	var errs field.ErrorList
	in, notIn := batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn
	if r.Operator == "" {
		errs = append(errs, field.Required(path.Child("operator"), fmt.Sprintf("valid values: %q", []batchv1.PodFailurePolicyOnExitCodesOperator{in, notIn})))
	} else {
		errs = append(errs, core.Known(path.Child("operator"), r.Operator, in, notIn)...)
	}
	if n := r.ContainerName; n != nil && !slices.Contains(containers, *n) {
		errs = append(errs, field.Invalid(path.Child("containerName"), *n, "must be one of the container or initContainer names in the pod template"))
	}
	at := path.Child("values")
	switch n := len(r.Values); {
	case n == 0:
		errs = append(errs, field.Invalid(at, r.Values, "at least one value is required"))
	case n > mostExitCodes:
		errs = append(errs, field.TooMany(at, n, mostExitCodes))
	}
	ordered, seen := true, map[int32]bool{}
	for i, v := range r.Values {
		if r.Operator == in && v == 0 {
			errs = append(errs, field.Invalid(at.Index(i), v, "must not be 0 for the In operator"))
		}
		if seen[v] {
			errs = append(errs, field.Duplicate(at.Index(i), v))
		}
		seen[v] = true
		ordered = ordered && (i == 0 || r.Values[i-1] <= v)
	}
	if !ordered {
		errs = append(errs, field.Invalid(at, r.Values, "must be ordered"))
	}
	return errs
}

func validateSuccessPolicy(path *field.Path, s *batchv1.JobSpec) field.ErrorList {
	rules := s.SuccessPolicy.Rules
	at := path.Child("rules")
	if len(rules) == 0 {
		return field.ErrorList{field.Required(at, "at least one rules must be specified when the successPolicy is specified")}
	}
	var errs field.ErrorList
	if len(rules) > mostRules {
		errs = append(errs, field.TooMany(at, len(rules), mostRules))
	}
	for i, r := range rules {
		errs = append(errs, validateSuccessRule(at.Index(i), &r, s)...)
	}
	return errs
}

func validateSuccessRule(path *field.Path, r *batchv1.SuccessPolicyRule, s *batchv1.JobSpec) field.ErrorList {
	var errs field.ErrorList
	if r.SucceededCount == nil && r.SucceededIndexes == nil {
		errs = append(errs, field.Required(path, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	completions := int32(0)
	if s.Completions != nil {
		completions = *s.Completions
	}
	total := int32(0)
	if text := r.SucceededIndexes; text != nil {
		at := path.Child("succeededIndexes")
		if len(*text) > 64<<10 {
			errs = append(errs, field.TooLong(at, *text, 64<<10))
		}
		n, err := countIndexes(*text, completions)
		if err != nil {
			errs = append(errs, field.Invalid(at, *text, "error parsing succeededIndexes: "+err.Error()))
		}
		total = n
	}
	if n := r.SucceededCount; n != nil {
		at := path.Child("succeededCount")
		errs = append(errs, core.NotNegative(at, n)...)
		if s.Completions != nil && *n > completions {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
		}
		if r.SucceededIndexes != nil && *n > total {
			errs = append(errs, field.Invalid(at, *n, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

// countIndexes reads "1,3-5": increasing indexes below completions.
func countIndexes(text string, completions int32) (int32, error) {
	if text == "" {
		return 0, nil
	}
	last, total := int64(-1), int32(0)
	parse := func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("cannot convert string to integer for index: %q", s)
		}
		if n >= int64(completions) {
			return 0, fmt.Errorf("too large index: %q", s)
		}
		return n, nil
	}
	for _, part := range strings.Split(text, ",") {
		limits := strings.Split(part, "-")
		if len(limits) > 2 {
			return 0, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", part)
		}
		from, err := parse(limits[0])
		if err != nil {
			return 0, err
		}
		if last >= from {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, from)
		}
		to := from
		if len(limits) == 2 {
			if to, err = parse(limits[1]); err != nil {
				return 0, err
			}
			if from >= to {
				return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", from, to)
			}
		}
		total += int32(to - from + 1)
		last = to
	}
	return total, nil
}

func validateJobUpdate(x, old *batchv1.Job) field.ErrorList {
	errs := validateJob(x)
	path, now, was := field.NewPath("spec"), &x.Spec, &old.Spec
	errs = append(errs, validateCompletionsUpdate(path.Child("completions"), now, was)...)
	errs = append(errs, core.Immutable(path.Child("selector"), now.Selector, was.Selector)...)
	errs = append(errs, immutableTemplate(path.Child("template"), now, was, old)...)
	errs = append(errs, core.Immutable(path.Child("completionMode"), now.CompletionMode, was.CompletionMode)...)
	errs = append(errs, core.Immutable(path.Child("podFailurePolicy"), now.PodFailurePolicy, was.PodFailurePolicy)...)
	errs = append(errs, core.Immutable(path.Child("backoffLimitPerIndex"), now.BackoffLimitPerIndex, was.BackoffLimitPerIndex)...)
	errs = append(errs, core.Immutable(path.Child("managedBy"), now.ManagedBy, was.ManagedBy)...)
	errs = append(errs, core.Immutable(path.Child("successPolicy"), now.SuccessPolicy, was.SuccessPolicy)...)
	return errs
}

func immutableTemplate(path *field.Path, now, was *batchv1.JobSpec, old *batchv1.Job) field.ErrorList {
	t := now.Template.DeepCopy()
	if was.Suspend != nil && *was.Suspend && old.Status.StartTime == nil { // where its pods may run can change until it starts (KEP-2926)
		t.Spec.NodeSelector, t.Spec.Tolerations = was.Template.Spec.NodeSelector, was.Template.Spec.Tolerations
		t.Spec.Affinity, t.Spec.SchedulingGates = was.Template.Spec.Affinity, was.Template.Spec.SchedulingGates
		t.Labels, t.Annotations = was.Template.Labels, was.Template.Annotations
	}
	if !equality.Semantic.DeepEqual(t, &was.Template) {
		return core.Immutable(path, now.Template, was.Template)
	}
	return nil
}

// validateCompletionsUpdate lets indexed jobs grow and shrink as a whole (KEP-3715).
func validateCompletionsUpdate(path *field.Path, now, was *batchv1.JobSpec) field.ErrorList {
	if !indexed(now) || now.Completions == nil {
		return core.Immutable(path, now.Completions, was.Completions)
	}
	if equality.Semantic.DeepEqual(now.Completions, was.Completions) && equality.Semantic.DeepEqual(now.Parallelism, was.Parallelism) {
		return nil
	}
	switch {
	case was.Completions != nil && *now.Completions == *was.Completions:
		return nil
	case now.Parallelism != nil && was.Parallelism != nil && *now.Completions == *now.Parallelism:
		return nil
	}
	return field.ErrorList{field.Invalid(path, *now.Completions, "can only be modified in tandem with spec.parallelism")}
}
