package spec

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// DNS is the content of a resolv.conf.
type DNS struct{ Servers, Searches, Options []string }

// ParseResolvConf reads a resolv.conf.
func ParseResolvConf(r io.Reader) (DNS, error) {
	var d DNS
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		f := strings.Fields(line)
		switch f[0] {
		case "nameserver":
			if len(f) > 1 {
				d.Servers = append(d.Servers, f[1])
			}
		case "search":
			d.Searches = nil
			for _, s := range f[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				d.Searches = append(d.Searches, s)
			}
		case "options":
			d.Options = append(d.Options, f[1:]...)
		}
	}
	return d, sc.Err()
}

const (
	maxServers  = 3
	maxSearches = 32
)

// DNS is how a pod resolves names, by its dnsPolicy and dnsConfig.
func (n *Node) DNS(pod *corev1.Pod) DNS {
	policy := pod.Spec.DNSPolicy
	if policy == "" {
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	var d DNS
	switch {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault || len(n.ClusterDNS) == 0:
		d = DNS{slices.Clone(n.HostDNS.Servers), slices.Clone(n.HostDNS.Searches), slices.Clone(n.HostDNS.Options)}
		if len(d.Servers) == 0 {
			d.Servers = []string{"127.0.0.1"}
		}
	default:
		d.Servers = slices.Clone(n.ClusterDNS)
		d.Options = []string{"ndots:5"}
		d.Searches = append([]string{pod.Namespace + ".svc." + n.ClusterDomain, "svc." + n.ClusterDomain, n.ClusterDomain}, n.HostDNS.Searches...)
	}
	if c := pod.Spec.DNSConfig; c != nil {
		d.Servers = append(d.Servers, c.Nameservers...)
		d.Searches = append(d.Searches, c.Searches...)
		for _, o := range c.Options {
			d.Options = slices.DeleteFunc(d.Options, func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name })
			s := o.Name
			if o.Value != nil && *o.Value != "" {
				s += ":" + *o.Value
			}
			d.Options = append(d.Options, s)
		}
	}
	d.Servers, d.Searches = unique(d.Servers), unique(d.Searches)
	d.Servers = d.Servers[:min(len(d.Servers), maxServers)]
	d.Searches = d.Searches[:min(len(d.Searches), maxSearches)]
	return d
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

const maxHostname = 64 // of the kernel, with its final zero

// Hostname is a pod's host name, which may be its full name.
func Hostname(pod *corev1.Pod, node, domain string) (string, error) {
	if o := pod.Spec.HostnameOverride; o != nil {
		return *o, nil
	}
	if pod.Spec.HostNetwork {
		return node, nil
	}
	name, sub := ShortName(pod), pod.Spec.Subdomain
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN && sub != "" {
		full := fmt.Sprintf("%s.%s.%s.svc.%s", name, sub, pod.Namespace, domain)
		if len(full) > maxHostname {
			return "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", full, maxHostname, len(full))
		}
		return full, nil
	}
	return name, nil
}

// ShortName is the pod's host name without its domain, cut to what the kernel takes.
func ShortName(pod *corev1.Pod) string {
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if len(name) >= maxHostname {
		name = strings.TrimRight(name[:maxHostname-1], "-.")
	}
	return name
}

// Hosts is the content of a pod's /etc/hosts. With the node's network it starts from the node's own file.
func Hosts(pod *corev1.Pod, ips []string, domain string, node []byte) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(node)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		name := ShortName(pod)
		if o := pod.Spec.HostnameOverride; o != nil {
			name = *o
		}
		for _, ip := range ips {
			if pod.Spec.Subdomain != "" && pod.Spec.HostnameOverride == nil {
				fmt.Fprintf(&b, "%s\t%s.%s.%s.svc.%s\t%s\n", ip, name, pod.Spec.Subdomain, pod.Namespace, domain, name)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, name)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return []byte(b.String())
}
