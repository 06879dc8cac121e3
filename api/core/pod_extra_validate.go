package core

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// This file judges what most pods do not have: device claims, restart rules, Windows, AppArmor, resources of the pod.

func validateOS(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	if s.OS == nil {
		return nil
	}
	at := path.Child("os")
	if s.OS.Name == "" {
		return field.ErrorList{field.Required(at.Child("name"), "")}
	}
	errs := Known(at, s.OS.Name, corev1.Linux, corev1.Windows)
	if s.OS.Name == corev1.Windows {
		errs = append(errs, notOnWindows(path, s)...)
	}
	return errs
}

// notOnWindows lists what pods for Windows cannot have.
func notOnWindows(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	forbid := func(at *field.Path, set bool) {
		if set {
			errs = append(errs, field.Forbidden(at, "cannot be set for a windows pod"))
		}
	}
	if s.Resources != nil {
		errs = append(errs, field.Forbidden(path.Child("resources"), "may not be set for a windows pod"))
	}
	forbid(path.Child("hostPID"), s.HostPID)
	forbid(path.Child("hostIPC"), s.HostIPC)
	forbid(path.Child("hostUsers"), s.HostUsers != nil)
	if c := s.SecurityContext; c != nil {
		at := path.Child("securityContext")
		forbid(at.Child("appArmorProfile"), c.AppArmorProfile != nil)
		forbid(at.Child("seLinuxOptions"), c.SELinuxOptions != nil)
		forbid(at.Child("seccompProfile"), c.SeccompProfile != nil)
		forbid(at.Child("fsGroup"), c.FSGroup != nil)
		forbid(at.Child("fsGroupChangePolicy"), c.FSGroupChangePolicy != nil)
		forbid(at.Child("sysctls"), len(c.Sysctls) > 0)
		forbid(at.Child("shareProcessNamespace"), s.ShareProcessNamespace != nil)
		forbid(at.Child("runAsUser"), c.RunAsUser != nil)
		forbid(at.Child("runAsGroup"), c.RunAsGroup != nil)
		forbid(at.Child("supplementalGroups"), c.SupplementalGroups != nil)
		forbid(at.Child("supplementalGroupsPolicy"), c.SupplementalGroupsPolicy != nil)
	}
	each(path, s, func(at *field.Path, c *corev1.Container) {
		at = at.Child("securityContext")
		x := c.SecurityContext
		if x == nil {
			return
		}
		forbid(at.Child("appArmorProfile"), x.AppArmorProfile != nil)
		forbid(at.Child("seLinuxOptions"), x.SELinuxOptions != nil)
		forbid(at.Child("seccompProfile"), x.SeccompProfile != nil)
		forbid(at.Child("capabilities"), x.Capabilities != nil)
		forbid(at.Child("readOnlyRootFilesystem"), x.ReadOnlyRootFilesystem != nil)
		forbid(at.Child("privileged"), x.Privileged != nil)
		forbid(at.Child("allowPrivilegeEscalation"), x.AllowPrivilegeEscalation != nil)
		forbid(at.Child("procMount"), x.ProcMount != nil)
		forbid(at.Child("runAsUser"), x.RunAsUser != nil)
		forbid(at.Child("runAsGroup"), x.RunAsGroup != nil)
	})
	return errs
}

