package dropin

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/controllers/nodelifecycle"
	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/reconcile"
)

// managerFlags are the flags of kube-controller-manager that mean something here.
type managerFlags struct {
	kubeconfig, master, authentication string
	controllers                        []string
	accounts                           bool
	rootCA, accountKey                 string
	signing                            signing
	clusterCIDR, serviceRange          string
	allocate                           bool
	maskSize, maskSize4, maskSize6     int
	nodes                              nodelifecycle.Config
	featureGates                       []string
}

func (o *managerFlags) flags(f *flags) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server, and as whom")
	f.StringVar(&o.master, "master", "", "the API server's address, over the kubeconfig's")
	f.StringVar(&o.authentication, "authentication-kubeconfig", "", "the same for asking who a caller is")
	_ = f.String("authorization-kubeconfig", "", "the same for asking what a caller may")
	f.StringSliceVar(&o.controllers, "controllers", []string{"*"}, "which controllers run: * is all that usually do, NAME adds one, -NAME leaves one out")
	f.BoolVar(&o.accounts, "use-service-account-credentials", false, "let each controller be its own service account")
	f.StringVar(&o.rootCA, "root-ca-file", "", "the authority that every namespace is told of")
	f.StringVar(&o.accountKey, "service-account-private-key-file", "", "the key that tokens in secrets are signed with")
	o.signing.flags(f)
	f.StringVar(&o.clusterCIDR, "cluster-cidr", "", "the range that nodes' pod ranges are cut from")
	f.StringVar(&o.serviceRange, "service-cluster-ip-range", "", "the range of cluster addresses")
	f.BoolVar(&o.allocate, "allocate-node-cidrs", false, "give every node a pod range")
	f.IntVar(&o.maskSize, "node-cidr-mask-size", 0, "the length of a node's range (default 24, 64 for IPv6)")
	f.IntVar(&o.maskSize4, "node-cidr-mask-size-ipv4", 0, "the same for IPv4 of two families")
	f.IntVar(&o.maskSize6, "node-cidr-mask-size-ipv6", 0, "the same for IPv6 of two families")
	f.DurationVar(&o.nodes.Grace, "node-monitor-grace-period", 50*time.Second, "how long a node may be silent")
	f.DurationVar(&o.nodes.Startup, "node-startup-grace-period", time.Minute, "the same for a node that has not said anything yet")
	f.Float64Var(&o.nodes.Rate, "node-eviction-rate", 0.1, "how many silent nodes of a zone are evicted from each second")
	f.Float64Var(&o.nodes.Secondary, "secondary-node-eviction-rate", 0.01, "the same in a zone where many are silent")
	f.Float64Var(&o.nodes.Unhealthy, "unhealthy-zone-threshold", 0.55, "the part of a zone's nodes that makes it one of those")
	f.IntVar(&o.nodes.Large, "large-cluster-size-threshold", 50, "how many nodes it must have for the secondary rate")
	f.StringSliceVar(&o.featureGates, "feature-gates", nil, "name=true|false")
	f.quiet = []string{"profiling", "kube-api-burst", "kube-api-qps", "kube-api-content-type", "authentication-skip-lookup", "cluster-name",
		"enable-garbage-collector", "min-resync-period", "requestheader-client-ca-file", "requestheader-allowed-names",
		"requestheader-extra-headers-prefix", "requestheader-group-headers", "requestheader-username-headers"}
}

func runControllerManager(ctx context.Context, p *process) error {
	f := p.flags()
	var o managerFlags
	var s ops
	var l leader
	o.flags(f)
	s.flags(f, 10257)
	l.flags(f, "kube-controller-manager")
	if err := f.parse(); err != nil {
		return err
	}
	if _, err := f.gates(o.featureGates); err != nil {
		return err
	}
	conn, err := connect(o.kubeconfig, o.master, "kube-controller-manager")
	if err != nil {
		return err
	}
	c, err := conn.client()
	if err != nil {
		return err
	}
	ask, err := asker(o.authentication, c)
	if err != nil {
		return err
	}
	m := &daemon.ControllerManager{As: func(string) client.Interface { return c }, Reader: c, Metrics: reconcile.NewMetrics(), Log: p.log}
	s.metrics = []prometheus.Collector{m.Metrics}
	if o.accounts {
		m.As = accounts(conn, c)
	}
	if m.Leader, err = l.make(p, c); err != nil {
		return err
	}
	if m.Config, err = o.config(p); err != nil {
		return err
	}
	if o.rootCA == "" {
		if m.Config.RootCA, err = conn.authority(); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.run(ctx, ask) })
	g.Go(func() error { return m.Run(ctx) })
	return g.Wait()
}

func (o *managerFlags) config(p *process) (controllers.Config, error) {
	c := controllers.Config{Nodes: o.nodes}
	var err error
	if c.Only, err = o.only(p); err != nil {
		return c, err
	}
	if o.rootCA != "" {
		if _, c.RootCA, err = authorities(o.rootCA); err != nil {
			return c, err
		}
	}
	if o.clusterCIDR != "" {
		first, _, _ := strings.Cut(o.clusterCIDR, ",")
		if c.ClusterCIDR, err = netip.ParsePrefix(first); err != nil {
			return c, fmt.Errorf("--cluster-cidr: %w", err)
		}
		c.ClusterCIDR = c.ClusterCIDR.Masked()
		c.NodeCIDRBits = o.maskSize
		if four := c.ClusterCIDR.Addr().Is4(); c.NodeCIDRBits == 0 && four {
			c.NodeCIDRBits = max(o.maskSize4, c.ClusterCIDR.Bits())
			if o.maskSize4 == 0 {
				c.NodeCIDRBits = max(24, c.ClusterCIDR.Bits())
			}
		} else if c.NodeCIDRBits == 0 {
			c.NodeCIDRBits = 64
			if o.maskSize6 != 0 {
				c.NodeCIDRBits = o.maskSize6
			}
		}
	}
	if o.accountKey != "" {
		if c.ServiceAccountKey, err = privateKey(o.accountKey); err != nil {
			return c, err
		}
	}
	c.Signing, err = o.signing.config()
	return c, err
}

// only reads --controllers, in upstream's names and their older aliases.
func (o *managerFlags) only(p *process) (func(name string) bool, error) {
	table, err := upstream.ReadFile("upstream/controllers.txt")
	if err != nil {
		return nil, err
	}
	names, usual := map[string]string{}, map[string]bool{} // canonical names, by all of them
	for line := range strings.Lines(string(table)) {
		words := strings.Fields(line)
		usual[words[0]] = words[1] == "on"
		for _, alias := range append(words[2:], words[0]) {
			names[alias] = words[0]
		}
	}
	all := false
	said := map[string]bool{}
	for _, one := range o.controllers {
		name, off := strings.CutPrefix(one, "-")
		switch canonical, ok := names[name]; {
		case one == "*":
			all = true
		case !ok:
			return nil, fmt.Errorf("%q is not in the list of known controllers", name)
		default:
			said[canonical] = !off
		}
	}
	if !o.allocate {
		said["node-ipam-controller"] = false
	}
	return func(name string) bool {
		if canonical, ok := names[name]; ok {
			name = canonical
		}
		if on, ok := said[name]; ok {
			return on
		}
		on, known := usual[name]
		return all && (on || !known)
	}, nil
}
