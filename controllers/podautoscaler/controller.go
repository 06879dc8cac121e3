package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// period is how often metrics are asked for.
const period = 15 * time.Second

type controller struct {
	reconcile.Deps
	autoscalers *client.Cache[*autoscalingv2.HorizontalPodAutoscaler]
	pods        *client.Cache[*corev1.Pod]
	measure     Measurements
	scales      Scales

	mu     sync.Mutex
	states map[types.UID]*state
}

// state is what is remembered of one autoscaler.
type state struct {
	memory                   // of the worker that visits it
	selector labels.Selector // of its workload, once known; guarded by the controller's mu
}

// New is the horizontal pod autoscaler over the API server's own metrics and scales.
func New(d reconcile.Deps, kinds *api.Table) reconcile.Controller {
	r := remote{d.Client, kinds}
	return With(d, r, r)
}

// With is New with other sources.
func With(d reconcile.Deps, m Measurements, s Scales) reconcile.Controller {
	c := &controller{Deps: d, autoscalers: client.CacheOf[*autoscalingv2.HorizontalPodAutoscaler](d.Caches),
		pods: client.CacheOf[*corev1.Pod](d.Caches), measure: m, scales: s, states: map[types.UID]*state{}}
	return reconcile.Controller{
		Name: "horizontal-pod-autoscaler-controller", Workers: 5,
		Inputs: []reconcile.Input{
			reconcile.Map(d.Caches, func(old, new *autoscalingv2.HorizontalPodAutoscaler) []reconcile.Key {
				switch {
				case new == nil:
					c.forget(old.UID)
					return nil
				case old != nil && equality.Semantic.DeepEqual(old.Spec, new.Spec) && equality.Semantic.DeepEqual(old.Annotations, new.Annotations):
					return nil // its own status
				}
				return []reconcile.Key{plan.KeyOf(new)}
			}),
			reconcile.Map(d.Caches, func(_, _ *corev1.Pod) []reconcile.Key { return nil }), // fills the cache
		},
		Writes:    []string{"autoscaling/horizontalpodautoscalers/status", "*/scale"},
		Reconcile: c.reconcile,
	}
}

func (c *controller) forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.states, uid)
}

func (c *controller) state(uid types.UID) *state {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.states[uid]
	if s == nil {
		s = &state{}
		c.states[uid] = s
	}
	return s
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	h, ok := c.autoscalers.Get(key.Namespace, key.Name)
	if !ok || h.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	v := &visit{controller: c, hpa: h.DeepCopy(), before: h, state: c.state(h.UID), now: c.Clock.Now()}
	err := v.run(ctx)
	if !equality.Semantic.DeepEqual(h.Status, v.hpa.Status) {
		if werr := plan.Apply(ctx, c.Deps, plan.Status(v.hpa)); werr != nil && !apierrors.IsConflict(werr) && !apierrors.IsNotFound(werr) {
			v.event(corev1.EventTypeWarning, "FailedUpdateStatus", "%v", werr)
			err = errors.Join(err, werr)
		}
	}
	if err != nil {
		c.Log.Debug("an autoscaler could not do its work", "autoscaler", key.String(), "err", err)
	}
	return reconcile.Result{After: period}, nil // a failure is told in the status, and looked at again in time
}

// visit is one look at one autoscaler.
type visit struct {
	*controller
	*state
	hpa, before *autoscalingv2.HorizontalPodAutoscaler
	now         time.Time
}

func (v *visit) event(typ, reason, format string, args ...any) {
	v.Events.Eventf(v.before, typ, reason, format, args...)
}

// condition writes a condition; only a change of its status moves the transition time.
func (v *visit) condition(t autoscalingv2.HorizontalPodAutoscalerConditionType, status corev1.ConditionStatus, reason, format string, args ...any) {
	c := autoscalingv2.HorizontalPodAutoscalerCondition{Type: t, Status: status, Reason: reason,
		Message: fmt.Sprintf(format, args...), LastTransitionTime: metav1.NewTime(v.now)}
	for i := range v.hpa.Status.Conditions {
		if old := &v.hpa.Status.Conditions[i]; old.Type == t {
			if old.Status == status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			*old = c
			return
		}
	}
	v.hpa.Status.Conditions = append(v.hpa.Status.Conditions, c)
}

