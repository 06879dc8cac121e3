// Package podautoscaler keeps the number of replicas of a workload in step with what its pods, or something else, are
// measured to do (HorizontalPodAutoscaler).
//
// Invariant: a workload is never scaled outside its minReplicas and maxReplicas, never down while one of its metrics
// cannot be read, and never faster than its behaviour allows. Only controllers/ may import podautoscaler.
package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/pods"
)

// Upstream's defaults.
const (
	defaultTolerance = 0.1
	// cpuInitialization is how long after its start a pod's processor use counts only if it was ready throughout.
	cpuInitialization = 5 * time.Minute
	// readinessDelay is how long after its start a pod that is not ready yet counts as not ready for the first time.
	readinessDelay = 30 * time.Second
)

// Sample is what was measured of one pod, in thousandths.
type Sample struct {
	Value  int64
	At     time.Time
	Window time.Duration
}

// tolerance is how far a ratio may be from one without anything being done.
type tolerance struct{ down, up float64 }

func (t tolerance) covers(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// sorted is a workload's pods as one metric sees them. Samples are of the ready pods alone.
type sorted struct {
	samples          map[string]Sample
	ready            int
	unready, missing []string
}

// sortPods tells pods that count from those that are starting and those without a sample. Pods that are on their way
// out count for nothing.
func sortPods(all []*corev1.Pod, samples map[string]Sample, resource corev1.ResourceName, now time.Time) sorted {
	s := sorted{samples: map[string]Sample{}}
	for _, p := range all {
		sample, known := samples[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
		case p.Status.Phase == corev1.PodPending:
			s.unready = append(s.unready, p.Name)
		case !known:
			s.missing = append(s.missing, p.Name)
		case resource == corev1.ResourceCPU && starting(p, sample, now):
			s.unready = append(s.unready, p.Name)
		default:
			s.ready++
			s.samples[p.Name] = sample
		}
	}
	return s
}

// starting reports whether the processor use of a pod says more about its start than about its load.
func starting(p *corev1.Pod, s Sample, now time.Time) bool {
	c := pods.Condition(p, corev1.PodReady)
	if c == nil || p.Status.StartTime == nil {
		return true
	}
	if p.Status.StartTime.Add(cpuInitialization).After(now) {
		return c.Status == corev1.ConditionFalse || s.At.Before(c.LastTransitionTime.Add(s.Window))
	}
	return c.Status == corev1.ConditionFalse && p.Status.StartTime.Add(readinessDelay).After(c.LastTransitionTime.Time)
}

var (
	errNoPods    = errors.New("no pods returned by selector while calculating replica count")
	errNoSamples = errors.New("did not receive metrics for targeted pods (pods might be unready)")
)

// count is how many replicas bring the measured mean to its target. ratio compares samples with the target; assume is
// the value of a pod without a sample when the workload may shrink: pods are assumed to do the least harmful, so that
// what is not known never turns the direction.
func count(all []*corev1.Pod, s sorted, current int32, t tolerance, ratio func(map[string]Sample) (float64, error), assume func(pod string) int64) (int32, error) {
	if len(all) == 0 {
		return 0, errNoPods
	}
	if len(s.samples) == 0 {
		return 0, errNoSamples
	}
	first, err := ratio(s.samples)
	if err != nil {
		return 0, err
	}
	growsWithUnready := len(s.unready) > 0 && first > 1
	if !growsWithUnready && len(s.missing) == 0 {
		if t.covers(first) {
			return current, nil
		}
		return toReplicas(first * float64(s.ready)), nil
	}
	for _, name := range s.missing {
		switch {
		case first < 1:
			s.samples[name] = Sample{Value: assume(name)}
		case first > 1:
			s.samples[name] = Sample{}
		}
	}
	if growsWithUnready {
		for _, name := range s.unready {
			s.samples[name] = Sample{}
		}
	}
	then, err := ratio(s.samples)
	if err != nil {
		return 0, err
	}
	if t.covers(then) || first < 1 && then > 1 || first > 1 && then < 1 {
		return current, nil
	}
	n := toReplicas(then * float64(len(s.samples)))
	if then < 1 && n > current || then > 1 && n < current {
		return current, nil
	}
	return n, nil
}

func toReplicas(f float64) int32 { return int32(min(math.Ceil(f), math.MaxInt32)) }

// utilization compares samples with the pods' requests: their part in percent, and the mean sample.
func utilization(samples map[string]Sample, requests map[string]int64, target int32) (ratio float64, percent int32, mean int64, err error) {
	var used, asked int64
	n := int64(0)
	for name, s := range samples {
		r, ok := requests[name]
		if !ok {
			continue
		}
		used, asked, n = used+s.Value, asked+r, n+1
	}
	if asked == 0 {
		return 0, 0, 0, errors.New("no metrics returned matched known pods")
	}
	percent = int32(used * 100 / asked)
	return float64(percent) / float64(target), percent, used / n, nil
}

// average compares the samples' mean with a target in thousandths.
func average(samples map[string]Sample, target int64) (ratio float64, mean int64) {
	for _, s := range samples {
		mean += s.Value
	}
	mean /= int64(len(samples))
	return float64(mean) / float64(target), mean
}

// requestsOf is what each pod asks of a resource in thousandths, one container's if it is named.
func requestsOf(all []*corev1.Pod, container string, resource corev1.ResourceName) (map[string]int64, error) {
	out := make(map[string]int64, len(all))
	for _, p := range all {
		n, err := requestOf(p, container, resource)
		if err != nil {
			return nil, err
		}
		out[p.Name] = n
	}
	return out, nil
}

func requestOf(p *corev1.Pod, container string, resource corev1.ResourceName) (int64, error) {
	if container == "" && resourcehelper.IsPodLevelRequestsSet(p) {
		q, ok := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})[resource]
		if !ok {
			return 0, fmt.Errorf("missing pod-level request for %s in Pod %s", resource, p.Name)
		}
		return q.MilliValue(), nil
	}
	var sum int64
	found := container == ""
	add := func(c *corev1.Container) error {
		if container != "" && c.Name != container {
			return nil
		}
		q, ok := c.Resources.Requests[resource]
		if !ok {
			return fmt.Errorf("missing request for %s in container %s of Pod %s", resource, c.Name, p.Name)
		}
		found = true
		sum += q.MilliValue()
		return nil
	}
	for i := range p.Spec.Containers {
		if err := add(&p.Spec.Containers[i]); err != nil {
			return 0, err
		}
	}
	for i := range p.Spec.InitContainers {
		if ptr.Deref(p.Spec.InitContainers[i].RestartPolicy, "") != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if err := add(&p.Spec.InitContainers[i]); err != nil {
			return 0, err
		}
	}
	if !found {
		return 0, fmt.Errorf("container %s not found in Pod %s", container, p.Name)
	}
	return sum, nil
}

// readyPods counts the pods that are up.
func readyPods(all []*corev1.Pod) (n int) {
	for _, p := range all {
		if p.Status.Phase == corev1.PodRunning && pods.Ready(p) {
			n++
		}
	}
	return n
}
