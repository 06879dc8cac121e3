package podautoscaler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/reconcile"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func pod(name string, edit func(*corev1.Pod)) *corev1.Pod {
	start := metav1.NewTime(now.Add(-time.Hour))
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &start, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: start}}}}
	if edit != nil {
		edit(p)
	}
	return p
}

func someOf(n int) (out []*corev1.Pod) {
	for i := range n {
		out = append(out, pod(fmt.Sprint("p", i), nil))
	}
	return out
}

func unready(p *corev1.Pod) {
	p.Status.Conditions[0].Status = corev1.ConditionFalse
	p.Status.StartTime = ptr.To(metav1.NewTime(now.Add(-time.Minute)))
}

// longRunning is of a pod that has been up for an hour by the test's clock.
func longRunning(p *corev1.Pod) {
	at := metav1.NewTime(time.Now().Add(-time.Hour))
	p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = &at, at
}

// Each case is pods, their use in thousandths of a processor (-1: not measured), and what comes out for a target of 50 %.
func TestReplicasForUtilization(t *testing.T) {
	for name, c := range map[string]struct {
		pods []*corev1.Pod
		use  []int64
		want int32
	}{
		"doubled load doubles the pods":                  {someOf(3), []int64{1000, 1000, 1000}, 6},
		"half the load halves them":                      {someOf(4), []int64{250, 250, 250, 250}, 2},
		"within the tolerance nothing happens":           {someOf(4), []int64{540, 540, 540, 540}, 4},
		"just beyond it something does":                  {someOf(4), []int64{560, 560, 560, 560}, 5},
		"the unmeasured use nothing when growing":        {someOf(4), []int64{1000, 1000, -1, -1}, 4},
		"the unmeasured use all when shrinking":          {someOf(4), []int64{100, 100, 100, -1}, 3},
		"the unready use nothing when growing":           {append(someOf(2), pod("p2", unready)), []int64{1000, 1000, 900}, 4},
		"and do not count when shrinking":                {append(someOf(2), pod("p2", unready)), []int64{250, 250, 900}, 1},
		"the failed and the deleted do not count":        {append(someOf(2), pod("p2", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })), []int64{1000, 1000, 5000}, 4},
		"assumptions never turn the direction of travel": {someOf(3), []int64{400, -1, -1}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			samples := map[string]Sample{}
			for i, u := range c.use {
				if u >= 0 {
					samples[fmt.Sprint("p", i)] = Sample{Value: u, At: now, Window: time.Minute}
				}
			}
			o := &observation{pods: c.pods, current: int32(len(c.pods)), now: now, tolerance: tolerance{0.1, 0.1}}
			_, n, err := o.percent(sortPods(c.pods, samples, corev1.ResourceCPU, now), corev1.ResourceCPU, "", 50)
			if err != nil || n != c.want {
				t.Errorf("%d replicas (%v), want %d", n, err, c.want)
			}
		})
	}
	o := &observation{pods: someOf(1), current: 1, now: now}
	if _, _, err := o.percent(sortPods(o.pods, nil, corev1.ResourceCPU, now), corev1.ResourceCPU, "", 50); !errors.Is(err, errNoSamples) {
		t.Errorf("without samples: %v", err)
	}
	if _, err := requestsOf([]*corev1.Pod{pod("x", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = nil })}, "", corev1.ResourceCPU); err == nil || err.Error() != "missing request for cpu in container c of Pod x" {
		t.Errorf("without a request: %v", err)
	}
}