func (v *visit) run(ctx context.Context) error {
	ref, status := v.hpa.Spec.ScaleTargetRef, &v.hpa.Status
	scale, err := v.scale(ctx)
	if err != nil {
		v.event(corev1.EventTypeWarning, "FailedGetScale", "%v", err)
		v.condition(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedGetScale", "the HPA controller was unable to get the target's current scale: %v", err)
		return fmt.Errorf("failed to query scale subresource for %s/%s/%s: %w", ref.Kind, v.hpa.Namespace, ref.Name, err)
	}
	v.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededGetScale", "the HPA controller was able to get the target's current scale")
	current, b := scale.Spec.Replicas, bounds{ptr.Deref(v.hpa.Spec.MinReplicas, 1), v.hpa.Spec.MaxReplicas}
	keep, keepChanges := longest(v.hpa.Spec.Behavior)
	if len(v.recommendations) == 0 {
		v.recommend(current, v.now, keep)
	}
	desired, reason, metrics, err := v.desire(ctx, scale, b)
	if err != nil {
		status.CurrentReplicas = current
		if metrics != nil {
			status.CurrentMetrics = metrics
		}
		v.event(corev1.EventTypeWarning, "FailedComputeMetricsReplicas", "%v", err)
		return fmt.Errorf("failed to compute desired number of replicas based on listed metrics for %s/%s/%s: %w", ref.Kind, v.hpa.Namespace, ref.Name, err)
	}
	status.CurrentReplicas, status.CurrentMetrics = current, metrics
	if desired == current {
		status.DesiredReplicas = current
		return nil
	}
	if err := v.rescale(ctx, scale, desired); err != nil {
		v.event(corev1.EventTypeWarning, "FailedRescale", "New size: %d; reason: %s; error: %v", desired, reason, err)
		v.condition(autoscalingv2.AbleToScale, corev1.ConditionFalse, "FailedUpdateScale", "the HPA controller was unable to update the target scale: %v", err)
		return fmt.Errorf("failed to rescale %s/%s/%s: %w", ref.Kind, v.hpa.Namespace, ref.Name, err)
	}
	v.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, "SucceededRescale", "the HPA controller was able to update the target scale to %d", desired)
	v.event(corev1.EventTypeNormal, "SuccessfulRescale", "New size: %d; reason: %s", desired, reason)
	if v.hpa.Spec.Behavior != nil {
		v.scaled(desired-current, v.now, keepChanges)
	}
	status.DesiredReplicas, status.LastScaleTime = desired, ptr.To(metav1.NewTime(v.now))
	return nil
}

func (v *visit) scale(ctx context.Context) (*autoscalingv1.Scale, error) {
	ref := v.hpa.Spec.ScaleTargetRef
	if _, err := schema.ParseGroupVersion(ref.APIVersion); err != nil {
		return nil, err
	}
	return v.scales.Get(ctx, v.hpa.Namespace, ref.APIVersion, ref.Kind, ref.Name)
}

// rescale writes the scale, again from the latest if somebody else was faster.
func (v *visit) rescale(ctx context.Context, s *autoscalingv1.Scale, n int32) error {
	ref := v.hpa.Spec.ScaleTargetRef
	for tries := 0; ; tries++ {
		s.Spec.Replicas = n
		err := v.scales.Update(ctx, v.hpa.Namespace, ref.APIVersion, ref.Kind, s)
		if !apierrors.IsConflict(err) || tries == 5 {
			return err
		}
		if s, err = v.scale(ctx); err != nil {
			return err
		}
	}
}

// desire is how many replicas the workload should have and why.
func (v *visit) desire(ctx context.Context, s *autoscalingv1.Scale, b bounds) (desired int32, reason string, metrics []autoscalingv2.MetricStatus, err error) {
	current := s.Spec.Replicas
	switch {
	case current == 0 && b.least != 0:
		v.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero")
		return 0, "", nil, nil
	case current > b.most:
		return b.most, "Current number of replicas above Spec.MaxReplicas", nil, nil
	case current < b.least:
		return b.least, "Current number of replicas below Spec.MinReplicas", nil, nil
	}
	best, metrics, err := v.measured(ctx, s)
	if best.replicas < 0 {
		return 0, "", metrics, err
	}
	what := ""
	if desired = best.replicas; desired > 0 {
		what = best.name
	}
	switch {
	case desired > current:
		reason = what + " above target"
	case desired < current:
		reason = "All metrics below target"
	}
	return v.normalize(current, desired, b), reason, metrics, nil
}

