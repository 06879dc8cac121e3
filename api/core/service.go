package core

import (
	"fmt"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var service = &api.Kind{
	Version: "v1", Kind: "Service",
	Plural: "services", Singular: "service", ShortNames: []string{"svc"}, Categories: []string{"all"}, Namespaced: true,
	StoragePath: "services/specs",
	New:         api.New[corev1.Service], NewList: api.NewList[corev1.ServiceList],
	ValidateName:   apivalidation.NameIsDNSLabel,
	Validate:       api.Check(validateService),
	ValidateUpdate: api.CheckUpdate(validateServiceUpdate),
	ValidateStatus: api.CheckUpdate(validateServiceStatus),
	Warnings:       serviceWarnings,
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Type", "string", func(x *corev1.Service) any { return string(x.Spec.Type) }),
		api.Col("Cluster-IP", "string", func(x *corev1.Service) any { return clusterIPText(x) }),
		api.Col("External-IP", "string", func(x *corev1.Service) any { return externalIPText(x) }),
		api.Col("Port(s)", "string", func(x *corev1.Service) any { return portsText(x) }),
		api.AgeColumn(),
		api.Col("Selector", "string", func(x *corev1.Service) any { return LabelText(x.Spec.Selector) }).Wide(),
	},
	FieldKeys: []string{"spec.clusterIP", "spec.type"},
	Fields: api.Selectable(func(x *corev1.Service) map[string]string {
		return map[string]string{"spec.clusterIP": x.Spec.ClusterIP, "spec.type": string(x.Spec.Type)}
	}),
	PrepareCreate:       api.OnCreate(createService),
	PrepareUpdate:       api.OnUpdate(updateService),
	Default:             api.Defaults(defaultService),
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Connect("proxy", "ServiceProxyOptions", "create", "delete", "get", "patch", "update"),
		api.Status(),
	},
}

