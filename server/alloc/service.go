package alloc

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// carry puts allocated values that an update leaves out back in, so that a client need not repeat them.
func carry(svc, old *corev1.Service) {
	n, o := &svc.Spec, &old.Spec
	// A change to the older of the two fields alone counts for both.
	if slices.Equal(n.ClusterIPs, o.ClusterIPs) && n.ClusterIP != o.ClusterIP {
		if n.ClusterIPs = nil; n.ClusterIP != "" {
			n.ClusterIPs = []string{n.ClusterIP}
		}
	}
	if n.Type != corev1.ServiceTypeExternalName && o.Type != corev1.ServiceTypeExternalName {
		if n.ClusterIP == "" {
			n.ClusterIP = o.ClusterIP
		}
		if len(n.ClusterIPs) == 0 {
			n.ClusterIPs = slices.Clone(o.ClusterIPs)
		}
	}
	if allocates(svc) && allocates(old) {
		carryPorts(n, o)
	}
	if needsHealthCheck(svc) && needsHealthCheck(old) && n.HealthCheckNodePort == 0 {
		n.HealthCheckNodePort = o.HealthCheckNodePort
	}
}

// carryPorts finds the node port of a port by its name, unless another port of the update has it.
func carryPorts(n, o *corev1.ServiceSpec) {
	used := map[int32]bool{}
	for _, p := range n.Ports {
		used[p.NodePort] = true
	}
	for i := range n.Ports {
		if n.Ports[i].NodePort != 0 {
			continue
		}
		for _, p := range o.Ports {
			if p.Name == n.Ports[i].Name && !used[p.NodePort] {
				n.Ports[i].NodePort = p.NodePort
			}
		}
	}
}