func TestBehaviorLimitsTheRate(t *testing.T) {
	policy := func(typ autoscalingv2.HPAScalingPolicyType, value, seconds int32) autoscalingv2.HPAScalingPolicy {
		return autoscalingv2.HPAScalingPolicy{Type: typ, Value: value, PeriodSeconds: seconds}
	}
	two := []autoscalingv2.HPAScalingPolicy{policy(autoscalingv2.PodsScalingPolicy, 4, 60), policy(autoscalingv2.PercentScalingPolicy, 100, 60)}
	for name, c := range map[string]struct {
		current, desired int32
		rules            autoscalingv2.HPAScalingRules
		past             []change
		want             int32
		reason           string
	}{
		"the larger change counts":         {2, 50, autoscalingv2.HPAScalingRules{Policies: two}, nil, 6, "ScaleUpLimit"},
		"or the smaller if asked for":      {2, 50, autoscalingv2.HPAScalingRules{Policies: two, SelectPolicy: ptr.To(autoscalingv2.MinChangePolicySelect)}, nil, 4, "ScaleUpLimit"},
		"or none":                          {2, 50, autoscalingv2.HPAScalingRules{Policies: two, SelectPolicy: ptr.To(autoscalingv2.DisabledPolicySelect)}, nil, 2, "ScaleUpLimit"},
		"what was added lately counts":     {8, 50, autoscalingv2.HPAScalingRules{Policies: two[:1]}, []change{{3, now.Add(-30 * time.Second)}}, 9, "ScaleUpLimit"},
		"what was added before does not":   {8, 50, autoscalingv2.HPAScalingRules{Policies: two[:1]}, []change{{3, now.Add(-90 * time.Second)}}, 12, "ScaleUpLimit"},
		"the maximum is a limit too":       {28, 50, autoscalingv2.HPAScalingRules{Policies: two}, nil, 30, "TooManyReplicas"},
		"down by pods":                     {20, 3, autoscalingv2.HPAScalingRules{Policies: two[:1]}, nil, 16, "ScaleDownLimit"},
		"down by percent":                  {20, 3, autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{policy(autoscalingv2.PercentScalingPolicy, 10, 60)}}, nil, 18, "ScaleDownLimit"},
		"the minimum is a limit too":       {4, 0, autoscalingv2.HPAScalingRules{Policies: two}, nil, 2, "TooFewReplicas"},
		"within the limits all is granted": {4, 5, autoscalingv2.HPAScalingRules{Policies: two}, nil, 5, "DesiredWithinRange"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{changes: c.past}
			if out := (bounds{2, 30}).byRules(c.current, c.desired, &c.rules, &c.rules, m, now); out.replicas != c.want || out.reason != c.reason {
				t.Errorf("%d %s, want %d %s", out.replicas, out.reason, c.want, c.reason)
			}
		})
	}
	if out := (bounds{1, 100}).plainly(10, 90); out.replicas != 20 || out.reason != "ScaleUpLimit" {
		t.Errorf("without a behaviour: %+v, want twice as many", out)
	}
}

// Whatever the metrics ask for, the limits hold.
func TestLimitsAlwaysHold(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := bounds{least: r.Int32N(5), most: 5 + r.Int32N(50)}
		current, desired := b.least+r.Int32N(b.most-b.least+1), r.Int32N(200)
		rule := autoscalingv2.HPAScalingRules{Policies: []autoscalingv2.HPAScalingPolicy{
			{Type: autoscalingv2.PodsScalingPolicy, Value: 1 + r.Int32N(5), PeriodSeconds: 60}, {Type: autoscalingv2.PercentScalingPolicy, Value: 1 + r.Int32N(100), PeriodSeconds: 30}}}
		m := &memory{changes: []change{{r.Int32N(20) - 10, now.Add(-time.Duration(r.IntN(90)) * time.Second)}}}
		for _, out := range []outcome{b.plainly(current, desired), b.byRules(current, desired, &rule, &rule, m, now)} {
			if out.replicas < b.least || out.replicas > b.most || desired > current && out.replicas < current || desired < current && out.replicas > current {
				t.Fatalf("%d of %+v for %d at %d", out.replicas, b, desired, current)
			}
		}
	}
}

// fake is a workload that is measured.
type fake struct {
	mu       sync.Mutex
	replicas int32
	use      int64 // of each pod, in thousandths of a processor
	down     bool  // nothing can be measured
	changes  []int32
}

