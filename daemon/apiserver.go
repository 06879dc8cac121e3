package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-sh/skiff/internal/lean"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/bootstrap"
	"github.com/skiff-sh/skiff/store/etcd"
)

// APIServer is one of a cluster's API servers: where the cluster is kept, how requests are served, and what the server
// tells the cluster of itself.
type APIServer struct {
	// Etcd is the member that runs in the process, or the external cluster.
	Etcd EtcdConfig
	// Server is how requests are served; its Store and Log are filled in.
	Server server.Config
	// Advertise is where the cluster's own clients (the Service kubernetes leads there) reach this server.
	Advertise netip.AddrPort
	// ClientCA and FrontProxy are published for extension API servers.
	ClientCA   []byte
	FrontProxy *bootstrap.FrontProxy
	// NoEndpoints leaves the Service kubernetes to somebody else.
	NoEndpoints bool
	// HostName names the machine in the server's identity Lease.
	HostName string
	Log      *slog.Logger
}

// EtcdConfig says where etcd is.
type EtcdConfig struct {
	Servers []string    // of an external cluster; none: etcd runs in the process
	TLS     *tls.Config // to the external cluster
	Prefix  string      // of all keys; default "/registry"
	DataDir string      // of the embedded member
	// Transform encrypts the values of a key; nil, or what returns nil: they are kept as they are.
	Transform func(key string) value.Transformer
	Member    *etcd.Peers // of the embedded member's cluster; nil: it is alone
}

// Run serves until ctx ends or a part fails. When the server is ready, then is called to start what runs beside it in g;
// the server outlives g, so that its in-process clients' last words are heard.
func (a *APIServer) Run(ctx context.Context, then func(ctx context.Context, g *errgroup.Group, srv *server.Server) error) error {
	start := time.Now()
	st, err := etcd.Open(ctx, etcd.Config{DataDir: a.Etcd.DataDir, Endpoints: a.Etcd.Servers, TLS: a.Etcd.TLS,
		Prefix: a.Etcd.Prefix, Peers: a.Etcd.Member, Transform: a.Etcd.Transform, Log: a.Log})
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer st.Close()
	var published atomic.Bool
	cfg := a.Server
	cfg.Store, cfg.Log = st, a.Log
	cfg.Shared = len(a.Etcd.Servers) > 0 || a.Etcd.Member != nil
	cfg.Readiness = maps.Clone(cfg.Readiness)
	if cfg.Readiness == nil {
		cfg.Readiness = map[string]func(context.Context) error{}
	}
	cfg.Readiness["poststarthook/rbac/bootstrap-roles"] = func(context.Context) error {
		if !published.Load() {
			return errors.New("not finished")
		}
		return nil
	}
	srv, err := server.New(cfg)
	if err != nil {
		return err
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := make(chan error, 1)
	go func() { served <- srv.Run(serving) }()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { lean.Run(ctx, st.Forget); return nil })
	g.Go(func() error {
		select {
		case err := <-served:
			served <- err
			return errors.Join(errors.New("the API server ended"), err)
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		if err := srv.Ready(ctx); err != nil {
			return err
		}
		self := srv.Local(&user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}})
		// The API is served all the same: where etcd is full, it is what makes space.
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
			err := a.publish(ctx, self)
			if err == nil {
				break
			}
			a.Log.Warn("the cluster's first objects cannot be written yet", "err", err)
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		published.Store(true)
		a.Log.Info("the API server is ready", "after", time.Since(start).Round(time.Millisecond))
		presence := a.presence(self, st)
		g.Go(func() error { return named("the server's presence", presence.run(ctx)) })
		if then == nil {
			return nil
		}
		return then(ctx, g, srv)
	})
	err = g.Wait()
	stopServing()
	if e := <-served; err == nil {
		err = e
	}
	return ignoreCanceled(err)
}

// publish writes what every cluster holds from the start: namespaces, roles, priority classes, and the range of services.
func (a *APIServer) publish(ctx context.Context, self bootstrap.Client) error {
	if err := bootstrap.Ensure(ctx, self); err != nil {
		return fmt.Errorf("the cluster's first objects: %w", err)
	}
	if len(a.Server.ServiceCIDRs) > 0 {
		if err := bootstrap.ServiceCIDR(ctx, self, a.Server.ServiceCIDRs...); err != nil {
			return fmt.Errorf("the range of services: %w", err)
		}
	}
	if err := bootstrap.LegacyTokenTracking(ctx, self, time.Now()); err != nil {
		return err
	}
	return bootstrap.Authentication(ctx, self, a.ClientCA, a.FrontProxy)
}
