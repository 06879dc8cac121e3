package env

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Var is one variable.
type Var struct{ Name, Value string }

// Sources is where values come from. ConfigMap and Secret return an error that apimachinery's IsNotFound knows.
type Sources struct {
	ConfigMap func(name string) (*corev1.ConfigMap, error)
	Secret    func(name string) (*corev1.Secret, error)
	// File reads one variable from a file of a volume; found is false if the file or the key is not there.
	File func(volume, path, key string) (value string, found bool, err error)
	// NotFound says whether an error of the above means that the object does not exist.
	NotFound func(error) bool
	PodIP    string
	PodIPs   []string
	HostIP   string
	HostIPs  []string
	// Allocatable of the node, which limits that are not set stand for.
	Allocatable corev1.ResourceList
	// Services are the variables that tell of services; all others win over them.
	Services []Var
}

// Of makes the environment of a container in the order in which it is declared, services first. skipped lists keys of
// envFrom that are no names of variables, by their source.
func Of(pod *corev1.Pod, c *corev1.Container, src Sources) (vars []Var, skipped []string, err error) {
	b := &builder{at: map[string]int{}}
	for _, v := range src.Services {
		b.set(v.Name, v.Value)
	}
	for _, from := range c.EnvFrom {
		s, err := b.from(from, src)
		if err != nil {
			return nil, nil, err
		}
		skipped = append(skipped, s...)
	}
	// References see what was declared so far, and services only if they are not declared at all.
	for _, e := range c.Env {
		value, ok := Expand(e.Value, b.lookup), true
		if e.Value == "" && e.ValueFrom != nil {
			if value, ok, err = valueOf(pod, c, e.ValueFrom, src); err != nil {
				return nil, nil, err
			}
		}
		if ok {
			b.set(e.Name, value)
		}
	}
	return b.vars, skipped, nil
}

// Lookup finds a variable.
func Lookup(vars []Var) func(string) (string, bool) {
	return func(name string) (string, bool) {
		i := slices.IndexFunc(vars, func(v Var) bool { return v.Name == name })
		if i < 0 {
			return "", false
		}
		return vars[i].Value, true
	}
}

type builder struct {
	vars []Var
	at   map[string]int
}

func (b *builder) set(name, value string) {
	if i, ok := b.at[name]; ok {
		b.vars[i].Value = value
		return
	}
	b.at[name] = len(b.vars)
	b.vars = append(b.vars, Var{name, value})
}

func (b *builder) lookup(name string) (string, bool) {
	i, ok := b.at[name]
	if !ok {
		return "", false
	}
	return b.vars[i].Value, true
}

// from adds all keys of a config map or secret.
func (b *builder) from(from corev1.EnvFromSource, src Sources) (skipped []string, err error) {
	data := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		cm, err := src.ConfigMap(from.ConfigMapRef.Name)
		if err != nil {
			if src.NotFound(err) && isTrue(from.ConfigMapRef.Optional) {
				return nil, nil
			}
			return nil, missing(err, src, "configmap", from.ConfigMapRef.Name)
		}
		data = cm.Data
	case from.SecretRef != nil:
		sec, err := src.Secret(from.SecretRef.Name)
		if err != nil {
			if src.NotFound(err) && isTrue(from.SecretRef.Optional) {
				return nil, nil
			}
			return nil, missing(err, src, "secret", from.SecretRef.Name)
		}
		for k, v := range sec.Data {
			data[k] = string(v)
		}
	}
	keys := make([]string, 0, len(data))
	for k := range data {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		name := from.Prefix + k
		if errs := validation.IsRelaxedEnvVarName(name); len(errs) > 0 {
			skipped = append(skipped, k)
			continue
		}
		b.set(name, data[k])
	}
	return skipped, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// missing words an absent object as users know it.
func missing(err error, src Sources, kind, name string) error {
	if src.NotFound(err) {
		return fmt.Errorf("%s %q not found", kind, name)
	}
	return err
}