func (f *fake) Resource(context.Context, corev1.ResourceName, string, labels.Selector, string) (map[string]Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errors.New("the metrics server is away")
	}
	out := map[string]Sample{}
	for i := range 50 {
		out[fmt.Sprint("p", i)] = Sample{Value: f.use, At: time.Now(), Window: time.Minute}
	}
	return out, nil
}
func (f *fake) Pods(context.Context, string, string, labels.Selector, labels.Selector) (map[string]Sample, error) {
	return nil, errors.New("none")
}
func (f *fake) Object(context.Context, string, string, string, string, string, labels.Selector) (int64, error) {
	return 0, errors.New("none")
}
func (f *fake) External(context.Context, string, string, labels.Selector) ([]int64, error) {
	return nil, errors.New("none")
}

func (f *fake) Get(context.Context, string, string, string, string) (*autoscalingv1.Scale, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: autoscalingv1.ScaleSpec{Replicas: f.replicas},
		Status: autoscalingv1.ScaleStatus{Replicas: f.replicas, Selector: "app=web"}}, nil
}

func (f *fake) Update(_ context.Context, _, _, _ string, s *autoscalingv1.Scale) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas = s.Spec.Replicas
	f.changes = append(f.changes, s.Spec.Replicas)
	return nil
}

func (f *fake) set(edit func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit()
}

func TestAutoscalerGrowsAtOnceAndShrinksLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &fake{replicas: 4, use: 1000}
		h := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MinReplicas: ptr.To[int32](2), MaxReplicas: 10,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr.To[int32](50)}}}}}}
		a := clienttest.New(clock.RealClock{}, h)
		for i := range 4 {
			a.Put(pod(fmt.Sprint("p", i), longRunning))
		}
		caches := client.NewCaches(a, nil)
		c := With(reconcile.NewDeps("horizontal-pod-autoscaler", a, caches, nil, nil), f, f)
		done := make(chan error, 2)
		go func() { done <- caches.Run(ctx) }()
		go func() { done <- reconcile.Run(ctx, reconcile.Options{}, c) }()
		settle := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		settle(time.Second)
		status := func() (s autoscalingv2.HorizontalPodAutoscalerStatus, conditions string) {
			o, err := client.Get[*autoscalingv2.HorizontalPodAutoscaler](ctx, a, "default", "h")
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, c := range o.Status.Conditions {
				all = append(all, string(c.Type)+" "+string(c.Status)+" "+c.Reason)
			}
			slices.Sort(all)
			return o.Status, strings.Join(all, ", ")
		}
		if s, got := status(); s.DesiredReplicas != 8 || got != "AbleToScale True SucceededRescale, ScalingActive True ValidMetricFound, ScalingLimited False DesiredWithinRange" {
			t.Fatalf("desired %d, conditions %s", s.DesiredReplicas, got)
		}
		for i := 4; i < 8; i++ {
			a.Put(pod(fmt.Sprint("p", i), longRunning))
		}
		f.set(func() { f.use = 125 })
		settle(4 * time.Minute)
		if s, got := status(); s.CurrentReplicas != 8 || !strings.Contains(got, "AbleToScale True ScaleDownStabilized") {
			t.Errorf("within the window: %d replicas, %s", s.CurrentReplicas, got)
		}
		f.set(func() { f.down = true })
		settle(5 * time.Minute)
		if s, got := status(); s.CurrentReplicas != 8 || !strings.Contains(got, "ScalingActive False FailedGetResourceMetric") {
			t.Errorf("without metrics: %d replicas, %s", s.CurrentReplicas, got)
		}
		f.set(func() { f.down = false })
		settle(6 * time.Minute)
		if s, _ := status(); s.CurrentReplicas != 2 {
			t.Errorf("after the window %d replicas, want 2", s.CurrentReplicas)
		}
		if want := []int32{8, 2}; !slices.Equal(f.changes, want) {
			t.Errorf("scaled to %v, want %v", f.changes, want)
		}
		cancel()
		<-done
		<-done
	})
}