// each visits all containers of a pod, those that end before others start first.
func each(path *field.Path, s *corev1.PodSpec, visit func(*field.Path, *corev1.Container)) {
	for i := range s.InitContainers {
		visit(path.Child("initContainers").Index(i), &s.InitContainers[i])
	}
	for i := range s.Containers {
		visit(path.Child("containers").Index(i), &s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		visit(path.Child("ephemeralContainers").Index(i), (*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

func validateAppArmor(path *field.Path, p *corev1.AppArmorProfile) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	local := path.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		const most = 4095
		switch {
		case p.LocalhostProfile == nil:
			errs = append(errs, field.Required(local, "must be set when AppArmor type is Localhost"))
		case strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile:
			errs = append(errs, field.Invalid(local, *p.LocalhostProfile, "must not be padded with whitespace"))
		case *p.LocalhostProfile == "":
			errs = append(errs, field.Required(local, "must be set when AppArmor type is Localhost"))
		}
		if p.LocalhostProfile != nil && len(*p.LocalhostProfile) > most {
			errs = append(errs, field.TooLong(local, *p.LocalhostProfile, most))
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			errs = append(errs, field.Invalid(local, *p.LocalhostProfile, "can only be set when AppArmor type is Localhost"))
		}
	case "":
		errs = append(errs, field.Required(path.Child("type"), "type is required when appArmorProfile is set"))
	default:
		errs = append(errs, Known(path.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)...)
	}
	return errs
}

var (
	controlCharacters = regexp.MustCompile(`[[:cntrl:]]+`)
	windowsDomain     = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]*$`)
)

const windowsUserForbidden = `"/\:;|=,+*?<>@[]`

func validateWindows(path *field.Path, w *corev1.WindowsSecurityContextOptions) field.ErrorList {
	if w == nil {
		return nil
	}
	var errs field.ErrorList
	if n := w.GMSACredentialSpecName; n != nil {
		errs = append(errs, Subdomain(path.Child("gmsaCredentialSpecName"), *n)...)
	}
	if c := w.GMSACredentialSpec; c != nil {
		at, most := path.Child("gmsaCredentialSpec"), 64<<10
		switch {
		case *c == "":
			errs = append(errs, field.Invalid(at, *c, "gmsaCredentialSpec cannot be an empty string"))
		case len(*c) > most:
			errs = append(errs, field.Invalid(at, *c, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", most>>10)))
		}
	}
	if u := w.RunAsUserName; u != nil {
		errs = append(errs, validateWindowsUser(path.Child("runAsUserName"), *u)...)
	}
	return errs
}

func validateWindowsUser(path *field.Path, name string) field.ErrorList {
	var errs field.ErrorList
	bad := func(text string) { errs = append(errs, field.Invalid(path, name, text)) }
	switch {
	case name == "":
		bad("runAsUserName cannot be an empty string")
		return errs
	case controlCharacters.MatchString(name):
		bad("runAsUserName cannot contain control characters")
		return errs
	}
	domain, user, ok := strings.Cut(name, `\`)
	switch {
	case !ok:
		user = name
	case strings.Contains(user, `\`):
		bad(`runAsUserName cannot contain more than one backslash`)
		return errs
	default:
		if domain == "" {
			bad("runAsUserName's Domain doesn't match the NetBIOS nor the DNS format")
		} else if len(domain) > 255 {
			bad("runAsUserName's Domain length must be under 256 characters")
		} else if !windowsDomain.MatchString(domain) {
			bad("runAsUserName's Domain doesn't match the NetBIOS nor the DNS format")
		}
	}
	switch {
	case user == "":
		bad("runAsUserName's User cannot be empty")
	case len(user) > 104:
		bad("runAsUserName's User length must not be longer than 104 characters")
	}
	if strings.TrimRight(user, " .") == "" && user != "" {
		bad("runAsUserName's User cannot contain only periods or spaces")
	}
	if strings.ContainsAny(user, windowsUserForbidden) {
		bad("runAsUserName's User cannot contain the following characters: " + windowsUserForbidden)
	}
	return errs
}

// validateHostProcess checks that host process containers are all or none, agree with the pod, and share the host's network.
func validateHostProcess(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	var ofPod *bool
	if c := s.SecurityContext; c != nil && c.WindowsOptions != nil {
		ofPod = c.WindowsOptions.HostProcess
	}
	all, some := 0, 0
	each(path, s, func(at *field.Path, c *corev1.Container) {
		var own *bool
		if x := c.SecurityContext; x != nil && x.WindowsOptions != nil {
			own = x.WindowsOptions.HostProcess
		}
		if ofPod != nil && own != nil && *ofPod != *own {
			errs = append(errs, field.Invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), *own,
				fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *ofPod)))
		}
		all++
		if own != nil && *own || own == nil && ofPod != nil && *ofPod {
			some++
		}
	})
	if some == 0 {
		return errs
	}
	if some != all {
		errs = append(errs, field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !s.HostNetwork {
		errs = append(errs, field.Invalid(path.Child("hostNetwork"), s.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

// validateClaims checks a pod's device claims and returns their names.
func validateClaims(path *field.Path, claims []corev1.PodResourceClaim) (names []string, errs field.ErrorList) {
	for i := range claims {
		c, at := &claims[i], path.Index(i)
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case slices.Contains(names, c.Name):
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		default:
			names = append(names, c.Name)
			errs = append(errs, Label(at.Child("name"), c.Name)...)
		}
		switch {
		case c.ResourceClaimName != nil && c.ResourceClaimTemplateName != nil:
			errs = append(errs, field.Invalid(at, *c, "at most one of `resourceClaimName`, `resourceClaimTemplateName` may be specified"))
		case c.ResourceClaimName == nil && c.ResourceClaimTemplateName == nil:
			errs = append(errs, field.Invalid(at, *c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		}
		if n := c.ResourceClaimName; n != nil {
			errs = append(errs, Subdomain(at.Child("resourceClaimName"), *n)...)
		}
		if n := c.ResourceClaimTemplateName; n != nil {
			errs = append(errs, Subdomain(at.Child("resourceClaimTemplateName"), *n)...)
		}
	}
	return names, errs
}

// validateClaimUses checks the claims that a container names.
func validateClaimUses(path *field.Path, uses []corev1.ResourceClaim, names []string) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, u := range uses {
		at := path.Index(i)
		if u.Name == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		key := u.Name
		if u.Request != "" {
			errs = append(errs, Label(at.Child("request"), u.Request)...)
			key += "/" + u.Request
		}
		if seen[key] || seen[u.Name] && u.Request != "" {
			errs = append(errs, field.Duplicate(at, key))
		}
		seen[key] = true
		if slices.Contains(names, u.Name) {
			continue
		}
		e := field.NotFound(at, u.Name)
		if e.Detail = "must be one of the names in pod.spec.resourceClaims"; len(names) == 0 {
			e.Detail += " which is empty"
		} else {
			e.Detail += ": " + strings.Join(slices.Sorted(slices.Values(names)), ", ")
		}
		errs = append(errs, e)
	}
	return errs
}

func validateResizePolicy(path *field.Path, s *corev1.PodSpec, list []corev1.ContainerResizePolicy) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceName]bool{}
	for i, p := range list {
		if seen[p.ResourceName] {
			errs = append(errs, field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen[p.ResourceName] = true
		errs = append(errs, OneOf(path, p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, OneOf(path, p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)...)
		if s.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired && p.RestartPolicy != "" {
			errs = append(errs, field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

func validateRestart(path *field.Path, c *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	if p := c.RestartPolicy; p != nil {
		errs = append(errs, Known(path.Child("restartPolicy"), *p, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	}
	if len(c.RestartPolicyRules) == 0 {
		return errs
	}
	rules := path.Child("restartPolicyRules")
	if c.RestartPolicy == nil {
		errs = append(errs, field.Required(path.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
	}
	if len(c.RestartPolicyRules) > 20 {
		errs = append(errs, field.TooMany(rules, len(c.RestartPolicyRules), 20))
	}
	for i, r := range c.RestartPolicyRules {
		at := rules.Index(i)
		errs = append(errs, Known(at.Child("action"), r.Action, corev1.ContainerRestartRuleActionRestart, "RestartAllContainers")...)
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(at.Child("exitCodes"), "must be specified"))
			continue
		}
		at = at.Child("exitCodes")
		errs = append(errs, Known(at.Child("operator"), r.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if n := len(r.ExitCodes.Values); n > 255 {
			errs = append(errs, field.TooMany(at.Child("values"), n, 255))
		}
	}
	return errs
}

func validateMatchLabelKeys(path *field.Path, keys []string, selector *metav1.LabelSelector) field.ErrorList {
	if len(keys) == 0 {
		return nil
	}
	var errs field.ErrorList
	if selector == nil {
		errs = append(errs, field.Forbidden(path, "must not be specified when labelSelector is not set"))
	}
	for i, k := range keys {
		errs = append(errs, metavalidation.ValidateLabelName(k, path.Index(i))...)
	}
	return errs
}

// validatePodResources checks the requests and limits of a pod as a whole against those of its containers.
func validatePodResources(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	r := s.Resources
	if r == nil {
		return nil
	}
	errs := validateResources(path, r, nil, true)
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(path.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	sum := containerRequests(s)
	for name, q := range r.Requests {
		if used, ok := sum[name]; ok && q.Cmp(used) < 0 {
			errs = append(errs, field.Invalid(path.Child("requests").Key(string(name)), q.String(),
				fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", used.String())))
		}
	}
	for i := range s.Containers {
		for name, q := range s.Containers[i].Resources.Limits {
			if most, ok := r.Limits[name]; ok && q.Cmp(most) > 0 {
				errs = append(errs, field.Invalid(path.Child("containers").Index(i).Key(string(name)).Child("limits"), q.String(),
					fmt.Sprintf("must be less than or equal to pod limits of %s", most.String())))
			}
		}
	}
	return errs
}

// containerRequests is what the containers that run side by side request together.
func containerRequests(s *corev1.PodSpec) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for i := range s.Containers {
		for name, q := range s.Containers[i].Resources.Requests {
			total := sum[name]
			total.Add(q)
			sum[name] = total
		}
	}
	return sum
}

// validateHostUsers lists what a pod with a user namespace of its own cannot have.
func validateHostUsers(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	if s.HostUsers == nil || *s.HostUsers {
		return nil
	}
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{{"hostNetwork", s.HostNetwork}, {"hostPID", s.HostPID}, {"hostIPC", s.HostIPC}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "when `hostUsers` is false"))
		}
	}
	each(path, s, func(at *field.Path, c *corev1.Container) {
		if len(c.VolumeDevices) > 0 {
			errs = append(errs, field.Forbidden(at.Child("volumeDevices"), "when `hostUsers` is false"))
		}
	})
	return errs
}

func validateSleep(path *field.Path, seconds int64, grace *int64) field.ErrorList {
	most := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if grace != nil {
		most = *grace
	}
	if seconds < 0 || seconds > most {
		return field.ErrorList{field.Invalid(path, seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", most))}
	}
	return nil
}

// convertible are the fields that a reference to a pod's field may name in any place at all.
var convertible = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid", "spec.host",
	"spec.hostNetwork", "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs",
	"status.nominatedNodeName", "status.phase", "status.podIP", "status.podIPs"}

func isHugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

func validateConfigName(path *field.Path, name string) field.ErrorList {
	return Problems(path, name, validation.IsDNS1123Subdomain(name))
}
