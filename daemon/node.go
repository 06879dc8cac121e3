package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/dns"
	"github.com/skiff-sh/skiff/internal/lean"
	"github.com/skiff-sh/skiff/internal/version"
	"github.com/skiff-sh/skiff/node"
	"github.com/skiff-sh/skiff/node/runtime"
	"github.com/skiff-sh/skiff/podnet"
	"github.com/skiff-sh/skiff/proxy"

	"k8s.io/apiserver/pkg/authentication/user"
)

// Agent runs a node alone, as the user of a kubeconfig, until ctx ends.
func Agent(ctx context.Context, cfg *Config, kubeconfig string) error {
	release, err := cfg.claim()
	if err != nil {
		return err
	}
	defer release()
	as, roots, serving, err := agentClients(kubeconfig)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { lean.Run(ctx); return nil })
	n := &nodeParts{cfg: cfg, log: logger(), clientCAs: roots, ready: make(chan struct{})}
	if serving != nil {
		n.serving = *serving
	} else if n.serving, err = selfSigned(cfg); err != nil {
		return err
	}
	g.Go(func() error { return n.startRuntime(ctx) })
	g.Go(func() error { return n.run(ctx, g, as) })
	return ignoreCanceled(g.Wait())
}

// agentClients reads a kubeconfig made by NodeKubeconfig: each part of the agent is the user of the context that has its
// name, the node itself that of the current one, and its API serves with the certificate of servingContext. In any other kubeconfig the node's user has to be good for all.
func agentClients(kubeconfig string) (as clientFor, roots *x509.CertPool, serving *tls.Certificate, err error) {
	file, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, nil, nil, err
	}
	clients := map[string]client.Interface{}
	for name := range file.Contexts {
		rest, err := clientcmd.NewNonInteractiveClientConfig(*file, name, nil, nil).ClientConfig()
		if err != nil {
			return nil, nil, nil, err
		}
		t := &tls.Config{RootCAs: x509.NewCertPool()}
		if !t.RootCAs.AppendCertsFromPEM(rest.CAData) {
			return nil, nil, nil, fmt.Errorf("%s holds no certificate-authority-data", kubeconfig)
		}
		cert, err := tls.X509KeyPair(rest.CertData, rest.KeyData)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: the client certificate: %w", kubeconfig, err)
		}
		if name == servingContext {
			serving = &cert
			continue
		}
		t.Certificates = []tls.Certificate{cert}
		if clients[name], err = client.NewHTTP(client.HTTPConfig{Server: rest.Host, TLS: t, UserAgent: "skiff-agent"}); err != nil {
			return nil, nil, nil, err
		}
		if name == file.CurrentContext {
			clients[""], roots = clients[name], t.RootCAs
		}
	}
	if clients[""] == nil {
		return nil, nil, nil, fmt.Errorf("%s has no current context", kubeconfig)
	}
	return func(u user.Info) client.Interface {
		if c := clients[u.GetName()]; c != nil {
			return c
		}
		return clients[""]
	}, roots, serving, nil
}

// selfSigned is a serving certificate of the node's own, for a node that does not hold the cluster's authority.
func selfSigned(cfg *Config) (tls.Certificate, error) {
	own, err := pki.Open(cfg.PKIDir(), "kubelet-ca")
	if err != nil {
		return tls.Certificate{}, err
	}
	return own.Keep(cfg.PKIDir(), "kubelet", nodeServing(cfg))
}

func nodeServing(cfg *Config) pki.Leaf {
	return pki.Leaf{User: "system:node:" + cfg.NodeName, Groups: []string{"system:nodes"}, Server: true,
		DNS: []string{cfg.NodeName}, IPs: []net.IP{cfg.NodeIP.AsSlice(), net.IPv4(127, 0, 0, 1)}}
}

// nodeParts is what makes this machine a node.
type nodeParts struct {
	cfg       *Config
	log       *slog.Logger
	serving   tls.Certificate
	clientCAs *x509.CertPool

	runtime *runtime.Runtime
	ready   chan struct{} // closed when runtime is set
}

// prepareNode starts the container runtime in g, beside whatever else starts.
func (c *Config) prepareNode(ctx context.Context, g *errgroup.Group, log *slog.Logger) (*nodeParts, error) {
	ca, err := pki.Open(c.PKIDir(), authorityName)
	if err != nil {
		return nil, err
	}
	n := &nodeParts{cfg: c, log: log, clientCAs: ca.Pool(), ready: make(chan struct{})}
	if n.serving, err = ca.Keep(c.PKIDir(), "kubelet", nodeServing(c)); err != nil {
		return nil, err
	}
	g.Go(func() error { return n.startRuntime(ctx) })
	return n, nil
}

func (n *nodeParts) startRuntime(ctx context.Context) error {
	rt, err := runtime.Start(ctx, n.cfg.runtimeConfig(n.log))
	if err != nil {
		return fmt.Errorf("container runtime: %w", err)
	}
	n.runtime = rt
	close(n.ready)
	return nil
}

