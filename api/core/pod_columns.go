package core

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/api"
)

var podColumns = []api.Column{
	api.NameColumn(),
	api.Col("Ready", "string", func(p *corev1.Pod) any { s := summarize(p); return fmt.Sprintf("%d/%d", s.ready, s.total) }),
	api.Col("Status", "string", func(p *corev1.Pod) any { return summarize(p).status }),
	api.ColAt("Restarts", func(p *corev1.Pod, now time.Time) any {
		s := summarize(p)
		if s.restarts != 0 && !s.lastRestart.IsZero() {
			return fmt.Sprintf("%d (%s ago)", s.restarts, api.Age(s.lastRestart, now))
		}
		return strconv.Itoa(s.restarts)
	}).SteadyWhen(func(o api.Object) bool {
		s := summarize(o.(*corev1.Pod))
		return s.restarts == 0 || s.lastRestart.IsZero()
	}),
	api.AgeColumn(),
	api.Col("IP", "string", func(p *corev1.Pod) any {
		if len(p.Status.PodIPs) > 0 {
			return orNoneText(p.Status.PodIPs[0].IP)
		}
		return orNoneText(p.Status.PodIP)
	}).Wide(),
	api.Col("Node", "string", func(p *corev1.Pod) any { return orNoneText(p.Spec.NodeName) }).Wide(),
	api.Col("Nominated Node", "string", func(p *corev1.Pod) any { return orNoneText(p.Status.NominatedNodeName) }).Wide(),
	api.Col("Readiness Gates", "string", func(p *corev1.Pod) any { return gatesText(p) }).Wide(),
}

func orNoneText(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func gatesText(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	open := 0
	for _, g := range p.Spec.ReadinessGates {
		for _, c := range p.Status.Conditions {
			if c.Type == g.ConditionType {
				if c.Status == corev1.ConditionTrue {
					open++
				}
				break
			}
		}
	}
	return fmt.Sprintf("%d/%d", open, len(p.Spec.ReadinessGates))
}

// summary is a pod in one line.
type summary struct {
	ready, total int
	status       string
	restarts     int
	lastRestart  metav1.Time
}

func summarize(p *corev1.Pod) summary {
	s := summary{total: len(p.Spec.Containers), status: string(p.Status.Phase)}
	if p.Status.Reason != "" {
		s.status = p.Status.Reason
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			s.status = corev1.PodReasonSchedulingGated
		}
	}
	sidecar := map[string]bool{}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecar[c.Name] = true
			s.total++
		}
	}
	initializing, sidecarRestarts, lastSidecar := s.addInit(p, sidecar)
	if !initializing || initialized(p) {
		s.addContainers(p, sidecarRestarts, lastSidecar)
	}
	if p.DeletionTimestamp != nil {
		switch {
		case p.Status.Reason == "NodeLost":
			s.status = "Unknown"
		case p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed:
			s.status = "Terminating"
		}
	}
	return s
}

func initialized(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodInitialized {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// addInit counts init containers up to the first that is not done, whose state is the pod's status.
func (s *summary) addInit(p *corev1.Pod, sidecar map[string]bool) (initializing bool, sidecarRestarts int, lastSidecar metav1.Time) {
	for i := range p.Status.InitContainerStatuses {
		c := &p.Status.InitContainerStatuses[i]
		s.restarts += int(c.RestartCount)
		later(&s.lastRestart, c.LastTerminationState.Terminated)
		if sidecar[c.Name] {
			sidecarRestarts += int(c.RestartCount)
			later(&lastSidecar, c.LastTerminationState.Terminated)
		}
		t, w := c.State.Terminated, c.State.Waiting
		switch {
		case t != nil && t.ExitCode == 0:
			continue
		case sidecar[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case t != nil:
			s.status = "Init:" + terminatedText(t)
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
			s.status = "Init:" + w.Reason
		default:
			s.status = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true, sidecarRestarts, lastSidecar
	}
	return false, sidecarRestarts, lastSidecar
}

// addContainers counts the containers; the state of the first that is in trouble is the pod's status.
func (s *summary) addContainers(p *corev1.Pod, restarts int, last metav1.Time) {
	s.restarts, s.lastRestart = restarts, last
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		c := &p.Status.ContainerStatuses[i]
		s.restarts += int(c.RestartCount)
		later(&s.lastRestart, c.LastTerminationState.Terminated)
		t, w := c.State.Terminated, c.State.Waiting
		switch {
		case w != nil && w.Reason != "":
			s.status = w.Reason
		case t != nil:
			s.status = terminatedText(t)
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	if s.status == "Completed" && running {
		s.status = "NotReady"
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				s.status = "Running"
			}
		}
	}
}

func terminatedText(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

func later(last *metav1.Time, t *corev1.ContainerStateTerminated) {
	if t != nil && last.Before(&t.FinishedAt) {
		*last = t.FinishedAt
	}
}

// ContainerNames lists the names of a pod's containers.
func ContainerNames(s *corev1.PodSpec) string {
	return join(s.Containers, func(c *corev1.Container) string { return c.Name })
}

// ContainerImages lists the images of a pod's containers.
func ContainerImages(s *corev1.PodSpec) string {
	return join(s.Containers, func(c *corev1.Container) string { return c.Image })
}

func join(cs []corev1.Container, f func(*corev1.Container) string) string {
	out := ""
	for i := range cs {
		if i > 0 {
			out += ","
		}
		out += f(&cs[i])
	}
	return out
}

// LabelText writes labels in order, "<none>" if there are none.
func LabelText(m map[string]string) string {
	if len(m) == 0 {
		return "<none>"
	}
	return labels.FormatLabels(m)
}
