package core

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePod(p *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := ValidatePodSpec(path, &p.Spec)
	errs = append(errs, ephemeralClaims(path, p)...)
	if len(p.Spec.SchedulingGates) > 0 && p.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(path.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// ValidatePodSpec checks a pod or a template of pods.
func ValidatePodSpec(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	volumes, errs := validateVolumes(path.Child("volumes"), s.Volumes)
	claims, claimErrs := validateClaims(path.Child("resourceClaims"), s.ResourceClaims)
	errs = append(errs, claimErrs...)
	v := &podValidator{spec: s, volumes: volumes, names: map[string]bool{}, hostPorts: map[string]bool{}, claims: claims}
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(path.Child("containers"), ""))
	}
	for i := range s.Containers {
		errs = append(errs, v.container(path.Child("containers").Index(i), &s.Containers[i])...)
		errs = append(errs, v.probes(path.Child("containers").Index(i), &s.Containers[i])...)
	}
	for i := range s.InitContainers {
		errs = append(errs, v.initContainer(path.Child("initContainers").Index(i), &s.InitContainers[i])...)
	}
	for i := range s.EphemeralContainers {
		errs = append(errs, v.ephemeral(path.Child("ephemeralContainers").Index(i), &s.EphemeralContainers[i])...)
	}
	errs = append(errs, OneOf(path.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, validateDNS(path, s)...)
	errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
	errs = append(errs, validatePodNames(path, s)...)
	errs = append(errs, validatePodSecurity(path.Child("securityContext"), s)...)
	errs = append(errs, ValidateTolerations(path.Child("tolerations"), s.Tolerations)...)
	if s.Affinity != nil {
		errs = append(errs, validateAffinity(path.Child("affinity"), s.Affinity)...)
	}
	errs = append(errs, validateSpreads(path.Child("topologySpreadConstraints"), s.TopologySpreadConstraints)...)
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, OneOf(path.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	errs = append(errs, validatePodResources(path.Child("resources"), s)...)
	errs = append(errs, validateHostProcess(path, s)...)
	errs = append(errs, validateHostUsers(path, s)...)
	return append(errs, validateOS(path, s)...)
}

func validatePodNames(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct{ name, value string }{{"serviceAccountName", s.ServiceAccountName}, {"nodeName", s.NodeName}, {"priorityClassName", s.PriorityClassName}} {
		if f.value != "" {
			errs = append(errs, Subdomain(path.Child(f.name), f.value)...)
		}
	}
	for _, f := range []struct{ name, value string }{{"hostname", s.Hostname}, {"subdomain", s.Subdomain}} {
		if f.value != "" {
			errs = append(errs, Label(path.Child(f.name), f.value)...)
		}
	}
	if s.RuntimeClassName != nil {
		errs = append(errs, Subdomain(path.Child("runtimeClassName"), *s.RuntimeClassName)...)
	}
	for i, r := range s.ReadinessGates {
		errs = append(errs, metavalidation.ValidateLabelName(string(r.ConditionType), path.Child("readinessGates").Index(i).Child("conditionType"))...)
	}
	gates := map[string]bool{}
	for i, g := range s.SchedulingGates {
		at := path.Child("schedulingGates").Index(i)
		errs = append(errs, Problems(at, g.Name, validation.IsQualifiedName(g.Name))...)
		if gates[g.Name] {
			errs = append(errs, field.Duplicate(at, g.Name))
		}
		gates[g.Name] = true
	}
	for i, a := range s.HostAliases {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("hostAliases").Index(i).Child("ip"), a.IP, false, nil)...)
		for j, h := range a.Hostnames {
			errs = append(errs, Subdomain(path.Child("hostAliases").Index(i).Child("hostnames").Index(j), h)...)
		}
	}
	return errs
}

