package core

import (
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
)

// defaultPod holds what is defaulted in pods but not in the templates that make them.
func defaultPod(p *corev1.Pod) {
	for i := range p.Spec.InitContainers {
		requestLimits(&p.Spec.InitContainers[i].Resources)
	}
	for i := range p.Spec.Containers {
		requestLimits(&p.Spec.Containers[i].Resources)
	}
	if r := p.Spec.Resources; r != nil {
		requestSums(r, &p.Spec)
		requestLimits(r)
	}
	api.FillPtr(&p.Spec.EnableServiceLinks, true)
	DefaultPodSpec(&p.Spec)
	if p.Spec.HostNetwork {
		hostPorts(p.Spec.Containers)
		hostPorts(p.Spec.InitContainers)
	}
	if ip := p.Status.PodIP; ip != "" && (len(p.Status.PodIPs) == 0 || p.Status.PodIPs[0].IP != ip) { // the older field decides
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	if p.Status.PodIP == "" && len(p.Status.PodIPs) > 0 {
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
}

// requestSums lets a pod as a whole request what its containers do together, where it does not say.
func requestSums(r *corev1.ResourceRequirements, s *corev1.PodSpec) {
	if len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	for name, q := range containerRequests(s) {
		if _, ok := r.Requests[name]; ok || name != corev1.ResourceCPU && name != corev1.ResourceMemory && !isHugePages(name) {
			continue
		}
		if r.Requests == nil {
			r.Requests = corev1.ResourceList{}
		}
		r.Requests[name] = q
	}
}

// requestLimits requests what is limited and not requested.
func requestLimits(r *corev1.ResourceRequirements) {
	for name, q := range r.Limits {
		if _, ok := r.Requests[name]; ok {
			continue
		}
		if r.Requests == nil {
			r.Requests = corev1.ResourceList{}
		}
		r.Requests[name] = q.DeepCopy()
	}
}

func hostPorts(cs []corev1.Container) {
	for i := range cs {
		for j := range cs[i].Ports {
			api.Fill(&cs[i].Ports[j].HostPort, cs[i].Ports[j].ContainerPort)
		}
	}
}

// DefaultPodTemplate fills in what the user left out of a pod template.
func DefaultPodTemplate(t *corev1.PodTemplateSpec) { DefaultPodSpec(&t.Spec) }

// DefaultPodSpec fills in what pods and pod templates have in common.
func DefaultPodSpec(s *corev1.PodSpec) {
	api.Fill(&s.DNSPolicy, corev1.DNSClusterFirst)
	api.Fill(&s.RestartPolicy, corev1.RestartPolicyAlways)
	api.FillPtr(&s.SecurityContext, corev1.PodSecurityContext{})
	api.FillPtr(&s.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	api.Fill(&s.SchedulerName, corev1.DefaultSchedulerName)
	api.Fill(&s.ServiceAccountName, s.DeprecatedServiceAccount)
	s.DeprecatedServiceAccount = s.ServiceAccountName
	if s.Resources != nil {
		roundUp(s.Resources)
	}
	for l := range s.Overhead {
		roundUpList(s.Overhead, l)
	}
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		defaultContainer(&s.InitContainers[i])
	}
	for i := range s.Containers {
		defaultContainer(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		// The two types have the same fields by design.
		c := (*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon)
		defaultContainer(c)
	}
}

func defaultContainer(c *corev1.Container) {
	api.Fill(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	api.Fill(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	api.Fill(&c.ImagePullPolicy, pullPolicy(c.Image))
	for i := range c.Ports {
		api.Fill(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				api.FillPtr(&from.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(&c.Resources)
	defaultProbe(c.LivenessProbe)
	defaultProbe(c.ReadinessProbe)
	defaultProbe(c.StartupProbe)
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

func defaultFieldRef(f *corev1.ObjectFieldSelector) {
	if f != nil {
		api.Fill(&f.APIVersion, "v1")
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	api.Fill(&p.TimeoutSeconds, 1)
	api.Fill(&p.PeriodSeconds, 10)
	api.Fill(&p.SuccessThreshold, 1)
	api.Fill(&p.FailureThreshold, 3)
	defaultHTTPGet(p.HTTPGet)
	if p.GRPC != nil {
		api.FillPtr(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(h *corev1.HTTPGetAction) {
	if h != nil {
		api.Fill(&h.Path, "/")
		api.Fill(&h.Scheme, corev1.URISchemeHTTP)
	}
}

// roundUp rounds quantities up to the thousandth, the finest that is accounted for.
func roundUp(r *corev1.ResourceRequirements) {
	for name := range r.Limits {
		roundUpList(r.Limits, name)
	}
	for name := range r.Requests {
		roundUpList(r.Requests, name)
	}
}

func roundUpList(l corev1.ResourceList, name corev1.ResourceName) {
	q := l[name]
	if !q.RoundUp(-3) {
		l[name] = q
	}
}

// pullPolicy is Always for images whose tag is latest, spelt out or implied.
func pullPolicy(image string) corev1.PullPolicy {
	latest, ok := plainImage(image)
	if !ok {
		latest = anyImage(image)
	}
	if latest {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// anyImage tells whether a reference means the latest; one that is malformed does not.
func anyImage(image string) bool {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return false
	}
	tagged, hasTag := named.(reference.Tagged)
	_, hasDigest := named.(reference.Digested)
	return hasTag && tagged.Tag() == "latest" || !hasTag && !hasDigest
}

// plainImage tells whether a reference of the usual form, "path/name" or "path/name:tag" in lower case with single
// separators, means the latest; ok is false for any other, which takes regular expressions to judge.
func plainImage(image string) (latest, ok bool) {
	name, tag, tagged := strings.Cut(image, ":")
	if len(name) == 0 || len(name) > 63 || len(tag) > 63 {
		return false, false
	}
	for i := range len(name) {
		c := name[i]
		inside := i > 0 && i < len(name)-1 && alphanumeric(name[i-1]) && alphanumeric(name[i+1])
		if !alphanumeric(c) && !(inside && (c == '/' || c == '.' || c == '-')) {
			return false, false
		}
	}
	for i := range len(tag) {
		if c := tag[i]; !alphanumeric(c) && !(i > 0 && (c == '.' || c == '-')) {
			return false, false
		}
	}
	if tagged && tag == "" {
		return false, false
	}
	return !tagged || tag == "latest", true
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

const defaultMode int32 = 0o644

func defaultVolume(v *corev1.Volume) {
	s := &v.VolumeSource
	switch {
	case s.Secret != nil:
		api.FillPtr(&s.Secret.DefaultMode, defaultMode)
	case s.ConfigMap != nil:
		api.FillPtr(&s.ConfigMap.DefaultMode, defaultMode)
	case s.DownwardAPI != nil:
		api.FillPtr(&s.DownwardAPI.DefaultMode, defaultMode)
		defaultDownward(s.DownwardAPI.Items)
	case s.Projected != nil:
		defaultProjected(s.Projected)
	case s.HostPath != nil:
		api.FillPtr(&s.HostPath.Type, corev1.HostPathUnset)
	case s.Ephemeral != nil:
		if t := s.Ephemeral.VolumeClaimTemplate; t != nil {
			defaultClaimSpec(&t.Spec)
		}
	case s.Image != nil:
		api.Fill(&s.Image.PullPolicy, pullPolicy(s.Image.Reference))
	case s.ISCSI != nil:
		api.Fill(&s.ISCSI.ISCSIInterface, "default")
	case s.RBD != nil:
		api.Fill(&s.RBD.RBDPool, "rbd")
		api.Fill(&s.RBD.RadosUser, "admin")
		api.Fill(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.ScaleIO != nil:
		api.Fill(&s.ScaleIO.StorageMode, "ThinProvisioned")
		api.Fill(&s.ScaleIO.FSType, "xfs")
	case s.AzureDisk != nil:
		defaultAzureDisk(s.AzureDisk)
	case *s == corev1.VolumeSource{}:
		s.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	api.FillPtr(&p.DefaultMode, defaultMode)
	for i := range p.Sources {
		if d := p.Sources[i].DownwardAPI; d != nil {
			defaultDownward(d.Items)
		}
		if t := p.Sources[i].ServiceAccountToken; t != nil {
			api.FillPtr(&t.ExpirationSeconds, 3600)
		}
	}
}

func defaultDownward(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		defaultFieldRef(items[i].FieldRef)
	}
}

func defaultAzureDisk(d *corev1.AzureDiskVolumeSource) {
	api.FillPtr(&d.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	api.FillPtr(&d.Kind, corev1.AzureSharedBlobDisk)
	api.FillPtr(&d.FSType, "ext4")
	api.FillPtr(&d.ReadOnly, false)
}
