package core

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const sysctlPattern = `^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`

var sysctl = regexp.MustCompile(sysctlPattern)

func isSysctl(name string) bool { return len(name) <= 253 && sysctl.MatchString(name) }

// podValidator carries what the containers of one pod share.
type podValidator struct {
	spec      *corev1.PodSpec
	volumes   map[string]*corev1.Volume
	names     map[string]bool
	hostPorts map[string]bool
	claims    []string // of devices
}

func (v *podValidator) initContainer(path *field.Path, c *corev1.Container) field.ErrorList {
	errs := v.container(path, c)
	if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		return append(errs, v.probes(path, c)...)
	}
	const text = "may not be set for init containers without restartPolicy=Always"
	if c.Lifecycle != nil {
		errs = append(errs, field.Forbidden(path.Child("lifecycle"), text))
	}
	for name, p := range map[string]*corev1.Probe{"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe} {
		if p != nil {
			errs = append(errs, field.Forbidden(path.Child(name), text))
		}
	}
	return errs
}

func (v *podValidator) ephemeral(path *field.Path, e *corev1.EphemeralContainer) field.ErrorList {
	c := (*corev1.Container)(&e.EphemeralContainerCommon)
	errs := v.container(path, c)
	if e.TargetContainerName != "" && !v.names[e.TargetContainerName] {
		errs = append(errs, field.NotFound(path.Child("targetContainerName"), e.TargetContainerName))
	}
	const text = "cannot be set for an Ephemeral Container"
	for _, f := range []struct {
		name string
		set  bool
	}{{"ports", len(c.Ports) > 0}, {"livenessProbe", c.LivenessProbe != nil}, {"readinessProbe", c.ReadinessProbe != nil},
		{"startupProbe", c.StartupProbe != nil}, {"lifecycle", c.Lifecycle != nil},
		{"resources", len(c.Resources.Limits)+len(c.Resources.Requests) > 0}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), text))
		}
	}
	return errs
}