func validateDNS(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	errs := OneOf(path.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	config := path.Child("dnsConfig")
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		at, what := config, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone)
		if s.DNSConfig != nil {
			at, what = config.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone)
		}
		errs = append(errs, field.Required(at, what))
	}
	if s.DNSConfig == nil {
		return errs
	}
	if n := len(s.DNSConfig.Nameservers); n > 3 {
		errs = append(errs, field.Invalid(config.Child("nameservers"), s.DNSConfig.Nameservers, "must not have more than 3 nameservers"))
	}
	for i, ns := range s.DNSConfig.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(config.Child("nameservers").Index(i), ns, false, nil)...)
	}
	for i, domain := range s.DNSConfig.Searches {
		if domain != "." {
			d := strings.TrimSuffix(domain, ".")
			errs = append(errs, Problems(config.Child("searches").Index(i), domain, validation.IsDNS1123SubdomainWithUnderscore(d))...)
		}
	}
	for i, o := range s.DNSConfig.Options {
		errs = append(errs, Required(config.Child("options").Index(i), o.Name, "must not be empty")...)
	}
	return errs
}

func validatePodSecurity(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	c := s.SecurityContext
	if c == nil {
		return nil
	}
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		id   *int64
	}{{"runAsUser", c.RunAsUser}, {"runAsGroup", c.RunAsGroup}, {"fsGroup", c.FSGroup}} {
		if f.id != nil {
			errs = append(errs, Problems(path.Child(f.name), *f.id, validation.IsValidUserID(*f.id))...)
		}
	}
	for i, g := range c.SupplementalGroups {
		errs = append(errs, Problems(path.Child("supplementalGroups").Index(i), g, validation.IsValidGroupID(g))...)
	}
	seen := map[string]bool{}
	for i, y := range c.Sysctls {
		at := path.Child("sysctls").Index(i).Child("name")
		switch {
		case y.Name == "":
			errs = append(errs, field.Required(at, ""))
		case !isSysctl(y.Name):
			errs = append(errs, field.Invalid(at, y.Name, "must have at most 253 characters and match regex "+sysctlPattern))
		case seen[y.Name]:
			errs = append(errs, field.Duplicate(at, y.Name))
		}
		name := strings.ReplaceAll(y.Name, "/", ".")
		if s.HostIPC && (strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")) {
			errs = append(errs, field.Invalid(at, y.Name, "may not be specified when 'hostIPC' is true"))
		}
		if s.HostNetwork && strings.HasPrefix(name, "net.") {
			errs = append(errs, field.Invalid(at, y.Name, "may not be specified when 'hostNetwork' is true"))
		}
		seen[y.Name] = true
	}
	if s.ShareProcessNamespace != nil && *s.ShareProcessNamespace && s.HostPID {
		errs = append(errs, field.Invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if p := c.FSGroupChangePolicy; p != nil {
		errs = append(errs, Known(path.Child("fsGroupChangePolicy"), *p, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	if p := c.SupplementalGroupsPolicy; p != nil {
		errs = append(errs, Known(path.Child("supplementalGroupsPolicy"), *p, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if p := c.SELinuxChangePolicy; p != nil {
		errs = append(errs, Known(path.Child("seLinuxChangePolicy"), *p, corev1.SELinuxChangePolicyRecursive)...)
	}
	errs = append(errs, validateSeccomp(path.Child("seccompProfile"), c.SeccompProfile)...)
	errs = append(errs, validateWindows(path.Child("windowsOptions"), c.WindowsOptions)...)
	return append(errs, validateAppArmor(path.Child("appArmorProfile"), c.AppArmorProfile)...)
}

func validateSeccomp(path *field.Path, p *corev1.SeccompProfile) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	if p.Type == "" {
		errs = append(errs, field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = Known(path.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	local, at := p.Type == corev1.SeccompProfileTypeLocalhost, path.Child("localhostProfile")
	switch {
	case local && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(at, "must be set when seccomp type is Localhost"))
	case local:
		errs = append(errs, localPath(at, *p.LocalhostProfile)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(at, p, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

// ValidateTolerations checks a list of tolerations.
func ValidateTolerations(path *field.Path, list []corev1.Toleration) field.ErrorList {
	var errs field.ErrorList
	for i, t := range list {
		at := path.Index(i)
		if t.Key != "" {
			errs = append(errs, metavalidation.ValidateLabelName(t.Key, at.Child("key"))...)
		}
		if t.Key == "" && t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if m := validation.IsValidLabelValue(t.Value); len(m) > 0 {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, strings.Join(m, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, field.NotSupported(at.Child("operator"), t.Operator, []corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, OneOf(at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		}
	}
	return errs
}

func validateAffinity(path *field.Path, a *corev1.Affinity) field.ErrorList {
	var errs field.ErrorList
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			errs = append(errs, ValidateNodeSelector(at.Child("requiredDuringSchedulingIgnoredDuringExecution"), r)...)
		}
		for i, p := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			at := at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			errs = append(errs, validateWeight(at.Child("weight"), p.Weight)...)
			errs = append(errs, validateNodeTerm(at.Child("preference"), &p.Preference, false)...)
		}
	}
	if p := a.PodAffinity; p != nil {
		errs = append(errs, validatePodTerms(path.Child("podAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)...)
	}
	if p := a.PodAntiAffinity; p != nil {
		errs = append(errs, validatePodTerms(path.Child("podAntiAffinity"), p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)...)
	}
	return errs
}

func validateWeight(path *field.Path, w int32) field.ErrorList {
	if w < 1 || w > 100 {
		return field.ErrorList{field.Invalid(path, w, "must be in the range 1-100")}
	}
	return nil
}

// ValidateNodeSelector checks a node selector.
func ValidateNodeSelector(path *field.Path, s *corev1.NodeSelector) field.ErrorList {
	terms := path.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(terms, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range s.NodeSelectorTerms {
		errs = append(errs, validateNodeTerm(terms.Index(i), &s.NodeSelectorTerms[i], true)...)
	}
	return errs
}

// validateNodeTerm checks one term. strict looks at the values of labels too, which preferences may have wrong.
func validateNodeTerm(path *field.Path, t *corev1.NodeSelectorTerm, strict bool) field.ErrorList {
	var errs field.ErrorList
	for i, r := range t.MatchExpressions {
		at := path.Child("matchExpressions").Index(i)
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
			}
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				errs = append(errs, field.Forbidden(at.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				errs = append(errs, field.Required(at.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
		errs = append(errs, metavalidation.ValidateLabelName(r.Key, at.Child("key"))...)
		if strict {
			for j, v := range r.Values {
				errs = append(errs, Problems(at.Child("values").Index(j), v, validation.IsValidLabelValue(v))...)
			}
		}
	}
	for i, r := range t.MatchFields {
		at := path.Child("matchFields").Index(i)
		if r.Operator != corev1.NodeSelectorOpIn && r.Operator != corev1.NodeSelectorOpNotIn {
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		} else if len(r.Values) != 1 {
			errs = append(errs, field.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
		if r.Key != "metadata.name" {
			errs = append(errs, field.Invalid(at.Child("key"), r.Key, "not a valid field selector key"))
			continue
		}
		for j, v := range r.Values {
			errs = append(errs, Problems(at.Child("values").Index(j), v, validation.IsDNS1123Subdomain(v))...)
		}
	}
	return errs
}

func validatePodTerms(path *field.Path, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) field.ErrorList {
	var errs field.ErrorList
	for i := range required {
		errs = append(errs, validatePodTerm(path.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i), &required[i])...)
	}
	for i := range preferred {
		at := path.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		errs = append(errs, validateWeight(at.Child("weight"), preferred[i].Weight)...)
		errs = append(errs, validatePodTerm(at.Child("podAffinityTerm"), &preferred[i].PodAffinityTerm)...)
	}
	return errs
}

func validatePodTerm(path *field.Path, t *corev1.PodAffinityTerm) field.ErrorList {
	errs := LabelSelector(path.Child("labelSelector"), t.LabelSelector)
	errs = append(errs, LabelSelector(path.Child("namespaceSelector"), t.NamespaceSelector)...)
	for _, ns := range t.Namespaces { // upstream names no index
		errs = append(errs, Label(path.Child("namespace"), ns)...)
	}
	errs = append(errs, validateMatchLabelKeys(path.Child("matchLabelKeys"), t.MatchLabelKeys, t.LabelSelector)...)
	errs = append(errs, validateMatchLabelKeys(path.Child("mismatchLabelKeys"), t.MismatchLabelKeys, t.LabelSelector)...)
	if t.TopologyKey == "" {
		errs = append(errs, field.Required(path.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, metavalidation.ValidateLabelName(t.TopologyKey, path.Child("topologyKey"))...)
}

func validateSpread(path *field.Path, c *corev1.TopologySpreadConstraint) field.ErrorList {
	var errs field.ErrorList
	if c.MaxSkew <= 0 {
		errs = append(errs, field.Invalid(path.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
	}
	if c.TopologyKey == "" {
		errs = append(errs, field.Required(path.Child("topologyKey"), "can not be empty"))
	}
	errs = append(errs, Known(path.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
	if c.MinDomains != nil {
		if *c.MinDomains <= 0 {
			errs = append(errs, field.Invalid(path.Child("minDomains"), *c.MinDomains, "must be greater than zero"))
		}
		if c.WhenUnsatisfiable != corev1.DoNotSchedule {
			errs = append(errs, field.Invalid(path.Child("minDomains"), *c.MinDomains, "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not "+string(c.WhenUnsatisfiable)))
		}
	}
	if p := c.NodeAffinityPolicy; p != nil {
		errs = append(errs, Known(path.Child("nodeAffinityPolicy"), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
	}
	if p := c.NodeTaintsPolicy; p != nil {
		errs = append(errs, Known(path.Child("nodeTaintsPolicy"), *p, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
	}
	errs = append(errs, validateMatchLabelKeys(path.Child("matchLabelKeys"), c.MatchLabelKeys, c.LabelSelector)...)
	return append(errs, LabelSelector(path.Child("labelSelector"), c.LabelSelector)...)
}

// validateSpreads checks the constraints and that no two are about the same thing.
func validateSpreads(path *field.Path, list []corev1.TopologySpreadConstraint) field.ErrorList {
	var errs field.ErrorList
	for i := range list {
		c := &list[i]
		errs = append(errs, validateSpread(path.Index(i), c)...)
		for _, other := range list[i+1:] {
			if other.TopologyKey == c.TopologyKey && other.WhenUnsatisfiable == c.WhenUnsatisfiable {
				errs = append(errs, field.Duplicate(path.Index(i).Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%s, %s}", c.TopologyKey, c.WhenUnsatisfiable)))
				break
			}
		}
	}
	return errs
}

const podUpdateText = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n%v"

// validatePodUpdate lets images, the deadline, tolerations and a few gates change, and nothing else.
func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := validatePod(p)
	for _, f := range []struct {
		name     string
		now, was int
	}{{"containers", len(p.Spec.Containers), len(old.Spec.Containers)}, {"initContainers", len(p.Spec.InitContainers), len(old.Spec.InitContainers)},
		{"ephemeralContainers", len(p.Spec.EphemeralContainers), len(old.Spec.EphemeralContainers)}} {
		if f.now != f.was {
			return append(errs, field.Forbidden(path.Child(f.name), "pod updates may not add or remove containers"))
		}
	}
	errs = append(errs, validateDeadlineUpdate(path.Child("activeDeadlineSeconds"), p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)...)
	errs = append(errs, validateTolerationUpdate(path.Child("tolerations"), p.Spec.Tolerations, old.Spec.Tolerations)...)
	errs = append(errs, validateGatesUpdate(path.Child("schedulingGates"), p.Spec.SchedulingGates, old.Spec.SchedulingGates)...)
	// What may change is made equal; what then still differs may not.
	same := p.Spec.DeepCopy()
	for i := range same.Containers {
		same.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range same.InitContainers {
		same.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	same.ActiveDeadlineSeconds, same.Tolerations = old.Spec.ActiveDeadlineSeconds, old.Spec.Tolerations
	same.SchedulingGates = old.Spec.SchedulingGates
	if o, n := old.Spec.TerminationGracePeriodSeconds, same.TerminationGracePeriodSeconds; o != nil && *o < 0 && n != nil && *n == 1 {
		same.TerminationGracePeriodSeconds = o
	}
	if len(old.Spec.SchedulingGates) > 0 {
		errs = append(errs, narrowed(path, same, &old.Spec)...)
	}
	if !equality.Semantic.DeepEqual(*same, old.Spec) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf(podUpdateText, diff.Diff(old.Spec, *same))))
	}
	return errs
}

// narrowed lets a pod that waits at a scheduling gate get a narrower choice of nodes, and no other (KEP-3838). It makes
// what it has judged equal in s.
func narrowed(path *field.Path, s, old *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	if !maps.Equal(s.NodeSelector, old.NodeSelector) {
		for k, v := range old.NodeSelector {
			if now, ok := s.NodeSelector[k]; !ok || now != v {
				errs = append(errs, field.Invalid(path.Child("nodeSelector"), s.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
				break
			}
		}
		s.NodeSelector = old.NodeSelector
	}
	var now, was *corev1.NodeAffinity
	if s.Affinity != nil {
		now = s.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(now, was) {
		return errs
	}
	if was != nil && was.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		at := path.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
		var terms []corev1.NodeSelectorTerm
		if now != nil && now.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			terms = now.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		}
		errs = append(errs, narrowedTerms(at, terms, was.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms)...)
	}
	switch {
	case s.Affinity == nil:
		s.Affinity = &corev1.Affinity{NodeAffinity: was}
	case old.Affinity == nil && s.Affinity.PodAffinity == nil && s.Affinity.PodAntiAffinity == nil:
		s.Affinity = nil
	default:
		s.Affinity.NodeAffinity = was
	}
	return errs
}

func narrowedTerms(path *field.Path, now, was []corev1.NodeSelectorTerm) field.ErrorList {
	if len(was) > 0 && len(now) != len(was) {
		return field.ErrorList{field.Invalid(path, now, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range was {
		if !onlyAdds(now[i], was[i]) {
			errs = append(errs, field.Invalid(path.Index(i), now[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// onlyAdds reports whether a term asks for all that it asked for before.
func onlyAdds(now, was corev1.NodeSelectorTerm) bool {
	if len(was.MatchExpressions)+len(was.MatchFields) == 0 && len(now.MatchExpressions)+len(now.MatchFields) > 0 {
		return false
	}
	begins := func(now, was []corev1.NodeSelectorRequirement) bool {
		return len(was) <= len(now) && equality.Semantic.DeepEqual(now[:len(was):len(was)], was[:len(was):len(was)])
	}
	return begins(now.MatchExpressions, was.MatchExpressions) && begins(now.MatchFields, was.MatchFields)
}

func validateDeadlineUpdate(path *field.Path, now, old *int64) field.ErrorList {
	switch {
	case now != nil && (*now < 0 || *now > math.MaxInt32):
		return field.ErrorList{field.Invalid(path, *now, validation.InclusiveRangeError(0, math.MaxInt32))}
	case now != nil && old != nil && *old < *now:
		return field.ErrorList{field.Invalid(path, *now, "must be less than or equal to previous value")}
	case now == nil && old != nil:
		return field.ErrorList{field.Invalid(path, now, "must not update from a positive integer to nil value")}
	}
	return nil
}

func validateTolerationUpdate(path *field.Path, now, old []corev1.Toleration) field.ErrorList {
	same := func(a, b corev1.Toleration) bool {
		a.TolerationSeconds, b.TolerationSeconds = nil, nil
		return a == b
	}
	for _, o := range old {
		if !slices.ContainsFunc(now, func(n corev1.Toleration) bool { return same(o, n) }) {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func validateGatesUpdate(path *field.Path, now, old []corev1.PodSchedulingGate) field.ErrorList {
	var errs field.ErrorList
	for i, g := range now {
		if !slices.Contains(old, g) {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

func validatePodStatus(p, old *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	if n := p.Status.NominatedNodeName; n != "" {
		errs = append(errs, Subdomain(path.Child("nominatedNodeName"), n)...)
	}
	if old.Spec.NodeName != "" && p.Spec.NodeName != old.Spec.NodeName {
		errs = append(errs, field.Forbidden(path.Child("nodeName"), "may not be changed directly"))
	}
	for i, c := range p.Status.Conditions {
		at := path.Child("conditions").Index(i)
		errs = append(errs, Problems(at.Child("Type"), string(c.Type), validation.IsQualifiedName(string(c.Type)))...)
		errs = append(errs, NotNegativeInteger(at.Child("observedGeneration"), c.ObservedGeneration)...)
	}
	if q := old.Status.QOSClass; p.Status.QOSClass != "" && p.Status.QOSClass != q && q != "" {
		errs = append(errs, field.Invalid(path.Child("qosClass"), p.Status.QOSClass, "field is immutable"))
	}
	errs = append(errs, validateContainerEnds(path.Child("containerStatuses"), p.Status.ContainerStatuses, old.Status.ContainerStatuses, p.Spec.RestartPolicy)...)
	return append(errs, validatePodIPs(path, p)...)
}

// validateContainerEnds checks that a container of a pod that restarts none stays ended.
func validateContainerEnds(path *field.Path, now, was []corev1.ContainerStatus, policy corev1.RestartPolicy) field.ErrorList {
	if policy == corev1.RestartPolicyAlways {
		return nil
	}
	var errs field.ErrorList
	for _, o := range was {
		if o.State.Terminated == nil || policy == corev1.RestartPolicyOnFailure && o.State.Terminated.ExitCode != 0 {
			continue
		}
		for i, n := range now {
			if n.Name == o.Name && n.State.Terminated == nil {
				errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

// validatePodIPs checks the addresses of a pod and of its node: at most one of a family, no two the same.
func validatePodIPs(path *field.Path, p *corev1.Pod) field.ErrorList {
	var ips, hosts []string
	for _, ip := range p.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	for _, ip := range p.Status.HostIPs {
		hosts = append(hosts, ip.IP)
	}
	errs := validateAddresses(path.Child("podIPs"), ips)
	if len(hosts) > 0 && p.Status.HostIP != hosts[0] {
		errs = append(errs, field.Invalid(path.Child("hostIPs").Index(0).Child("ip"), hosts[0], "must be equal to `hostIP`"))
	}
	return append(errs, validateAddresses(path.Child("hostIPs"), hosts)...)
}

func validateAddresses(path *field.Path, ips []string) field.ErrorList {
	var errs field.ErrorList
	families := map[bool]int{}
	for i, ip := range ips {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Index(i), ip, false, nil)...)
		families[strings.Contains(ip, ":")]++
		if slices.Contains(ips[:i], ip) {
			errs = append(errs, field.Duplicate(path.Index(i), ip))
		}
	}
	if len(errs) == 0 && len(ips) > 1 && (families[true] > 1 || families[false] > 1) {
		errs = append(errs, field.Invalid(path, ips, "may specify no more than one IP for each IP family"))
	}
	return errs
}
