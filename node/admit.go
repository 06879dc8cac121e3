package node

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/skiff-sh/skiff/node/lifecycle"
)

// admitter refuses pods that do not fit on the node, whoever bound them to it.
type admitter struct {
	maxPods int
	mu      sync.Mutex
	pods    map[types.UID]corev1.ResourceList
	ports   map[types.UID][]hostPort // of those that have any
}

func newAdmitter(maxPods int) *admitter {
	return &admitter{maxPods: maxPods, pods: map[types.UID]corev1.ResourceList{}, ports: map[types.UID][]hostPort{}}
}

// admit counts a pod in, or says why it is refused. A pod that ran here before is never refused.
func (m *admitter) admit(pod *corev1.Pod, a *Agent, ran bool) *lifecycle.Refusal {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || len(pod.Spec.Containers) == 0 {
		return nil
	}
	req := requests(pod)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ran && len(pod.Status.ContainerStatuses) == 0 && pod.DeletionTimestamp == nil {
		if r := m.refusal(pod, a, req); r != nil {
			a.event(pod, "", corev1.EventTypeWarning, r.Reason, "%s", r.Message)
			return &lifecycle.Refusal{Reason: r.Reason, Message: "Pod was rejected: " + r.Message}
		}
	}
	m.pods[pod.UID] = req
	if ports := hostPortsOf(pod); len(ports) > 0 {
		m.ports[pod.UID] = ports
	}
	return nil
}

func (m *admitter) refusal(pod *corev1.Pod, a *Agent, req corev1.ResourceList) *lifecycle.Refusal {
	if n, ok := a.nodes.Get("", a.cfg.Name); ok {
		if match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(n); err == nil && !match {
			return &lifecycle.Refusal{Reason: "NodeAffinity", Message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
		}
	}
	if m.taken(hostPortsOf(pod)) {
		return &lifecycle.Refusal{Reason: "NodePorts", Message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
	}
	if len(m.pods) >= m.maxPods {
		return outOf("pods", 1, int64(len(m.pods)), int64(m.maxPods))
	}
	for name, have := range a.allocatable() {
		want, ok := req[name]
		if !ok || want.IsZero() {
			continue
		}
		var used resource.Quantity
		for _, p := range m.pods {
			used.Add(p[name])
		}
		sum := used.DeepCopy()
		sum.Add(want)
		if sum.Cmp(have) > 0 {
			if name == corev1.ResourceCPU {
				return outOf(string(name), want.MilliValue(), used.MilliValue(), have.MilliValue())
			}
			return outOf(string(name), want.Value(), used.Value(), have.Value())
		}
	}
	return nil
}

func outOf(name string, requested, used, capacity int64) *lifecycle.Refusal {
	return &lifecycle.Refusal{Reason: "OutOf" + name,
		Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)}
}

// release counts a pod out.
func (m *admitter) release(uid types.UID) {
	m.mu.Lock()
	delete(m.pods, uid)
	delete(m.ports, uid)
	m.mu.Unlock()
}

// requests sums up what a pod asks for: the larger of its containers together and each init container.
func requests(pod *corev1.Pod) corev1.ResourceList {
	run, peak := corev1.ResourceList{}, corev1.ResourceList{}
	add := func(to, r corev1.ResourceList) {
		for n, q := range r {
			s := to[n]
			s.Add(q)
			to[n] = s
		}
	}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(run, c.Resources.Requests)
			continue
		}
		now := run.DeepCopy()
		add(now, c.Resources.Requests)
		raise(peak, now)
	}
	for _, c := range pod.Spec.Containers {
		add(run, c.Resources.Requests)
	}
	raise(peak, run)
	add(peak, pod.Spec.Overhead)
	return peak
}

func raise(to, r corev1.ResourceList) {
	for n, q := range r {
		if s, ok := to[n]; !ok || s.Cmp(q) < 0 {
			to[n] = q.DeepCopy()
		}
	}
}