// valueOf is the value of one valueFrom; ok is false for what is optional and absent.
func valueOf(pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, src Sources) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = Field(pod, from.FieldRef.FieldPath, src)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		of := c
		if n := from.ResourceFieldRef.ContainerName; n != "" {
			if of = findContainer(pod, n); of == nil {
				return "", false, fmt.Errorf("container %q not found", n)
			}
		}
		value, err = Resource(of, from.ResourceFieldRef, src.Allocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		cm, err := src.ConfigMap(r.Name)
		if err != nil {
			if src.NotFound(err) && isTrue(r.Optional) {
				return "", false, nil
			}
			return "", false, missing(err, src, "configmap", r.Name)
		}
		if v, found := cm.Data[r.Key]; found {
			return v, true, nil
		}
		if isTrue(r.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", r.Key, pod.Namespace, r.Name)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		sec, err := src.Secret(r.Name)
		if err != nil {
			if src.NotFound(err) && isTrue(r.Optional) {
				return "", false, nil
			}
			return "", false, missing(err, src, "secret", r.Name)
		}
		if v, found := sec.Data[r.Key]; found {
			return string(v), true, nil
		}
		if isTrue(r.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", r.Key, pod.Namespace, r.Name)
	case from.FileKeyRef != nil:
		r := from.FileKeyRef
		v, found, err := src.File(r.VolumeName, r.Path, r.Key)
		if err != nil || found {
			return v, found, err
		}
		if isTrue(r.Optional) {
			return "", false, nil
		}
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", r.Key, r.Path)
	}
	return "", false, errors.New("environment variable has a source of no known kind")
}

func findContainer(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// Field is the value of a downward API field path.
func Field(pod *corev1.Pod, path string, src Sources) (string, error) {
	if name, key, ok := subscript(path); ok {
		switch name {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
		return "", fmt.Errorf("unsupported fieldPath: %v", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return src.HostIP, nil
	case "status.hostIPs":
		return strings.Join(src.HostIPs, ","), nil
	case "status.podIP":
		return src.PodIP, nil
	case "status.podIPs":
		return strings.Join(src.PodIPs, ","), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// subscript splits metadata.labels['key'].
func subscript(path string) (name, key string, ok bool) {
	name, rest, ok := strings.Cut(path, "['")
	if !ok || !strings.HasSuffix(rest, "']") {
		return "", "", false
	}
	return name, strings.TrimSuffix(rest, "']"), true
}

func formatMap(m map[string]string) string {
	lines := make([]string, 0, len(m))
	for k, v := range m {
		lines = append(lines, fmt.Sprintf("%s=%q", k, v))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Resource is the value of a resource reference, in units of its divisor, rounded up. A limit that is not set, and a
// request without both, stand for what the node has.
func Resource(c *corev1.Container, ref *corev1.ResourceFieldSelector, allocatable corev1.ResourceList) (string, error) {
	kind, name, ok := strings.Cut(ref.Resource, ".")
	if !ok {
		return "", fmt.Errorf("unsupported container resource: %v", ref.Resource)
	}
	res := corev1.ResourceName(name)
	var q resource.Quantity
	switch kind {
	case "limits":
		q, ok = c.Resources.Limits[res]
		if (!ok || q.IsZero()) && (res == corev1.ResourceCPU || res == corev1.ResourceMemory || res == corev1.ResourceEphemeralStorage) {
			q = allocatable[res]
		}
	case "requests":
		if q, ok = c.Resources.Requests[res]; !ok {
			q = c.Resources.Limits[res]
		}
	default:
		return "", fmt.Errorf("unsupported container resource: %v", ref.Resource)
	}
	div := ref.Divisor
	if div.IsZero() {
		div = resource.MustParse("1")
	}
	if res == corev1.ResourceCPU {
		return ceilDiv(q.MilliValue(), div.MilliValue()), nil
	}
	return ceilDiv(q.Value(), div.Value()), nil
}

func ceilDiv(a, b int64) string {
	if b == 0 {
		b = 1
	}
	n := a / b
	if a%b > 0 {
		n++
	}
	return strconv.FormatInt(n, 10)
}
