package core

import (
	"fmt"
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
	if len(p.Spec.SchedulingGates) > 0 && p.Spec.NodeName != "" {
		errs = append(errs, field.Forbidden(path.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return errs
}

// ValidatePodSpec checks a pod or a template of pods.
func ValidatePodSpec(path *field.Path, s *corev1.PodSpec) field.ErrorList {
	volumes, errs := validateVolumes(path.Child("volumes"), s.Volumes)
	v := &podValidator{spec: s, volumes: volumes, names: map[string]bool{}, hostPorts: map[string]bool{}}
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
	for i, c := range s.TopologySpreadConstraints {
		errs = append(errs, validateSpread(path.Child("topologySpreadConstraints").Index(i), &c)...)
	}
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		errs = append(errs, field.Invalid(path.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, OneOf(path.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	if s.Resources != nil {
		errs = append(errs, ValidateResources(path.Child("resources"), s.Resources)...)
	}
	return errs
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
		seen[y.Name] = true
	}
	if s.ShareProcessNamespace != nil && *s.ShareProcessNamespace && s.HostPID {
		errs = append(errs, field.Invalid(path.Child("shareProcessNamespace"), true, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	return append(errs, validateSeccomp(path.Child("seccompProfile"), c.SeccompProfile)...)
}

func validateSeccomp(path *field.Path, p *corev1.SeccompProfile) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := OneOf(path.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	local := p.Type == corev1.SeccompProfileTypeLocalhost
	switch {
	case local && (p.LocalhostProfile == nil || *p.LocalhostProfile == ""):
		errs = append(errs, field.Required(path.Child("localhostProfile"), "must be set when seccomp type is Localhost "))
	case !local && p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(path.Child("localhostProfile"), p, "can only be set when seccomp type is Localhost"))
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
			errs = append(errs, validateNodeTerm(at.Child("preference"), &p.Preference)...)
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
		errs = append(errs, validateNodeTerm(terms.Index(i), &s.NodeSelectorTerms[i])...)
	}
	return errs
}

func validateNodeTerm(path *field.Path, t *corev1.NodeSelectorTerm) field.ErrorList {
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
		for j, v := range r.Values {
			errs = append(errs, Problems(at.Child("values").Index(j), v, validation.IsValidLabelValue(v))...)
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
	for i, ns := range t.Namespaces {
		errs = append(errs, Label(path.Child("namespaces").Index(i), ns)...)
	}
	if t.TopologyKey == "" {
		return append(errs, field.Required(path.Child("topologyKey"), "can not be empty"))
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
	} else {
		errs = append(errs, metavalidation.ValidateLabelName(c.TopologyKey, path.Child("topologyKey"))...)
	}
	errs = append(errs, OneOf(path.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
	if c.MinDomains != nil {
		if *c.MinDomains <= 0 {
			errs = append(errs, field.Invalid(path.Child("minDomains"), *c.MinDomains, "must be greater than zero"))
		}
		if c.WhenUnsatisfiable != corev1.DoNotSchedule {
			errs = append(errs, field.Invalid(path.Child("minDomains"), *c.MinDomains, "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not "+string(c.WhenUnsatisfiable)))
		}
	}
	return append(errs, LabelSelector(path.Child("labelSelector"), c.LabelSelector)...)
}

const podUpdateText = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n%v"

// validatePodUpdate lets images, the deadline, tolerations and a few gates change, and nothing else.
func validatePodUpdate(p, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return field.ErrorList{field.Forbidden(path.Child("containers"), "pod updates may not add or remove containers")}
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return field.ErrorList{field.Forbidden(path.Child("initContainers"), "pod updates may not add or remove containers")}
	}
	if len(p.Spec.EphemeralContainers) != len(old.Spec.EphemeralContainers) {
		return field.ErrorList{field.Forbidden(path.Child("ephemeralContainers"), "pod updates may not add or remove containers")}
	}
	var errs field.ErrorList
	for i, c := range p.Spec.Containers {
		errs = append(errs, validateImage(path.Child("containers").Index(i).Child("image"), c.Image)...)
	}
	errs = append(errs, validateDeadlineUpdate(path.Child("activeDeadlineSeconds"), p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds)...)
	errs = append(errs, validateTolerationUpdate(path.Child("tolerations"), p.Spec.Tolerations, old.Spec.Tolerations)...)
	errs = append(errs, validateGatesUpdate(path.Child("schedulingGates"), p.Spec.SchedulingGates, old.Spec.SchedulingGates)...)
	if len(errs) > 0 {
		return errs
	}
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
		narrowed(same, &old.Spec)
	}
	if !equality.Semantic.DeepEqual(*same, old.Spec) {
		errs = append(errs, field.Forbidden(path, fmt.Sprintf(podUpdateText, diff.Diff(old.Spec, *same))))
	}
	return errs
}

// narrowed lets a pod that waits at a scheduling gate get a narrower choice of nodes (KEP-3838).
func narrowed(s, old *corev1.PodSpec) {
	for k, v := range old.NodeSelector {
		if s.NodeSelector[k] != v {
			return
		}
	}
	s.NodeSelector = old.NodeSelector
	if old.Affinity == nil || old.Affinity.NodeAffinity == nil {
		s.Affinity = old.Affinity
	}
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
	return ValidateTolerations(path, now)
}

func validateGatesUpdate(path *field.Path, now, old []corev1.PodSchedulingGate) field.ErrorList {
	var errs field.ErrorList
	for i, g := range now {
		if !slices.Contains(old, g) {
			errs = append(errs, field.Forbidden(path.Index(i), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
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
	return errs
}