func defaultService(x *corev1.Service) {
	s := &x.Spec
	api.Fill(&s.SessionAffinity, corev1.ServiceAffinityNone)
	if s.SessionAffinity == corev1.ServiceAffinityNone {
		s.SessionAffinityConfig = nil
	}
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		c := s.SessionAffinityConfig
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: api.Ptr(corev1.DefaultClientIPServiceAffinitySeconds)},
			}
		}
	}
	api.Fill(&s.Type, corev1.ServiceTypeClusterIP)
	for i := range s.Ports {
		p := &s.Ports[i]
		api.Fill(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if externallyReachable(s) {
		api.Fill(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if s.InternalTrafficPolicy == nil && s.Type != corev1.ServiceTypeExternalName {
		s.InternalTrafficPolicy = api.Ptr(corev1.ServiceInternalTrafficPolicyCluster)
	}
	for i := range x.Status.LoadBalancer.Ingress { // of whatever type: a patch of the status does not bring the spec along
		if g := &x.Status.LoadBalancer.Ingress[i]; g.IP != "" {
			api.FillPtr(&g.IPMode, corev1.LoadBalancerIPModeVIP)
		}
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		api.FillPtr(&s.AllocateLoadBalancerNodePorts, true)
	}
}

func externallyReachable(s *corev1.ServiceSpec) bool {
	switch s.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP:
		return len(s.ExternalIPs) > 0
	}
	return false
}

func createService(x *corev1.Service) {
	x.Status = corev1.ServiceStatus{}
	syncClusterIPs(x)
}

func updateService(x, old *corev1.Service) {
	syncClusterIPs(x)
}

// syncClusterIPs lets clients set the older of two fields that say the same.
func syncClusterIPs(x *corev1.Service) {
	if x.Spec.ClusterIP != "" && len(x.Spec.ClusterIPs) == 0 {
		x.Spec.ClusterIPs = []string{x.Spec.ClusterIP}
	}
}

func clusterIPText(x *corev1.Service) string {
	if len(x.Spec.ClusterIPs) > 0 {
		return x.Spec.ClusterIPs[0]
	}
	return "<none>"
}

func externalIPText(x *corev1.Service) string {
	none := "<none>"
	ips := strings.Join(x.Spec.ExternalIPs, ",")
	switch x.Spec.Type {
	case corev1.ServiceTypeExternalName:
		return x.Spec.ExternalName
	case corev1.ServiceTypeLoadBalancer:
		none = "<pending>"
		var from []string
		for _, i := range x.Status.LoadBalancer.Ingress {
			if i.IP != "" {
				from = append(from, i.IP)
			} else if i.Hostname != "" {
				from = append(from, i.Hostname)
			}
		}
		ips = strings.Join(append(from, x.Spec.ExternalIPs...), ",")
	}
	if ips == "" {
		return none
	}
	return ips
}

func portsText(x *corev1.Service) string {
	var parts []string
	for _, p := range x.Spec.Ports {
		if p.NodePort > 0 {
			parts = append(parts, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			parts = append(parts, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	if len(parts) == 0 {
		return "<none>"
	}
	return strings.Join(parts, ",")
}

func validateService(x *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	headless := s.ClusterIP == corev1.ClusterIPNone
	external := s.Type == corev1.ServiceTypeExternalName
	if len(s.Ports) == 0 && !headless && !external {
		errs = append(errs, field.Required(path.Child("ports"), ""))
	}
	errs = append(errs, validateServicePorts(path.Child("ports"), s)...)
	errs = append(errs, metavalidation.ValidateLabels(s.Selector, path.Child("selector"))...)
	errs = append(errs, OneOf(path.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)...)
	if c := s.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
		if t := *c.ClientIP.TimeoutSeconds; t <= 0 || t > 86400 {
			errs = append(errs, field.Invalid(path.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), t, "must be greater than 0 and less than 86400"))
		}
	}
	switch {
	case external:
		errs = append(errs, withoutAddresses(path, s)...)
		if name := strings.TrimSuffix(s.ExternalName, "."); name == "" {
			errs = append(errs, field.Required(path.Child("externalName"), ""))
		} else {
			errs = append(errs, Subdomain(path.Child("externalName"), name)...)
		}
	case headless && (s.Type == corev1.ServiceTypeLoadBalancer || s.Type == corev1.ServiceTypeNodePort):
		errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(0), s.ClusterIP, fmt.Sprintf("may not be set to 'None' for %s services", s.Type)))
	}
	for i, ip := range s.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			errs = append(errs, validation.IsValidIPForLegacyField(path.Child("clusterIPs").Index(i), ip, false, nil)...)
		}
	}
	if len(s.ClusterIPs) > 0 && s.ClusterIPs[0] != s.ClusterIP && s.ClusterIP != "" {
		errs = append(errs, field.Invalid(path.Child("clusterIPs"), s.ClusterIPs, "first value must match `clusterIP`"))
	}
	for i, ip := range s.ExternalIPs {
		errs = append(errs, validation.IsValidIPForLegacyField(path.Child("externalIPs").Index(i), ip, false, nil)...)
	}
	errs = append(errs, OneOf(path.Child("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, validateFamilies(path, s)...)
	errs = append(errs, validateLoadBalancer(path, s)...)
	if externallyReachable(s) {
		errs = append(errs, OneOf(path.Child("externalTrafficPolicy"), s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if s.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(path.Child("externalTrafficPolicy"), s.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	errs = append(errs, validateHealthCheck(path.Child("healthCheckNodePort"), s)...)
	if p := s.InternalTrafficPolicy; p != nil {
		errs = append(errs, Known(path.Child("internalTrafficPolicy"), *p, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	}
	if d := s.TrafficDistribution; d != nil {
		errs = append(errs, Known(path.Child("trafficDistribution"), *d, corev1.ServiceTrafficDistributionPreferClose, "PreferSameZone", "PreferSameNode")...)
	}
	return errs
}

// withoutAddresses refuses on a Service that is but a name whatever has to do with addresses.
func withoutAddresses(path *field.Path, s *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	for _, f := range []struct {
		name string
		set  bool
	}{{"clusterIPs", s.ClusterIP != "" || len(s.ClusterIPs) > 0}, {"ipFamilies", len(s.IPFamilies) > 0}, {"ipFamilyPolicy", s.IPFamilyPolicy != nil}} {
		if f.set {
			errs = append(errs, field.Forbidden(path.Child(f.name), "may not be set for ExternalName services"))
		}
	}
	return errs
}

func validateFamilies(path *field.Path, s *corev1.ServiceSpec) field.ErrorList {
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var errs field.ErrorList
	if p := s.IPFamilyPolicy; p != nil {
		errs = append(errs, Known(path.Child("ipFamilyPolicy"), *p, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	seen := map[corev1.IPFamily]bool{}
	for i, f := range s.IPFamilies {
		at := path.Child("ipFamilies").Index(i)
		errs = append(errs, Known(at, f, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if seen[f] {
			errs = append(errs, field.Duplicate(at, f))
		}
		seen[f] = true
	}
	return errs
}

func validateLoadBalancer(path *field.Path, s *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	balanced := s.Type == corev1.ServiceTypeLoadBalancer
	forbid := func(at *field.Path) {
		errs = append(errs, field.Forbidden(at, "may only be used when `type` is 'LoadBalancer'"))
	}
	ranges := path.Child("LoadBalancerSourceRanges") // upstream's spelling
	if len(s.LoadBalancerSourceRanges) > 0 && !balanced {
		forbid(ranges)
	}
	for i, r := range s.LoadBalancerSourceRanges {
		errs = append(errs, validation.IsValidCIDRForLegacyField(ranges.Index(i), strings.TrimSpace(r), false, nil)...)
	}
	if s.AllocateLoadBalancerNodePorts != nil && !balanced {
		forbid(path.Child("allocateLoadBalancerNodePorts"))
	}
	if balanced && s.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(path.Child("allocateLoadBalancerNodePorts"), ""))
	}
	if c := s.LoadBalancerClass; c != nil {
		if !balanced {
			forbid(path.Child("loadBalancerClass"))
		} else {
			errs = append(errs, metavalidation.ValidateLabelName(*c, path.Child("loadBalancerClass"))...)
		}
	}
	return errs
}

func validateHealthCheck(path *field.Path, s *corev1.ServiceSpec) field.ErrorList {
	switch n := s.HealthCheckNodePort; {
	case n == 0:
	case !needsHealthCheck(s):
		return field.ErrorList{field.Invalid(path, n, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")}
	case n < 0 || n > 65535:
		return field.ErrorList{field.Invalid(path, n, validation.InclusiveRangeError(1, 65535))}
	}
	return nil
}

func needsHealthCheck(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func validateServiceStatus(x, _ *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("status", "loadBalancer", "ingress")
	if len(x.Status.LoadBalancer.Ingress) > 0 && x.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return field.ErrorList{field.Forbidden(at, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	for i, g := range x.Status.LoadBalancer.Ingress {
		at := at.Index(i)
		if g.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), g.IP, false, nil)...)
		}
		switch {
		case g.IPMode != nil && g.IP == "":
			errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
		case g.IPMode == nil && g.IP != "":
			errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
		case g.IPMode != nil:
			errs = append(errs, Known(at.Child("ipMode"), *g.IPMode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
		}
		if g.Hostname != "" {
			errs = append(errs, Subdomain(at.Child("hostname"), g.Hostname)...)
		}
	}
	return errs
}

func serviceWarnings(obj, _ api.Object) []string {
	s := &obj.(*corev1.Service).Spec
	var out []string
	if len(s.ExternalIPs) > 0 {
		out = append(out, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	return out
}

func validateServiceUpdate(x, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	before, now := old.Spec, x.Spec
	if before.Type != corev1.ServiceTypeExternalName && now.Type != corev1.ServiceTypeExternalName &&
		len(before.ClusterIPs) > 0 && before.ClusterIPs[0] != "" && len(now.ClusterIPs) > 0 && now.ClusterIPs[0] != before.ClusterIPs[0] {
		errs = append(errs, field.Invalid(field.NewPath("spec", "clusterIPs").Index(0), now.ClusterIPs, "may not change once set"))
	}
	path := field.NewPath("spec")
	if before.Type == corev1.ServiceTypeLoadBalancer && now.Type == corev1.ServiceTypeLoadBalancer && !samePointee(before.LoadBalancerClass, now.LoadBalancerClass) {
		errs = append(errs, field.Invalid(path.Child("loadBalancerClass"), now.LoadBalancerClass, "may not change once set"))
	}
	if needsHealthCheck(&before) && needsHealthCheck(&now) && before.HealthCheckNodePort != now.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(path.Child("healthCheckNodePort"), "field is immutable"))
	}
	return append(errs, validateService(x)...)
}

// portKey is how upstream's message shows two equal ports.
type portKey struct {
	Name        string
	Protocol    corev1.Protocol
	AppProtocol *string
	Port        int32
	TargetPort  intstr.IntOrString
	NodePort    int32
}

func validateServicePorts(path *field.Path, s *corev1.ServiceSpec) field.ErrorList {
	var errs field.ErrorList
	names, numbers, nodePorts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, p := range s.Ports {
		at := path.Index(i)
		if p.Name == "" && len(s.Ports) > 1 {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		if p.Name != "" {
			errs = append(errs, Label(at.Child("name"), p.Name)...)
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		errs = append(errs, Port(at.Child("port"), p.Port)...)
		errs = append(errs, OneOf(at.Child("protocol"), p.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		errs = append(errs, PortOrName(at.Child("targetPort"), p.TargetPort)...)
		if p.AppProtocol != nil {
			errs = append(errs, metavalidation.ValidateLabelName(*p.AppProtocol, at.Child("appProtocol"))...)
		}
	}
	for i, p := range s.Ports {
		if p.NodePort == 0 {
			continue
		}
		at := path.Index(i)
		if s.Type == corev1.ServiceTypeClusterIP {
			errs = append(errs, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		if id := fmt.Sprint(p.Protocol, p.NodePort); nodePorts[id] {
			errs = append(errs, field.Duplicate(at.Child("nodePort"), p.NodePort))
		} else {
			nodePorts[id] = true
		}
	}
	for i, p := range s.Ports {
		if id := fmt.Sprint(p.Protocol, p.Port); numbers[id] {
			errs = append(errs, field.Duplicate(path.Index(i), portKey{Protocol: p.Protocol, Port: p.Port}))
		} else {
			numbers[id] = true
		}
	}
	return errs
}
