package node

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// hostPort is a port that a pod takes of the node.
type hostPort struct {
	ip       string // "0.0.0.0" for all
	protocol corev1.Protocol
	port     int32
}

func hostPortsOf(pod *corev1.Pod) (out []hostPort) {
	containers := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for i := range containers {
		for _, p := range containers[i].Ports {
			if p.HostPort > 0 {
				out = append(out, hostPort{cmp.Or(p.HostIP, "0.0.0.0"), cmp.Or(p.Protocol, corev1.ProtocolTCP), p.HostPort})
			}
		}
	}
	return out
}

func (p hostPort) conflicts(o hostPort) bool {
	const all = "0.0.0.0"
	return p.port == o.port && p.protocol == o.protocol && (p.ip == o.ip || p.ip == all || o.ip == all)
}

// taken reports whether a pod that is counted in has one of the ports.
func (m *admitter) taken(ports []hostPort) bool {
	for _, theirs := range m.ports {
		for _, p := range theirs {
			if slices.ContainsFunc(ports, p.conflicts) {
				return true
			}
		}
	}
	return false
}
