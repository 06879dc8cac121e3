// Package spec translates pods to what the container runtime is told: sandboxes, containers, name resolution, the
// hosts file.
//
// Invariant: everything here is pure, so the same pod gives the same configuration after a restart of the agent.
//
// Only node imports spec.
package spec

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/cri"
)

// Node is what the configuration of every pod depends on beside the pod.
type Node struct {
	Name          string
	PodLogDir     string
	SeccompDir    string // holds localhost seccomp profiles
	ClusterDNS    []string
	ClusterDomain string
	HostDNS       DNS
	Memory        int64 // the node's, in bytes, for the OOM score
}

// LogDir is the folder of a pod's logs.
func LogDir(root string, namespace, name, uid string) string {
	return filepath.Join(root, namespace+"_"+name+"_"+uid)
}

func podLabels(pod *corev1.Pod) map[string]string {
	l := map[string]string{}
	for k, v := range pod.Labels {
		l[k] = v
	}
	l[cri.LabelPodName], l[cri.LabelPodNamespace], l[cri.LabelPodUID] = pod.Name, pod.Namespace, string(pod.UID)
	return l
}

// Sandbox is the configuration of a pod's sandbox.
func (n *Node) Sandbox(pod *corev1.Pod, attempt int, cgroupParent string) (*runtimeapi.PodSandboxConfig, error) {
	host, err := Hostname(pod, n.Name, n.ClusterDomain)
	if err != nil {
		return nil, err
	}
	cfg := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: uint32(attempt)},
		LogDirectory: LogDir(n.PodLogDir, pod.Namespace, pod.Name, string(pod.UID)),
		Labels:       podLabels(pod), Annotations: pod.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: cgroupParent, Sysctls: map[string]string{}, SecurityContext: sandboxSecurity(pod)},
	}
	if !pod.Spec.HostNetwork {
		cfg.Hostname = host
	}
	dns := n.DNS(pod)
	cfg.DnsConfig = &runtimeapi.DNSConfig{Servers: dns.Servers, Searches: dns.Searches, Options: dns.Options}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			cfg.Linux.Sysctls[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
		}
		if sc.SeccompProfile != nil {
			if cfg.Linux.SecurityContext.Seccomp, err = n.seccomp(sc.SeccompProfile); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range pod.Spec.Containers {
		cfg.PortMappings = append(cfg.PortMappings, ports(pod, &c)...)
	}
	for i := range pod.Spec.InitContainers {
		cfg.PortMappings = append(cfg.PortMappings, ports(pod, &pod.Spec.InitContainers[i])...)
	}
	return cfg, nil
}

func ports(pod *corev1.Pod, c *corev1.Container) []*runtimeapi.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var out []*runtimeapi.PortMapping
	for _, p := range c.Ports {
		m := &runtimeapi.PortMapping{ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP}
		switch p.Protocol {
		case corev1.ProtocolUDP:
			m.Protocol = runtimeapi.Protocol_UDP
		case corev1.ProtocolSCTP:
			m.Protocol = runtimeapi.Protocol_SCTP
		}
		out = append(out, m)
	}
	return out
}

func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

func sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	out := &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces(pod),
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if privileged(&list[i]) {
				out.Privileged = true
			}
		}
	}
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return out
	}
	if sc.RunAsUser != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
	}
	if sc.RunAsGroup != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
	}
	out.SupplementalGroups = groups(sc)
	out.SupplementalGroupsPolicy = groupsPolicy(sc)
	out.SelinuxOptions = selinux(sc.SELinuxOptions)
	return out
}

func groups(sc *corev1.PodSecurityContext) []int64 {
	var out []int64
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	return append(out, sc.SupplementalGroups...)
}

func groupsPolicy(sc *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func (n *Node) seccomp(p *corev1.SeccompProfile) (*runtimeapi.SecurityProfile, error) {
	if p == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	switch p.Type {
	case corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case corev1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil || !filepath.IsLocal(*p.LocalhostProfile) {
			return nil, fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost")
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join(n.SeccompDir, *p.LocalhostProfile)}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
}

func apparmor(p *corev1.AppArmorProfile) *runtimeapi.SecurityProfile {
	if p == nil {
		return nil
	}
	switch p.Type {
	case corev1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case corev1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile != nil {
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}
		}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}

func itoa(n int) string { return strconv.Itoa(n) }
