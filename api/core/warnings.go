package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

// This file says what is allowed in a pod but most likely not meant.

// TemplateWarnings is the Warnings of a row whose objects make pods from a template; path is where that is. named says
// that the pods' names begin with the object's.
func TemplateWarnings[T api.Object](path *field.Path, named bool, template func(T) *corev1.PodTemplateSpec) func(obj, old api.Object) []string {
	return func(obj, old api.Object) []string {
		t := template(obj.(T))
		if t == nil {
			return nil
		}
		var out []string
		if old == nil && named {
			if msgs := validation.IsDNS1123Label(obj.GetName()); len(msgs) > 0 {
				out = append(out, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs))
			}
		}
		if old != nil {
			if was := template(old.(T)); was != nil && equality.Semantic.DeepEqual(was, t) {
				return nil
			}
		}
		out = append(out, annotationWarnings(path, &t.ObjectMeta, &t.Spec)...)
		return append(out, specWarnings(path.Child("spec"), &t.Spec)...)
	}
}

// podWarnings are for a new pod: those who change one are programs.
func podWarnings(obj, old api.Object) []string {
	if old != nil {
		return nil
	}
	p := obj.(*corev1.Pod)
	var out []string
	if msgs := validation.IsDNS1123Label(p.Name); p.Name != "" && len(msgs) > 0 {
		out = append(out, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", msgs))
	}
	out = append(out, annotationWarnings(nil, &p.ObjectMeta, &p.Spec)...)
	return append(out, specWarnings(field.NewPath("spec"), &p.Spec)...)
}

// oldLabels are the node labels that others have replaced.
var oldLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

func specWarnings(path *field.Path, s *corev1.PodSpec) []string {
	var out []string
	warn := func(at *field.Path, text string) { out = append(out, at.String()+": "+text) }
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		if text, ok := oldLabels[key]; ok {
			warn(path.Child("nodeSelector").Key(key), text)
		}
	}
	for i, c := range s.TopologySpreadConstraints {
		if text, ok := oldLabels[c.TopologyKey]; ok {
			warn(path.Child("topologySpreadConstraints").Index(i).Child("topologyKey"), c.TopologyKey+" is "+text)
		}
	}
	seen := map[string]int{}
	for i, a := range s.HostAliases {
		if first, ok := seen[a.IP]; ok {
			warn(path.Child("hostAliases").Index(i).Child("ip"), fmt.Sprintf("duplicate ip %q (already exists in hostAliases[%d])", a.IP, first))
			continue
		}
		seen[a.IP] = i
	}
	secrets := map[string]int{}
	for i, r := range s.ImagePullSecrets {
		if first, ok := secrets[r.Name]; ok {
			warn(path.Child("imagePullSecrets").Index(i).Child("name"), fmt.Sprintf("duplicate name %q (already exists in imagePullSecrets[%d])", r.Name, first))
			continue
		}
		secrets[r.Name] = i
		if r.Name == "" {
			warn(path.Child("imagePullSecrets").Index(i).Child("name"), fmt.Sprintf("invalid empty name %q", r.Name))
		}
	}
	for i := range s.Volumes {
		if name, text := oldVolume(&s.Volumes[i].VolumeSource); text != "" {
			warn(path.Child("volumes").Index(i).Child(name), text)
		}
	}
	for i := range s.Volumes {
		if p := s.Volumes[i].Projected; p != nil && slices.ContainsFunc(p.Sources, func(x corev1.VolumeProjection) bool { return x == corev1.VolumeProjection{} }) {
			out = append(out, fmt.Sprintf("volume %q (Projected) has no sources provided", s.Volumes[i].Name))
		}
	}
	if g := s.TerminationGracePeriodSeconds; g != nil && *g < 0 {
		warn(path.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	each(path, s, func(at *field.Path, c *corev1.Container) { out = append(out, containerWarnings(at, c)...) })
	return out
}

// oldVolume names a volume source that is on its way out, and says since when.
func oldVolume(v *corev1.VolumeSource) (name, text string) {
	switch {
	case v.PhotonPersistentDisk != nil:
		return "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"
	case v.GitRepo != nil:
		return "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"
	case v.ScaleIO != nil:
		return "scaleIO", "deprecated in v1.16, non-functional in v1.22+"
	case v.Flocker != nil:
		return "flocker", "deprecated in v1.22, non-functional in v1.25+"
	case v.StorageOS != nil:
		return "storageOS", "deprecated in v1.22, non-functional in v1.25+"
	case v.Quobyte != nil:
		return "quobyte", "deprecated in v1.22, non-functional in v1.25+"
	case v.Glusterfs != nil:
		return "glusterfs", "deprecated in v1.25, non-functional in v1.26+"
	case v.CephFS != nil:
		return "cephfs", "deprecated in v1.28, non-functional in v1.31+"
	case v.RBD != nil:
		return "rbd", "deprecated in v1.28, non-functional in v1.31+"
	}
	return "", ""
}

func containerWarnings(path *field.Path, c *corev1.Container) []string {
	var out []string
	names := map[string]bool{}
	for i, e := range c.Env {
		// One that is built upon the one before is meant.
		if names[e.Name] && !strings.Contains(e.Value, "$("+e.Name+")") {
			out = append(out, fmt.Sprintf("%s: hides previous definition of %q, which may be dropped when using apply", path.Child("env").Index(i), e.Name))
		}
		names[e.Name] = true
	}
	type port struct {
		number, host int32
		protocol     corev1.Protocol
		ip           string
	}
	ports := map[port]int{}
	for i, p := range c.Ports {
		key := port{p.ContainerPort, p.HostPort, p.Protocol, p.HostIP}
		if first, ok := ports[key]; ok {
			out = append(out, fmt.Sprintf("%s: duplicate port definition with %s", path.Child("ports").Index(i), path.Child("ports").Index(first)))
			continue
		}
		ports[key] = i
	}
	for i, list := range []corev1.ResourceList{c.Resources.Limits, c.Resources.Requests} {
		kind := [...]string{"limits", "requests"}[i]
		for _, r := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if q, ok := list[r]; ok && q.MilliValue()%1000 != 0 {
				out = append(out, fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer", path.Child("resources", kind).Key(string(r)), q.String()))
			}
		}
	}
	return out
}