func (v *podValidator) container(path *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	if c.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else {
		errs = append(errs, Label(path.Child("name"), c.Name)...)
	}
	if v.names[c.Name] {
		errs = append(errs, field.Duplicate(path.Child("name"), c.Name))
	}
	v.names[c.Name] = true
	errs = append(errs, validateImage(path.Child("image"), c.Image)...)
	errs = append(errs, OneOf(path.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, OneOf(path.Child("terminationMessagePolicy"), c.TerminationMessagePolicy, corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, v.ports(path.Child("ports"), c.Ports)...)
	for i := range c.Env {
		errs = append(errs, validateEnv(path.Child("env").Index(i), &c.Env[i])...)
	}
	for i := range c.EnvFrom {
		errs = append(errs, validateEnvFrom(path.Child("envFrom"), path.Child("envFrom").Index(i), &c.EnvFrom[i])...)
	}
	errs = append(errs, v.mounts(path.Child("volumeMounts"), c)...)
	errs = append(errs, v.devices(path.Child("volumeDevices"), c)...)
	errs = append(errs, validateResources(path.Child("resources"), &c.Resources, v.claims, false)...)
	errs = append(errs, validateResizePolicy(path.Child("resizePolicy"), v.spec, c.ResizePolicy)...)
	errs = append(errs, validateRestart(path, c)...)
	errs = append(errs, validateContainerSecurity(path.Child("securityContext"), c.SecurityContext)...)
	return errs
}

func validateImage(path *field.Path, image string) field.ErrorList {
	switch {
	case image == "":
		return field.ErrorList{field.Required(path, "")}
	case strings.TrimSpace(image) != image:
		return field.ErrorList{field.Invalid(path, image, "must not have leading or trailing whitespace")}
	}
	return nil
}

func (v *podValidator) ports(path *field.Path, ports []corev1.ContainerPort) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			errs = append(errs, Problems(at.Child("name"), p.Name, validation.IsValidPortName(p.Name))...)
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, Port(at.Child("containerPort"), p.ContainerPort)...)
		}
		errs = append(errs, OneOf(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		if p.HostPort == 0 {
			continue
		}
		errs = append(errs, Port(at.Child("hostPort"), p.HostPort)...)
		if v.spec.HostNetwork && p.HostPort != p.ContainerPort {
			errs = append(errs, field.Invalid(at.Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
		}
		key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
		if v.hostPorts[key] {
			errs = append(errs, field.Duplicate(at.Child("hostPort"), key))
		}
		v.hostPorts[key] = true
	}
	return errs
}

func validateEnv(path *field.Path, e *corev1.EnvVar) field.ErrorList {
	var errs field.ErrorList
	if e.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else {
		errs = append(errs, Problems(path.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
	}
	f := e.ValueFrom
	if f == nil {
		return errs
	}
	at := path.Child("valueFrom")
	sources := 0
	if f.FieldRef != nil {
		sources++
		errs = append(errs, validateFieldRef(at.Child("fieldRef"), f.FieldRef, envFields)...)
	}
	if f.ResourceFieldRef != nil {
		sources++
		errs = append(errs, validateResourceFieldRef(at.Child("resourceFieldRef"), f.ResourceFieldRef, false)...)
	}
	if f.ConfigMapKeyRef != nil {
		sources++
		errs = append(errs, validateKeyRef(at.Child("configMapKeyRef"), f.ConfigMapKeyRef.Name, f.ConfigMapKeyRef.Key)...)
	}
	if f.SecretKeyRef != nil {
		sources++
		errs = append(errs, validateKeyRef(at.Child("secretKeyRef"), f.SecretKeyRef.Name, f.SecretKeyRef.Key)...)
	}
	if f.FileKeyRef != nil {
		sources++
	}
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(at, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		errs = append(errs, field.Invalid(at, "", "may not have more than one field specified at a time"))
	}
	return errs
}

func validateKeyRef(path *field.Path, name, key string) field.ErrorList {
	errs := validateConfigName(path.Child("name"), name)
	if key == "" {
		return append(errs, field.Required(path.Child("key"), ""))
	}
	return append(errs, Problems(path.Child("key"), key, validation.IsConfigMapKey(key))...)
}

var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	fileFields = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
)

func validateFieldRef(path *field.Path, f *corev1.ObjectFieldSelector, valid []string) field.ErrorList {
	if f.APIVersion == "" {
		return field.ErrorList{field.Required(path.Child("apiVersion"), "")}
	}
	at := path.Child("fieldPath")
	if f.FieldPath == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	if base, key, ok := strings.Cut(strings.TrimSuffix(f.FieldPath, "']"), "['"); ok {
		switch base {
		case "metadata.annotations":
			return Problems(path, key, validation.IsQualifiedName(strings.ToLower(key)))
		case "metadata.labels":
			return Problems(path, key, validation.IsQualifiedName(key))
		}
		return field.ErrorList{field.Invalid(path, base, "does not support subscript")}
	}
	if f.APIVersion != "v1" {
		return field.ErrorList{field.Invalid(at, f.FieldPath, "error converting fieldPath: unsupported pod version: "+f.APIVersion)}
	}
	if !slices.Contains(convertible, f.FieldPath) {
		return field.ErrorList{field.Invalid(at, f.FieldPath, "error converting fieldPath: field label not supported: "+f.FieldPath)}
	}
	return OneOf(at, f.FieldPath, valid...)
}

func validateResourceFieldRef(path *field.Path, r *corev1.ResourceFieldSelector, volume bool) field.ErrorList {
	switch {
	case volume && r.ContainerName == "":
		return field.ErrorList{field.Required(path.Child("containerName"), "")}
	case r.Resource == "":
		return field.ErrorList{field.Required(path.Child("resource"), "")}
	case strings.HasPrefix(r.Resource, "requests.hugepages-"), strings.HasPrefix(r.Resource, "limits.hugepages-"):
	default:
		if errs := OneOf(path.Child("resource"), r.Resource, "limits.cpu", "limits.ephemeral-storage", "limits.memory",
			"requests.cpu", "requests.ephemeral-storage", "requests.memory"); errs != nil {
			return errs
		}
	}
	units, allowed, of := []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}, "", "memory"
	allowed = strings.Join(units, ", ")
	switch {
	case strings.HasSuffix(r.Resource, ".cpu"):
		units, allowed, of = []string{"1m", "1"}, "1m and 1", "cpu"
	case strings.HasSuffix(r.Resource, ".ephemeral-storage"):
		of = "local ephemeral storage"
	case strings.Contains(r.Resource, ".hugepages-"):
		of = "hugepages"
	}
	for _, u := range units {
		if q := resource.MustParse(u); r.Divisor.IsZero() || q.Cmp(r.Divisor) == 0 {
			return nil
		}
	}
	return field.ErrorList{field.Invalid(path.Child("divisor"), r.Resource, "only divisor's values "+allowed+" are supported with the "+of+" resource")}
}

// validateEnvFrom names no index where it speaks of the source as a whole: upstream's list is at list.
func validateEnvFrom(list, path *field.Path, e *corev1.EnvFromSource) field.ErrorList {
	var errs field.ErrorList
	if e.Prefix != "" {
		errs = append(errs, Problems(path.Child("prefix"), e.Prefix, validation.IsRelaxedEnvVarName(e.Prefix))...)
	}
	sources := 0
	if e.ConfigMapRef != nil {
		sources++
		errs = append(errs, namedRef(path.Child("configMapRef", "name"), e.ConfigMapRef.Name)...)
	}
	if e.SecretRef != nil {
		sources++
		errs = append(errs, namedRef(path.Child("secretRef", "name"), e.SecretRef.Name)...)
	}
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"))
	case sources > 1:
		errs = append(errs, field.Invalid(list, "", "may not have more than one field specified at a time"))
	}
	return errs
}

// namedRef checks the name of an object that must be named.
func namedRef(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return Subdomain(path, name)
}

func (v *podValidator) mounts(path *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	paths := map[string]bool{}
	for i, m := range c.VolumeMounts {
		at := path.Index(i)
		if m.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if v.volumes[m.Name] == nil {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), ""))
		}
		if paths[m.MountPath] {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must be unique"))
		}
		paths[m.MountPath] = true
		if usedBy(c.VolumeDevices, func(d *corev1.VolumeDevice) bool { return d.Name == m.Name }) {
			errs = append(errs, field.Invalid(at.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if usedBy(c.VolumeDevices, func(d *corev1.VolumeDevice) bool { return d.DevicePath == m.MountPath }) {
			errs = append(errs, field.Invalid(at.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
		}
		errs = append(errs, validateMountOptions(path, &m, c)...)
	}
	return errs
}

func usedBy[T any](list []T, is func(*T) bool) bool {
	for i := range list {
		if is(&list[i]) {
			return true
		}
	}
	return false
}

// validateMountOptions names no index: upstream's paths do not.
func validateMountOptions(at *field.Path, m *corev1.VolumeMount, c *corev1.Container) field.ErrorList {
	errs := localPath(at.Child("subPath"), m.SubPath)
	if m.SubPathExpr != "" {
		if m.SubPath != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
		}
		errs = append(errs, localPath(at.Child("subPathExpr"), m.SubPathExpr)...)
	}
	if p := m.MountPropagation; p != nil {
		errs = append(errs, Known(at.Child("mountPropagation"), *p, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)...)
		if *p == corev1.MountPropagationBidirectional && (c.SecurityContext == nil || c.SecurityContext.Privileged == nil || !*c.SecurityContext.Privileged) {
			errs = append(errs, field.Forbidden(at.Child("mountPropagation"), "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if r := m.RecursiveReadOnly; r != nil {
		p := at.Child("recursiveReadOnly")
		if *r != corev1.RecursiveReadOnlyDisabled && !m.ReadOnly && (*r == corev1.RecursiveReadOnlyEnabled || *r == corev1.RecursiveReadOnlyIfPossible) {
			errs = append(errs, field.Forbidden(p, "may only be specified when readOnly is true"))
		}
		errs = append(errs, Known(p, *r, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)...)
		if *r != corev1.RecursiveReadOnlyDisabled && m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
			errs = append(errs, field.Forbidden(p, "may only be specified when mountPropagation is None or not specified"))
		}
	}
	return errs
}

func (v *podValidator) devices(path *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	names, paths := map[string]bool{}, map[string]bool{}
	for i, d := range c.VolumeDevices {
		at := path.Index(i)
		if d.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if names[d.Name] {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must be unique"))
		}
		vol := v.volumes[d.Name]
		if vol != nil && vol.PersistentVolumeClaim == nil && vol.Ephemeral == nil {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		if vol == nil {
			errs = append(errs, field.NotFound(at.Child("name"), d.Name))
		}
		if d.DevicePath == "" {
			errs = append(errs, field.Required(at.Child("devicePath"), ""))
		}
		if paths[d.DevicePath] {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if slices.Contains(strings.Split(d.DevicePath, "/"), "..") {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		}
		paths[d.DevicePath] = true
		if usedBy(c.VolumeMounts, func(m *corev1.VolumeMount) bool { return m.Name == d.Name }) {
			errs = append(errs, field.Invalid(at.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
		if usedBy(c.VolumeMounts, func(m *corev1.VolumeMount) bool { return m.MountPath == d.DevicePath }) {
			errs = append(errs, field.Invalid(at.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
		}
		names[d.Name] = names[d.Name] || d.Name != ""
	}
	return errs
}

// relativePath checks a path inside something: not absolute, and not going up. Empty is fine.
func relativePath(path *field.Path, p string) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(p, "/") {
		errs = append(errs, field.Invalid(path, p, "must be a relative path"))
	}
	return append(errs, noBackSteps(path, p)...)
}

func noBackSteps(path *field.Path, p string) field.ErrorList {
	for _, step := range strings.Split(p, "/") {
		if step == ".." {
			return field.ErrorList{field.Invalid(path, p, "must not contain '..'")}
		}
	}
	return nil
}

// validateResources judges the resources of a container, or with pod of a pod as a whole. claims are the pod's device claims.
func validateResources(path *field.Path, r *corev1.ResourceRequirements, claims []string, pod bool) field.ErrorList {
	var errs field.ErrorList
	limits, requests := path.Child("limits"), path.Child("requests")
	huge, plain := false, false
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		errs = append(errs, validateContainerResource(limits.Key(string(name)), limits, name, r.Limits[name])...)
		huge = huge || isHugePages(name)
		plain = plain || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		q := r.Requests[name]
		errs = append(errs, validateContainerResource(requests.Key(string(name)), requests, name, q)...)
		huge = huge || isHugePages(name)
		plain = plain || name == corev1.ResourceCPU || name == corev1.ResourceMemory
		limit, limited := r.Limits[name]
		switch overcommit := isOvercommitted(name); {
		case limited && overcommit && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", name, limit.String())))
		case limited && !overcommit && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", name, limit.String())))
		case !limited && !overcommit:
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		}
	}
	if huge && !plain && !pod {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return append(errs, validateClaimUses(path.Child("claims"), r.Claims, claims)...)
}

func isOvercommitted(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") && !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func validateContainerResource(at, list *field.Path, name corev1.ResourceName, q resource.Quantity) field.ErrorList {
	errs := Problems(list, name, validation.IsQualifiedName(string(name)))
	switch {
	case len(errs) > 0:
	case strings.Contains(string(name), "/"):
		if q.MilliValue()%1000 != 0 {
			errs = append(errs, field.Invalid(at, q, "must be an integer"))
		}
	case name != corev1.ResourceCPU && name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage &&
		!strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
		errs = append(errs, field.Invalid(list, name, "must be a standard resource for containers"))
	}
	errs = append(NotNegativeQuantity(at, q), errs...)
	if isHugePages(name) {
		size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
		if err != nil || size.Value() == 0 || q.Sign() < 0 || q.Value()%size.Value() != 0 {
			errs = append(errs, field.Invalid(at, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), name)))
		}
	}
	return errs
}

// IsExtendedResource reports whether a name is one that a vendor gave a resource: neither the system's nor with a prefix
// that quotas use.
func IsExtendedResource(name corev1.ResourceName) bool {
	n := string(name)
	return strings.Contains(n, "/") && !strings.Contains(n, corev1.ResourceDefaultNamespacePrefix) && !strings.HasPrefix(n, corev1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+n)) == 0
}

// NotNegativeQuantity checks an amount.
func NotNegativeQuantity(path *field.Path, q resource.Quantity) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(path, q.String(), "must be greater than or equal to 0")}
	}
	return nil
}

func validateContainerSecurity(path *field.Path, s *corev1.SecurityContext) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if s.RunAsUser != nil {
		errs = append(errs, Problems(path.Child("runAsUser"), *s.RunAsUser, validation.IsValidUserID(*s.RunAsUser))...)
	}
	if s.RunAsGroup != nil {
		errs = append(errs, Problems(path.Child("runAsGroup"), *s.RunAsGroup, validation.IsValidGroupID(*s.RunAsGroup))...)
	}
	if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		if s.Privileged != nil && *s.Privileged {
			errs = append(errs, field.Invalid(path, s, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if s.Capabilities != nil {
			for _, c := range s.Capabilities.Add {
				if c == "CAP_SYS_ADMIN" {
					errs = append(errs, field.Invalid(path, s, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	if s.ProcMount != nil {
		errs = append(errs, Known(path.Child("procMount"), *s.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
	}
	errs = append(errs, validateSeccomp(path.Child("seccompProfile"), s.SeccompProfile)...)
	errs = append(errs, validateWindows(path.Child("windowsOptions"), s.WindowsOptions)...)
	return append(errs, validateAppArmor(path.Child("appArmorProfile"), s.AppArmorProfile)...)
}

func (v *podValidator) probes(path *field.Path, c *corev1.Container) field.ErrorList {
	errs := validateProbe(path.Child("livenessProbe"), c.LivenessProbe)
	errs = append(errs, validateProbe(path.Child("readinessProbe"), c.ReadinessProbe)...)
	errs = append(errs, validateProbe(path.Child("startupProbe"), c.StartupProbe)...)
	for name, p := range map[string]*corev1.Probe{"livenessProbe": c.LivenessProbe, "startupProbe": c.StartupProbe} {
		if p != nil && p.SuccessThreshold != 1 {
			errs = append(errs, field.Invalid(path.Child(name, "successThreshold"), p.SuccessThreshold, "must be 1"))
		}
	}
	if p := c.ReadinessProbe; p != nil && p.TerminationGracePeriodSeconds != nil {
		errs = append(errs, field.Invalid(path.Child("readinessProbe", "terminationGracePeriodSeconds"), *p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
	}
	if c.Lifecycle != nil {
		at := path.Child("lifecycle")
		if h := c.Lifecycle.PostStart; h != nil {
			errs = append(errs, validateHandler(at.Child("postStart"), h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, v.spec.TerminationGracePeriodSeconds)...)
		}
		if h := c.Lifecycle.PreStop; h != nil {
			errs = append(errs, validateHandler(at.Child("preStop"), h.Exec, h.HTTPGet, h.TCPSocket, nil, h.Sleep, v.spec.TerminationGracePeriodSeconds)...)
		}
	}
	return errs
}

func validateProbe(path *field.Path, p *corev1.Probe) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := validateHandler(path, p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC, nil, nil)
	for _, f := range []struct {
		name string
		n    int32
	}{{"initialDelaySeconds", p.InitialDelaySeconds}, {"timeoutSeconds", p.TimeoutSeconds}, {"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold}, {"failureThreshold", p.FailureThreshold}} {
		errs = append(errs, NotNegative(path.Child(f.name), &f.n)...)
	}
	if g := p.TerminationGracePeriodSeconds; g != nil && *g <= 0 {
		errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *g, "must be greater than 0"))
	}
	return errs
}

func validateHandler(path *field.Path, exec *corev1.ExecAction, get *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction, grpc *corev1.GRPCAction, sleep *corev1.SleepAction, grace *int64) field.ErrorList {
	var errs field.ErrorList
	kinds := 0
	one := func(name string) bool {
		if kinds++; kinds > 1 {
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
		}
		return kinds == 1
	}
	if exec != nil && one("exec") && len(exec.Command) == 0 {
		errs = append(errs, field.Required(path.Child("exec", "command"), ""))
	}
	if get != nil && one("httpGet") {
		errs = append(errs, validateHTTPGet(path.Child("httpGet"), get)...)
	}
	if tcp != nil && one("tcpSocket") {
		errs = append(errs, PortOrName(path.Child("tcpSocket", "port"), tcp.Port)...)
	}
	if grpc != nil && one("grpc") {
		errs = append(errs, Port(path.Child("grpc", "port"), grpc.Port)...)
	}
	if sleep != nil && one("sleep") {
		errs = append(errs, validateSleep(path.Child("sleep"), sleep.Seconds, grace)...)
	}
	if kinds == 0 {
		errs = append(errs, field.Required(path, "must specify a handler type"))
	}
	return errs
}

func validateHTTPGet(path *field.Path, h *corev1.HTTPGetAction) field.ErrorList {
	errs := Required(path.Child("path"), h.Path, "")
	errs = append(errs, PortOrName(path.Child("port"), h.Port)...)
	errs = append(errs, OneOf(path.Child("scheme"), h.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, header := range h.HTTPHeaders { // upstream names no index
		errs = append(errs, Problems(path.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))...)
	}
	return errs
}
