package dropin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	proxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/proxy"
)

// proxyTable is the nftables table of a kube-proxy that stands alone.
const proxyTable = "kube-proxy"

func runProxy(ctx context.Context, p *process) error {
	f := p.flags()
	config := f.String("config", "", "a KubeProxyConfiguration")
	kubeconfig := f.String("kubeconfig", "", "how to reach the API server, and as whom")
	master := f.String("master", "", "the API server's address, over the kubeconfig's")
	name := f.String("hostname-override", "", "the node's name (default: the host's)")
	cidr := f.String("cluster-cidr", "", "the range of all pods")
	healthz := f.String("healthz-bind-address", "0.0.0.0:10256", "where the health check listens; empty serves none")
	mode := f.String("proxy-mode", "", "nftables is the only one; iptables and ipvs are done by nftables too")
	cleanup := f.Bool("cleanup", false, "remove the rules and end")
	bind := f.String("bind-address", "0.0.0.0", "the node's address, where it is not the one of its node object")
	featureGates := f.StringSlice("feature-gates", nil, "name=true|false")
	f.quiet = []string{"profiling", "kube-api-burst", "kube-api-qps", "kube-api-content-type", "iptables-sync-period", "iptables-min-sync-period",
		"oom-score-adj", "config-sync-period"}
	if err := f.parse(); err != nil {
		return err
	}
	if *cleanup {
		return proxy.Purge(ctx, proxy.Config{Table: proxyTable, Log: p.log})
	}
	if *config != "" {
		c := &proxyv1alpha1.KubeProxyConfiguration{}
		if err := p.readConfig(*config, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration", c, "clientConnection", "hostnameOverride",
			"clusterCIDR", "detectLocal", "detectLocalMode", "healthzBindAddress", "mode", "bindAddress", "featureGates", "nftables"); err != nil {
			return err
		}
		for flag, v := range map[string]struct {
			to   *string
			from string
		}{"kubeconfig": {kubeconfig, c.ClientConnection.Kubeconfig}, "hostname-override": {name, c.HostnameOverride},
			"healthz-bind-address": {healthz, c.HealthzBindAddress}, "proxy-mode": {mode, string(c.Mode)}, "bind-address": {bind, c.BindAddress},
			"cluster-cidr": {cidr, c.ClusterCIDR}} {
			if strings.Trim(v.from, ",") != "" && !f.Changed(flag) {
				*v.to = strings.Trim(v.from, ",")
			}
		}
		for g, on := range c.FeatureGates {
			*featureGates = append(*featureGates, fmt.Sprintf("%s=%v", g, on))
		}
	}
	if _, err := f.gates(*featureGates); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "iptables", "ipvs", "nftables"}, *mode) {
		return fmt.Errorf("mode: Invalid value: %q: must be iptables,ipvs,nftables or blank", *mode)
	}
	if *mode == "ipvs" || *mode == "iptables" {
		p.log.Warn("Services are led by nftables rules", "asked", *mode)
	}
	cfg := proxy.Config{NodeName: *name, Table: proxyTable, Log: p.log}
	var err error
	if cfg.NodeName == "" {
		if cfg.NodeName, err = os.Hostname(); err != nil {
			return err
		}
	}
	cfg.NodeName = strings.ToLower(cfg.NodeName)
	if first, _, _ := strings.Cut(*cidr, ","); first != "" {
		if cfg.ClusterCIDR, err = netip.ParsePrefix(first); err != nil {
			return fmt.Errorf("--cluster-cidr: %w", err)
		}
	}
	conn, err := connect(*kubeconfig, *master, "kube-proxy")
	if err != nil {
		return err
	}
	if cfg.Client, err = conn.client(); err != nil {
		return err
	}
	cfg.Caches = client.NewCaches(cfg.Client, p.log)
	ip, err := nodeAddress(ctx, cfg.Client, cfg.NodeName, *bind)
	if err != nil {
		return err
	}
	cfg.NodeIPs = []netip.Addr{ip}
	services, err := proxy.New(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cfg.Caches.Run(ctx) })
	g.Go(func() error { return services.Run(ctx) })
	if *healthz != "" {
		g.Go(func() error {
			return plain(ctx, *healthz, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				now := time.Now().UTC()
				_ = json.NewEncoder(w).Encode(map[string]any{"lastUpdated": now, "currentTime": now, "nodeEligible": true})
			}))
		})
	}
	return g.Wait()
}

// nodeAddress is the node's address: the one given, the one its object tells, or the host's.
func nodeAddress(ctx context.Context, c client.Interface, name, given string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(given); err == nil && !ip.IsUnspecified() {
		return ip, nil
	}
	if n, err := client.Get[*corev1.Node](ctx, c, "", name); err == nil {
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
				return ip, nil
			}
		}
	}
	return daemon.HostIP()
}
