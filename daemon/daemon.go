package daemon

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/internal/lean"
	"github.com/skiff-sh/skiff/internal/version"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/bootstrap"
	"github.com/skiff-sh/skiff/store/etcd"
)

// clientFor gives a client that acts as one user: the server's own in its process, the kubeconfig's elsewhere.
type clientFor func(user.Info) client.Interface

// Server runs the control plane, and a node beside it where asked, until ctx ends or a part of it fails.
func Server(ctx context.Context, cfg *Config, agent bool) error {
	release, err := cfg.claim()
	if err != nil {
		return err
	}
	defer release()
	log := logger()
	start := time.Now()
	log.Info("starting", "version", version.Build, "kubernetes", version.Kubernetes, "node", agent)
	keys, err := cfg.openKeys()
	if err != nil {
		return err
	}
	if err := cfg.writeAdminKubeconfig(); err != nil {
		return err
	}

	// The container runtime needs nothing of the control plane: both start at once.
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { lean.Run(ctx); return nil })
	var node *nodeParts
	if agent {
		if node, err = cfg.prepareNode(ctx, g, log); err != nil {
			return err
		}
	}
	g.Go(func() error {
		st, err := etcd.Open(ctx, etcd.Config{DataDir: cfg.path("etcd"), Endpoints: cfg.EtcdServers, Log: log})
		if err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		defer st.Close()
		kinds := api.NewTable(builtin.Kinds()...)
		srv, err := server.New(server.Config{
			Store: st, Kinds: kinds, Log: log,
			TLS: &tls.Config{Certificates: []tls.Certificate{keys.serving}}, Listen: fmt.Sprintf(":%d", cfg.APIPort),
			ClientCAs: keys.ca.Pool(), CAPEM: keys.ca.PEM, ServiceAccountKey: keys.serviceAccount,
			Issuer:      "https://kubernetes.default.svc." + cfg.ClusterDomain,
			ServiceCIDR: cfg.ServiceCIDR, NodePortRange: cfg.NodePorts,
			KubeletClientTLS: &tls.Config{Certificates: []tls.Certificate{keys.kubeletClient}, RootCAs: keys.ca.Pool()},
			GitVersion:       version.String(),
		})
		if err != nil {
			return err
		}
		// The server outlives its in-process clients, so that their last words are heard.
		serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
		defer stopServing()
		served := make(chan error, 1)
		go func() { served <- srv.Run(serving) }()
		clients, ctx := errgroup.WithContext(ctx)
		clients.Go(func() error {
			select {
			case err := <-served:
				served <- err
				return errors.Join(errors.New("the API server ended"), err)
			case <-ctx.Done():
				return nil
			}
		})
		clients.Go(func() error {
			if err := srv.Ready(ctx); err != nil {
				return err
			}
			log.Info("the API server is ready", "after", time.Since(start).Round(time.Millisecond))
			as := func(u user.Info) client.Interface { return srv.Local(u) }
			if err := cfg.publishAPIServer(ctx, as(&user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}), keys.ca.PEM); err != nil {
				return err
			}
			if err := cfg.runControl(ctx, clients, as, kinds, keys, log); err != nil {
				return err
			}
			if node != nil {
				return node.run(ctx, clients, as)
			}
			return nil
		})
		err = clients.Wait()
		stopServing()
		if e := <-served; err == nil {
			err = e
		}
		return ignoreCanceled(err)
	})
	err = ignoreCanceled(g.Wait())
	log.Info("stopped", "error", err)
	return err
}

// runControl starts the scheduler and the controllers in g.
func (c *Config) runControl(ctx context.Context, g *errgroup.Group, as clientFor, kinds *api.Table, keys *keys, log *slog.Logger) error {
	caches := client.NewCaches(as(controllerManager), log)
	deps := func(name string) reconcile.Deps {
		return reconcile.NewDeps(name, as(controllerAccount(name)), caches, clock.RealClock{}, log)
	}
	all := controllers.All(deps, controllers.Config{Kinds: kinds, RootCA: keys.ca.PEM, ClusterCIDR: c.PodCIDR})
	sched, err := scheduler.New(scheduler.Config{Deps: reconcile.NewDeps("default-scheduler", as(schedulerUser),
		client.NewCaches(as(schedulerUser), log), clock.RealClock{}, log)})
	if err != nil {
		return err
	}
	g.Go(func() error { return named("caches", caches.Run(ctx)) })
	g.Go(func() error { return named("controllers", reconcile.Run(ctx, log, all...)) })
	g.Go(func() error { return named("scheduler", sched.Run(ctx)) })
	return nil
}

// keys is what the control plane proves itself with.
type keys struct {
	ca             *pki.Authority
	serving        tls.Certificate
	kubeletClient  tls.Certificate
	serviceAccount crypto.Signer
}

func (c *Config) openKeys() (*keys, error) {
	ca, err := pki.Open(c.PKIDir(), authorityName)
	if err != nil {
		return nil, err
	}
	k := &keys{ca: ca}
	if k.serving, err = ca.Keep(c.PKIDir(), "apiserver", pki.Leaf{User: "kube-apiserver", Server: true,
		DNS: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.ClusterDomain, "localhost", c.NodeName},
		IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, c.APIServiceIP().AsSlice(), c.NodeIP.AsSlice()}}); err != nil {
		return nil, err
	}
	if k.kubeletClient, err = ca.Keep(c.PKIDir(), "apiserver-kubelet-client",
		pki.Leaf{User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}}); err != nil {
		return nil, err
	}
	k.serviceAccount, err = pki.ServiceAccountKey(c.PKIDir())
	return k, err
}

func (c *Config) writeAdminKubeconfig() error {
	b, err := c.Kubeconfig()
	if err != nil {
		return err
	}
	tmp := c.AdminKubeconfigFile() + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, c.AdminKubeconfigFile())
}

func logger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

func named(part string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", part, err)
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// publishAPIServer writes what every cluster holds from the start: namespaces, roles, priority classes, and where the API
// server itself is found.
func (c *Config) publishAPIServer(ctx context.Context, as client.Interface, ca []byte) error {
	if err := bootstrap.Ensure(ctx, as); err != nil {
		return fmt.Errorf("the cluster's first objects: %w", err)
	}
	if err := bootstrap.ServiceCIDR(ctx, as, c.ServiceCIDR); err != nil {
		return fmt.Errorf("the range of services: %w", err)
	}
	if err := bootstrap.KubernetesService(ctx, as, c.APIServiceIP(), c.NodeIP, c.APIPort); err != nil {
		return fmt.Errorf("the service kubernetes: %w", err)
	}
	return bootstrap.Authentication(ctx, as, ca, nil)
}