// dropUnused clears fields that the Service's new type has no use for, where the client left them as they were.
func dropUnused(svc, old *corev1.Service) {
	n, o := &svc.Spec, &old.Spec
	if n.Type == corev1.ServiceTypeExternalName && o.Type != corev1.ServiceTypeExternalName {
		if n.ClusterIP == o.ClusterIP && slices.Equal(n.ClusterIPs, o.ClusterIPs) {
			n.ClusterIP, n.ClusterIPs = "", nil
		}
		if slices.Equal(n.IPFamilies, o.IPFamilies) {
			n.IPFamilies = nil
		}
		if equal(n.IPFamilyPolicy, o.IPFamilyPolicy) {
			n.IPFamilyPolicy = nil
		}
		if equal(n.InternalTrafficPolicy, o.InternalTrafficPolicy) {
			n.InternalTrafficPolicy = nil
		}
	}
	exposed := func(t corev1.ServiceType) bool {
		return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
	}
	if exposed(o.Type) && !exposed(n.Type) && sameNodePorts(n, o) {
		for i := range n.Ports {
			n.Ports[i].NodePort = 0
		}
	}
	if needsHealthCheck(old) && !needsHealthCheck(svc) && n.HealthCheckNodePort == o.HealthCheckNodePort {
		n.HealthCheckNodePort = 0
	}
	if o.Type == corev1.ServiceTypeLoadBalancer && n.Type != corev1.ServiceTypeLoadBalancer {
		if equal(n.AllocateLoadBalancerNodePorts, o.AllocateLoadBalancerNodePorts) {
			n.AllocateLoadBalancerNodePorts = nil
		}
		if equal(n.LoadBalancerClass, o.LoadBalancerClass) {
			n.LoadBalancerClass = nil
		}
	}
	if external(o) && !external(n) && n.ExternalTrafficPolicy == o.ExternalTrafficPolicy {
		n.ExternalTrafficPolicy = ""
	}
	if n.Type != corev1.ServiceTypeLoadBalancer {
		svc.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
}

func equal[T comparable](a, b *T) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

func sameNodePorts(n, o *corev1.ServiceSpec) bool {
	of := func(s *corev1.ServiceSpec) (ports []int32) {
		for _, p := range s.Ports {
			if p.NodePort != 0 {
				ports = append(ports, p.NodePort)
			}
		}
		slices.Sort(ports)
		return ports
	}
	return slices.Equal(of(n), of(o))
}

func external(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer || s.Type == corev1.ServiceTypeNodePort ||
		(s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0)
}

// families decides on ipFamilyPolicy and ipFamilies, and refuses what addresses could not work with.
func (c *claim) families() field.ErrorList {
	svc, s := c.svc, &c.svc.Spec
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if s.ClusterIP != "" && len(s.ClusterIPs) == 0 {
		s.ClusterIPs = []string{s.ClusterIP}
	}
	headlessAlone := s.ClusterIP == corev1.ClusterIPNone && len(s.Selector) == 0
	if s.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		switch {
		case c.old != nil && c.old.Spec.IPFamilyPolicy != nil:
			policy = *c.old.Spec.IPFamilyPolicy
		case headlessAlone:
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		s.IPFamilyPolicy = &policy
	}
	if errs := append(c.checkFamilies(), c.checkAddresses()...); len(errs) > 0 {
		return errs
	}
	if c.old != nil {
		if *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack {
			if slices.Equal(s.ClusterIPs, c.old.Spec.ClusterIPs) && len(s.ClusterIPs) > 1 {
				s.ClusterIPs = s.ClusterIPs[:1]
			}
			if slices.Equal(s.IPFamilies, c.old.Spec.IPFamilies) && len(s.IPFamilies) > 1 {
				s.IPFamilies = s.IPFamilies[:1]
			}
		}
	}
	if errs := c.infer(svc); len(errs) > 0 {
		return errs
	}
	if len(s.IPFamilies) == 0 && len(c.a.cidrs) > 0 {
		s.IPFamilies = []corev1.IPFamily{familyOf(c.a.cidrs[0].Addr())}
	}
	both := len(c.configured()) == 2 || headlessAlone // without a selector the cluster need not have the other family
	if *s.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(s.IPFamilies) == 1 && both {
		other := corev1.IPv6Protocol
		if s.IPFamilies[0] == other {
			other = corev1.IPv4Protocol
		}
		s.IPFamilies = append(slices.Clone(s.IPFamilies), other)
	}
	return nil
}

// infer adds the families of the addresses that the Service names, and checks them against the cluster.
func (c *claim) infer(svc *corev1.Service) field.ErrorList {
	s := &svc.Spec
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack {
		if len(s.ClusterIPs) == 2 {
			errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), s.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified"))
		}
		if len(s.IPFamilies) == 2 {
			errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), s.IPFamilyPolicy, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"))
		}
	}
	configured := c.configured()
	headless := s.ClusterIP == corev1.ClusterIPNone
	for i, ip := range s.ClusterIPs {
		addr, err := netip.ParseAddr(ip)
		if err != nil || i < len(s.IPFamilies) {
			continue
		}
		f := familyOf(addr)
		if !slices.Contains(configured, f) {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(i), s.ClusterIPs, fmt.Sprintf("%s is not configured on this cluster", f)))
			continue
		}
		s.IPFamilies = append(slices.Clone(s.IPFamilies), f)
	}
	if len(errs) > 0 || (headless && len(s.Selector) == 0) {
		return errs
	}
	if *s.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(configured) < 2 {
		errs = append(errs, field.Invalid(spec.Child("ipFamilyPolicy"), s.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range s.IPFamilies {
		if !slices.Contains(configured, f) {
			errs = append(errs, field.Invalid(spec.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	return errs
}

var families4and6 = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}

// checkFamilies says what no cluster could make of ipFamilies and ipFamilyPolicy.
func (c *claim) checkFamilies() field.ErrorList {
	s, spec := &c.svc.Spec, field.NewPath("spec")
	var errs field.ErrorList
	known := families4and6
	for i, f := range s.IPFamilies {
		at := spec.Child("ipFamilies").Index(i)
		switch {
		case !slices.Contains(known, f):
			errs = append(errs, field.NotSupported(at, f, known))
		case slices.Contains(s.IPFamilies[:i], f):
			errs = append(errs, field.Duplicate(at, f))
		}
	}
	policies := []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack}
	if !slices.Contains(policies, *s.IPFamilyPolicy) {
		errs = append(errs, field.NotSupported(spec.Child("ipFamilyPolicy"), *s.IPFamilyPolicy, policies))
	}
	return errs
}

// checkAddresses says what is wrong with clusterIP and clusterIPs before anything is reserved.
func (c *claim) checkAddresses() field.ErrorList {
	s := &c.svc.Spec
	var errs field.ErrorList
	path := field.NewPath("spec", "clusterIPs")
	switch {
	case s.ClusterIP == "" && len(s.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(path, s.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP:
		errs = append(errs, field.Invalid(path, s.ClusterIPs, "first value must match `clusterIP`"))
	}
	if len(s.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(path, s.ClusterIPs, "may only hold up to 2 values"))
	}
	var families []corev1.IPFamily
	for i, ip := range s.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			if len(s.ClusterIPs) > 1 {
				errs = append(errs, field.Invalid(path, s.ClusterIPs, "'None' must be the first and only value"))
			}
			continue
		}
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			errs = append(errs, field.Invalid(path.Index(i), ip, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
			continue
		}
		f := familyOf(addr)
		if i < len(s.IPFamilies) && s.IPFamilies[i] != f && slices.Contains(families4and6, s.IPFamilies[i]) {
			errs = append(errs, field.Invalid(path.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", s.IPFamilies[i], i)))
		}
		if slices.Contains(families, f) {
			errs = append(errs, field.Invalid(path, s.ClusterIPs, "may specify no more than one IP for each IP family"))
		}
		families = append(families, f)
	}
	return errs
}

// configured is the families that the cluster has addresses of.
func (c *claim) configured() []corev1.IPFamily {
	var out []corev1.IPFamily
	for _, p := range c.a.ranges() {
		if f := familyOf(p.Addr()); !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
