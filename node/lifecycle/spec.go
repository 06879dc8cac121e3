package lifecycle

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// class of a container within the spec.
type class int

const (
	ordinary class = iota
	initial        // runs to its end before the next starts
	sidecar        // an init container that keeps running
	ephemeral
)

// item is one container of the spec with all that is known about it.
type item struct {
	spec  *corev1.Container
	class class
	all   []*Container // newest first
	cur   *Container   // newest, or nil
	mem   ContainerMemory
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// AsContainer gives an ephemeral container the shape of the others.
func AsContainer(e *corev1.EphemeralContainer) *corev1.Container {
	c := corev1.Container(e.EphemeralContainerCommon)
	return &c
}

// Find returns a container of the spec by name, whatever its class.
func Find(pod *corev1.Pod, name string) (*corev1.Container, bool) {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		if i := slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
			return &list[i], true
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return AsContainer(&pod.Spec.EphemeralContainers[i]), true
		}
	}
	return nil, false
}

// Hash identifies the part of a container's spec that a running container cannot follow: a change restarts it.
func Hash(c *corev1.Container) string {
	b, err := json.Marshal([2]string{c.Name, c.Image})
	if err != nil {
		panic(err) // two strings always encode
	}
	h := fnv.New32a()
	h.Write(b)
	return fmt.Sprintf("%x", h.Sum32())
}

// restarts says whether a container that ended with the code is started again.
func restarts(pod *corev1.Pod, c *corev1.Container, cl class, code int32) bool {
	if cl == ephemeral {
		return false
	}
	if cl == sidecar {
		return true
	}
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	policy := corev1.RestartPolicy("")
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	} else {
		policy = pod.Spec.RestartPolicy
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	// "Always" of the pod means "on failure" for a container that is to run to its end.
	return cl != initial || code != 0
}

const (
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
)

// next says when a container that ended may start again, and what to remember then. A container that ran for ten
// minutes has earned a fresh start.
func (b Backoff) next(now, finished time.Time) (at time.Time, after Backoff) {
	if b.Delay == 0 || finished.Sub(b.Since) > 2*maxBackoff {
		return now, Backoff{Delay: firstBackoff, Since: now}
	}
	return finished.Add(b.Delay), Backoff{Delay: min(2*b.Delay, maxBackoff), Since: now}
}

// Again makes the trouble that follows prev, with a doubled delay between first and limit.
func Again(prev *Trouble, now time.Time, reason, message string, first, limit time.Duration) *Trouble {
	d := first
	if prev != nil && prev.Delay > 0 {
		d = min(2*prev.Delay, limit)
	}
	return &Trouble{Reason: reason, Message: message, At: now, Retry: now.Add(d), Delay: d}
}

// items joins the spec with what was observed and remembered.
func (s *stepper) items(list []corev1.Container, isInit bool) []*item {
	out := make([]*item, 0, len(list))
	for i := range list {
		it := &item{spec: &list[i]}
		if isInit {
			it.class = initial
			if isSidecar(it.spec) {
				it.class = sidecar
			}
		}
		s.join(it)
		out = append(out, it)
	}
	return out
}

func (s *stepper) join(it *item) {
	it.mem = s.in.Memory.peek(it.spec.Name)
	for i := range s.in.Observed.Containers {
		if c := &s.in.Observed.Containers[i]; c.Name == it.spec.Name {
			it.all = append(it.all, c)
		}
	}
	if len(it.all) > 0 {
		it.cur = it.all[0]
	}
}

// in the sandbox that is active now
func (it *item) here(sandbox string) *Container {
	if it.cur != nil && it.cur.SandboxID == sandbox {
		return it.cur
	}
	return nil
}

// changed says that the newest container was made from another definition.
func (it *item) changed() bool {
	return it.cur != nil && it.cur.Hash != "" && it.cur.Hash != Hash(it.spec)
}

func (it *item) probes() Probes {
	if it.cur != nil && it.mem.Probes.ID == it.cur.ID {
		return it.mem.Probes
	}
	return Probes{}
}

func (it *item) started() bool {
	return it.cur != nil && it.cur.State == Running && (it.spec.StartupProbe == nil || it.probes().Startup == Success)
}

func (it *item) ready() bool {
	return it.started() && (it.spec.ReadinessProbe == nil || it.probes().Readiness == Success)
}
