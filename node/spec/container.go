package spec

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/cri"
	"github.com/skiff-sh/skiff/node/env"
	"github.com/skiff-sh/skiff/node/lifecycle"
)

// Extra is what a container's configuration needs that is not in its pod.
type Extra struct {
	Attempt   int
	Image     string // the reference to run
	Env       []env.Var
	Mounts    []*runtimeapi.Mount // volumes, the hosts file, the termination message
	ImageUser ImageUser
	TargetID  string // container whose processes an ephemeral container sees
}

// ImageUser is whom an image runs as: UID if it is a number, or a name, or neither.
type ImageUser struct {
	UID  *int64
	Name string
}

// Container is the configuration of one container.
func (n *Node) Container(pod *corev1.Pod, c *corev1.Container, x Extra) (*runtimeapi.ContainerConfig, error) {
	sec, err := n.security(pod, c, x)
	if err != nil {
		return nil, err
	}
	look := env.Lookup(x.Env)
	expand := func(in []string) []string {
		var out []string
		for _, s := range in {
			out = append(out, env.Expand(s, look))
		}
		return out
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if pod.Spec.TerminationGracePeriodSeconds != nil {
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	cfg := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(x.Attempt)},
		Image:    &runtimeapi.ImageSpec{Image: x.Image, UserSpecifiedImage: c.Image},
		Command:  expand(c.Command), Args: expand(c.Args), WorkingDir: c.WorkingDir, Mounts: x.Mounts,
		Labels: map[string]string{cri.LabelPodName: pod.Name, cri.LabelPodNamespace: pod.Namespace, cri.LabelPodUID: string(pod.UID), cri.LabelContainer: c.Name},
		Annotations: map[string]string{cri.AnnotationHash: lifecycle.Hash(c), cri.AnnotationRestarts: itoa(x.Attempt),
			cri.AnnotationTermPath: c.TerminationMessagePath, cri.AnnotationTermPol: string(c.TerminationMessagePolicy), cri.AnnotationGrace: fmt.Sprint(grace)},
		LogPath: c.Name + "/" + itoa(x.Attempt) + ".log",
		Stdin:   c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: n.Resources(pod, c), SecurityContext: sec},
	}
	for _, v := range x.Env {
		cfg.Envs = append(cfg.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		cfg.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value[string(*c.Lifecycle.StopSignal)])
	}
	for _, d := range c.VolumeDevices {
		return nil, fmt.Errorf("volume device %s: block volumes are not supported by this node", d.Name)
	}
	return cfg, nil
}

func privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}

// What containers do not see of /proc and /sys unless they ask for it.
var (
	maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// security joins the pod's and the container's security contexts; the container's wins.
func (n *Node) security(pod *corev1.Pod, c *corev1.Container, x Extra) (*runtimeapi.LinuxContainerSecurityContext, error) {
	out := &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces(pod), Privileged: privileged(c)}
	if x.TargetID != "" {
		out.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		out.NamespaceOptions.TargetId = x.TargetID
	}
	psc, sc := pod.Spec.SecurityContext, c.SecurityContext
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	user, group, nonRoot := first(sc.RunAsUser, psc.RunAsUser), first(sc.RunAsGroup, psc.RunAsGroup), first(sc.RunAsNonRoot, psc.RunAsNonRoot)
	if nonRoot != nil && *nonRoot {
		if err := checkNonRoot(pod, c, user, x.ImageUser); err != nil {
			return nil, err
		}
	}
	switch {
	case user != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
	case x.ImageUser.UID != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *x.ImageUser.UID}
	case x.ImageUser.Name != "":
		out.RunAsUsername = x.ImageUser.Name
	}
	if group != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *group}
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(psc), groupsPolicy(psc)
	out.SelinuxOptions = selinux(first(sc.SELinuxOptions, psc.SELinuxOptions))
	out.ReadonlyRootfs = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
	out.NoNewPrivs = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	if cp := sc.Capabilities; cp != nil {
		out.Capabilities = &runtimeapi.Capability{AddCapabilities: capabilities(cp.Add), DropCapabilities: capabilities(cp.Drop)}
	}
	if !out.Privileged && (sc.ProcMount == nil || *sc.ProcMount != corev1.UnmaskedProcMount) {
		out.MaskedPaths, out.ReadonlyPaths = slices.Clone(maskedPaths), slices.Clone(readonlyPaths)
	}
	var err error
	if out.Seccomp, err = n.seccomp(first(sc.SeccompProfile, psc.SeccompProfile)); err != nil {
		return nil, err
	}
	out.Apparmor = apparmor(first(sc.AppArmorProfile, psc.AppArmorProfile))
	return out, nil
}

func first[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

func capabilities(in []corev1.Capability) []string {
	var out []string
	for _, c := range in {
		out = append(out, strings.TrimPrefix(string(c), "CAP_"))
	}
	return out
}

func checkNonRoot(pod *corev1.Pod, c *corev1.Container, user *int64, img ImageUser) error {
	ref := fmt.Sprintf("(pod: \"%s_%s(%s)\", container: %s)", pod.Name, pod.Namespace, pod.UID, c.Name)
	switch {
	case user != nil && *user == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy %s", ref)
	case user != nil:
		return nil
	case img.UID != nil && *img.UID == 0, img.UID == nil && img.Name == "":
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", ref)
	case img.UID == nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", img.Name, ref)
	}
	return nil
}

// Propagation translates a mount's propagation; bidirectional needs a privileged container, which the API checks.
func Propagation(m *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	if m == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *m {
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}