func (c *Config) runtimeConfig(log *slog.Logger) runtime.Config {
	return runtime.Config{Root: c.path("containerd"), State: c.run("containerd"), Socket: c.ContainerdSocket(), BinDir: c.path("bin"),
		CNIBinDir: c.path("bin"), CNIConfDir: c.run("cni"), RegistryHostsDir: c.RegistryHostsDir(), LogFile: c.path("containerd.log"), Log: log}
}

func (c *Config) podnetConfig(caches *client.Caches, log *slog.Logger) podnet.Config {
	return podnet.Config{Caches: caches, NodeName: c.NodeName, NodeIP: c.NodeIP, ClusterCIDR: c.PodCIDR, Bridge: c.Bridge(),
		Table: c.Name + "-podnet", CNIConfDir: c.run("cni"), CNIPlugin: runtime.CNIPlugin, StateDir: c.path("network"), Log: log}
}

func (c *Config) proxyConfig(as client.Interface, caches *client.Caches, log *slog.Logger) proxy.Config {
	return proxy.Config{Client: as, Caches: caches, NodeName: c.NodeName, NodeIPs: []netip.Addr{c.NodeIP},
		Table: c.Name + "-proxy", ClusterCIDR: c.PodCIDR, Log: log}
}

// run starts the node's parts in g once the runtime answers.
func (n *nodeParts) run(ctx context.Context, g *errgroup.Group, as clientFor) error {
	c := n.cfg
	caches := func(u user.Info) *client.Caches {
		cs := client.NewCaches(as(u), n.log)
		g.Go(func() error { return cs.Run(ctx) })
		return cs
	}
	// The network's parts do not need the runtime, and the node is ready only once they work: they go first.
	network, err := podnet.New(c.podnetConfig(caches(podnetUser), n.log))
	if err != nil {
		return err
	}
	g.Go(func() error { return named("pod network", network.Run(ctx)) })
	services, err := proxy.New(c.proxyConfig(as(proxyUser), caches(proxyUser), n.log))
	if err != nil {
		return err
	}
	g.Go(func() error { return named("service proxy", services.Run(ctx)) })
	names, err := dns.New(dns.Config{Client: as(dnsUser), Caches: caches(dnsUser), NodeName: c.NodeName, Domain: c.ClusterDomain,
		ServiceIP: c.DNSServiceIP(), Log: n.log})
	if err != nil {
		return err
	}
	g.Go(func() error { return named("DNS", names.Run(ctx)) })

	select {
	case <-n.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	me := as(nodeUser(c.NodeName))
	logLinks := filepath.Join(filepath.Dir(c.LogDir), "containers")
	if c.Name != "skiff" {
		logLinks = "-"
	}
	agent, err := node.New(node.Config{Name: c.NodeName, Client: me, Caches: caches(nodeUser(c.NodeName)), CRIEndpoint: n.runtime.Endpoint(),
		RootDir: c.path("node"), PodLogDir: c.LogDir, ContainerLogDir: logLinks, ListenAddr: fmt.Sprintf(":%d", c.NodePort),
		TLS: &tls.Config{Certificates: []tls.Certificate{n.serving}}, ClientCAs: n.clientCAs, NodeIP: c.NodeIP,
		ClusterDNS: []netip.Addr{c.DNSServiceIP()}, ClusterDomain: c.ClusterDomain, CgroupRoot: c.Name, MaxPods: c.MaxPods,
		Version: version.String(), Log: n.log})
	if err != nil {
		return err
	}
	g.Go(func() error { return named("node agent", agent.Run(ctx)) })
	return nil
}

// RuntimePID is the process id of the instance's containerd, if it runs.
func (c *Config) RuntimePID() (int, bool) { return runtime.PID(c.runtimeConfig(nil)) }

// RuntimeConfig tells where the instance's containerd is, for what works on its image store.
func (c *Config) RuntimeConfig() runtime.Config { return c.runtimeConfig(nil) }

// StopRuntime ends the instance's containerd; the containers go on.
func StopRuntime(ctx context.Context, c *Config) error {
	return runtime.Stop(ctx, c.runtimeConfig(nil))
}

// Purge removes every trace of an instance that does not run: containers, mounts, cgroups, network, all state. It may be
// called again after an error.
func Purge(ctx context.Context, c *Config) error {
	if pid, ok := c.Running(); ok {
		return fmt.Errorf("%s still runs (pid %d)", c.Name, pid)
	}
	err := errors.Join(
		runtime.Purge(ctx, c.runtimeConfig(nil)),
		podnet.Purge(ctx, c.podnetConfig(nil, nil)),
		proxy.Purge(ctx, c.proxyConfig(nil, nil, nil)),
		runtime.UnmountBelow(c.DataDir, c.RunDir),
		purgeCgroups(c.Name),
	)
	if err != nil {
		return err // the folders stay, so that a second attempt still finds what they tell
	}
	return errors.Join(os.RemoveAll(c.LogDir), os.RemoveAll(c.RunDir), os.RemoveAll(c.DataDir))
}
