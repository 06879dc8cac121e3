package env

import (
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Services makes the variables that tell a pod of the services of its namespace (if links) and of the API itself:
// {NAME}_SERVICE_HOST, {NAME}_SERVICE_PORT and the older {NAME}_PORT_... ones.
func Services(namespace string, services []*corev1.Service, links bool) []Var {
	var pick []*corev1.Service
	seen := map[string]bool{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName || len(s.Spec.Ports) == 0 {
			continue
		}
		if links && s.Namespace == namespace {
			pick = append(pick, s)
			seen[s.Name] = true
		}
	}
	for _, s := range services {
		if s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes" && !seen[s.Name] && s.Spec.ClusterIP != "" && len(s.Spec.Ports) > 0 {
			pick = append(pick, s)
		}
	}
	slices.SortFunc(pick, func(a, b *corev1.Service) int { return strings.Compare(a.Name, b.Name) })
	var out []Var
	for _, s := range pick {
		out = append(out, service(s)...)
	}
	return out
}

func service(s *corev1.Service) []Var {
	name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	port := func(p int32) string { return strconv.Itoa(int(p)) }
	first := s.Spec.Ports[0]
	out := []Var{{name + "_SERVICE_HOST", s.Spec.ClusterIP}, {name + "_SERVICE_PORT", port(first.Port)}}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			out = append(out, Var{name + "_SERVICE_PORT_" + strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), port(p.Port)})
		}
	}
	for i, p := range s.Spec.Ports {
		proto := string(p.Protocol)
		if proto == "" {
			proto = string(corev1.ProtocolTCP)
		}
		url := strings.ToLower(proto) + "://" + net.JoinHostPort(s.Spec.ClusterIP, port(p.Port))
		if i == 0 {
			out = append(out, Var{name + "_PORT", url})
		}
		prefix := name + "_PORT_" + port(p.Port) + "_" + strings.ToUpper(proto)
		out = append(out, Var{prefix, url}, Var{prefix + "_PROTO", strings.ToLower(proto)}, Var{prefix + "_PORT", port(p.Port)}, Var{prefix + "_ADDR", s.Spec.ClusterIP})
	}
	return out
}