// measured asks the metrics for the workload's pods.
func (v *visit) measured(ctx context.Context, s *autoscalingv1.Scale) (best proposal, metrics []autoscalingv2.MetricStatus, err error) {
	none := proposal{replicas: -1}
	sel, err := v.selectorOf(s)
	if err != nil {
		return none, nil, err
	}
	v.mu.Lock()
	v.selector = sel
	v.mu.Unlock()
	var mine []*corev1.Pod
	for _, p := range v.pods.List(v.hpa.Namespace) {
		if sel.Matches(labels.Set(p.Labels)) {
			mine = append(mine, p)
		}
	}
	if rivals := v.rivals(mine); len(rivals) > 1 {
		text := fmt.Sprintf("pods by selector %v are controlled by multiple HPAs: %v", sel, join(rivals))
		v.event(corev1.EventTypeWarning, "AmbiguousSelector", "%s", text)
		v.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "AmbiguousSelector", "%s", text)
		return none, nil, errors.New(text)
	}
	o := &observation{namespace: v.hpa.Namespace, pods: mine, selector: sel, current: s.Spec.Replicas, running: s.Status.Replicas,
		measure: v.measure, now: v.now, tolerance: toleranceOf(v.hpa.Spec.Behavior)}
	best, metrics, failures, err := o.all(ctx, v.hpa.Spec.Metrics)
	for _, f := range failures {
		v.event(corev1.EventTypeWarning, f.reason, "%v", f.err)
	}
	if best.replicas < 0 && len(failures) > 0 {
		v.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, failures[0].reason, "the HPA was unable to compute the replica count: %v", failures[0].err)
		return best, metrics, err
	}
	v.condition(autoscalingv2.ScalingActive, corev1.ConditionTrue, "ValidMetricFound", "the HPA was able to successfully calculate a replica count from %s", best.name)
	return best, metrics, nil
}

func (v *visit) selectorOf(s *autoscalingv1.Scale) (labels.Selector, error) {
	if s.Status.Selector == "" {
		v.event(corev1.EventTypeWarning, "SelectorRequired", "selector is required")
		v.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", "the HPA target's scale is missing a selector")
		return nil, errors.New("selector is required")
	}
	sel, err := labels.Parse(s.Status.Selector)
	if err != nil {
		text := fmt.Sprintf("couldn't convert selector into a corresponding internal selector object: %v", err)
		v.event(corev1.EventTypeWarning, "InvalidSelector", "%s", text)
		v.condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "InvalidSelector", "%s", text)
		return nil, errors.New(text)
	}
	return sel, nil
}

// rivals are the autoscalers of the namespace, this one included, whose workloads select any of the pods.
func (v *visit) rivals(mine []*corev1.Pod) (names []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.autoscalers.List(v.hpa.Namespace) {
		s := v.states[h.UID]
		if h.UID == v.hpa.UID || s != nil && s.selector != nil &&
			slices.ContainsFunc(mine, func(p *corev1.Pod) bool { return s.selector.Matches(labels.Set(p.Labels)) }) {
			names = append(names, h.Namespace+"/"+h.Name)
		}
	}
	slices.Sort(names)
	return names
}

// normalize brings what the metrics ask for within what the autoscaler allows, and says what it did.
func (v *visit) normalize(current, desired int32, b bounds) int32 {
	behavior := v.hpa.Spec.Behavior
	keep, _ := longest(behavior)
	stable, reason, message := desired, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"
	var out outcome
	if behavior == nil {
		stable = v.highest(desired, v.now)
		v.recommend(desired, v.now, keep)
		out = b.plainly(current, stable)
	} else {
		stable = v.stabilize(current, desired, window(behavior.ScaleUp, 0), window(behavior.ScaleDown, downscaleStabilization), v.now)
		v.recommend(desired, v.now, keep)
		if desired >= current {
			reason, message = "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"
		}
		out = b.byRules(current, stable, rules(behavior.ScaleUp), rules(behavior.ScaleDown), &v.memory, v.now)
	}
	if stable != desired {
		v.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, reason, "%s", message)
	} else {
		v.condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, "ReadyForNewScale", "recommended size matches current size")
	}
	status := corev1.ConditionFalse
	if out.replicas != stable {
		status = corev1.ConditionTrue
	}
	v.condition(autoscalingv2.ScalingLimited, status, out.reason, "%s", out.message)
	return out.replicas
}

// rules are a direction's rules; the server fills those in that the user leaves out.
func rules(r *autoscalingv2.HPAScalingRules) *autoscalingv2.HPAScalingRules {
	if r == nil {
		return &autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15}}}
	}
	return r
}
