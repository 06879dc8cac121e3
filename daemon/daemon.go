package daemon

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/controllers/certificates"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/internal/lean"
	"github.com/skiff-sh/skiff/internal/version"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/bootstrap"
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
	g.Go(func() error { lean.Pace(ctx); return nil })
	var node *nodeParts
	if agent {
		if node, err = cfg.prepareNode(ctx, g, log); err != nil {
			return err
		}
	}
	g.Go(func() error {
		member, err := cfg.member()
		if err != nil {
			return err
		}
		srv := cfg.apiServer(keys, log)
		srv.Etcd.Member = member
		return srv.Run(ctx, func(ctx context.Context, g *errgroup.Group, srv *server.Server) error {
			as := func(u user.Info) client.Interface { return client.InProcess(srv.Local(u)) }
			metrics := controlMetrics{scheduler.NewMetrics(), reconcile.NewMetrics()}
			srv.Collect(append(metrics.scheduler.Collectors(), metrics.queues)...)
			cfg.runControl(ctx, g, as, srv.Kinds(), metrics, keys, log)
			if node != nil {
				return node.run(ctx, g, as)
			}
			return nil
		})
	})
	err = ignoreCanceled(g.Wait())
	log.Info("stopped", "error", err)
	return err
}

// apiServer is the instance's API server.
func (c *Config) apiServer(keys *keys, log *slog.Logger) *APIServer {
	return &APIServer{
		Etcd: EtcdConfig{Servers: c.EtcdServers, DataDir: c.path("etcd")},
		Server: server.Config{
			Kinds: api.NewTable(builtin.Kinds()...),
			TLS:   &tls.Config{Certificates: []tls.Certificate{keys.serving}}, Listen: fmt.Sprintf(":%d", c.APIPort),
			ClientCAs: keys.ca.Pool(), CAPEM: keys.ca.PEM, ServiceAccountKey: keys.serviceAccount,
			Issuer:       "https://kubernetes.default.svc." + c.ClusterDomain,
			ServiceCIDRs: []netip.Prefix{c.ServiceCIDR}, NodePortRange: c.NodePorts,
			KubeletClientTLS: kubeletTLS(keys),
			FrontProxy:       &authn.FrontProxy{CAs: keys.frontProxy.Pool(), AllowedNames: []string{proxyClient}},
			ProxyCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &keys.proxyClient, nil },
			ExternalAddress:  netip.AddrPortFrom(c.NodeIP, uint16(c.APIPort)).String(),
			GitVersion:       version.String(),
		},
		FrontProxy: &bootstrap.FrontProxy{CA: keys.frontProxy.PEM, AllowedNames: []string{proxyClient}},
		Advertise:  netip.AddrPortFrom(c.NodeIP, uint16(c.APIPort)), ClientCA: keys.ca.PEM, HostName: c.NodeName, Log: log}
}

// kubeletTLS is how the API server reaches the nodes' own APIs. A certificate that the cluster has issued to a node is good
// at whatever address that node has: it was issued before the address was known.
func kubeletTLS(keys *keys) *tls.Config {
	roots := keys.ca.Pool()
	return &tls.Config{Certificates: []tls.Certificate{keys.kubeletClient}, InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
			leaf := s.PeerCertificates[0]
			if _, err := leaf.Verify(o); err != nil {
				return err
			}
			if !slices.Contains(leaf.Subject.Organization, user.NodesGroup) {
				return fmt.Errorf("the certificate of %q is no node's", leaf.Subject.CommonName)
			}
			return nil
		}}
}

// controlMetrics is what the scheduler and the controllers tell of themselves beside the server.
type controlMetrics struct {
	scheduler *scheduler.Metrics
	queues    *reconcile.Metrics
}

// runControl starts the scheduler and the controllers in g: at once where this server is the only one, else whenever it
// leads.
func (c *Config) runControl(ctx context.Context, g *errgroup.Group, as clientFor, kinds *api.Table, metrics controlMetrics, keys *keys, log *slog.Logger) {
	elect := func(lease string, who user.Info) *reconcile.Leader {
		if len(c.EtcdServers) == 0 && c.EtcdPorts == [2]int{} {
			return nil // there is no other server
		}
		return &reconcile.Leader{Client: as(who), Namespace: metav1.NamespaceSystem, Name: lease, Identity: c.identity(), Log: log}
	}
	manager := &ControllerManager{As: func(name string) client.Interface { return as(controllerAccount(name)) }, Reader: as(controllerManager),
		Config: controllers.Config{Kinds: kinds, RootCA: keys.ca.PEM, ClusterCIDR: c.PodCIDR, ServiceAccountKey: keys.serviceAccount,
			Signing: certificates.SigningConfig{Authorities: func(string) (certificates.Authority, bool) {
				return certificates.Authority{Certificate: keys.ca.Cert, Key: keys.ca.Signer()}, true
			}}},
		Leader: elect("kube-controller-manager", controllerManager), Metrics: metrics.queues, Log: log}
	g.Go(func() error { return manager.Run(ctx) })
	sched := &Scheduler{Client: as(schedulerUser), Config: scheduler.Config{Metrics: metrics.scheduler},
		Leader: elect("kube-scheduler", schedulerUser), Log: log}
	g.Go(func() error { return sched.Run(ctx) })
}

// identity is this instance's among candidates for leading. It outlives the process, whose lock on the instance keeps it
// unique, so that a restarted leader goes on at once.
func (c *Config) identity() string { return c.NodeName + "_" + c.Name }

// proxyClient is the name of the certificate that the API server shows to extension API servers.
const proxyClient = "front-proxy-client"

// keys is what the control plane proves itself with.
type keys struct {
	ca             *pki.Authority
	serving        tls.Certificate
	kubeletClient  tls.Certificate
	serviceAccount crypto.Signer
	frontProxy     *pki.Authority // of the certificate by which extension API servers know this one
	proxyClient    tls.Certificate
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
	if k.frontProxy, err = pki.Open(c.PKIDir(), "front-proxy-ca"); err != nil {
		return nil, err
	}
	if k.proxyClient, err = k.frontProxy.Keep(c.PKIDir(), proxyClient, pki.Leaf{User: proxyClient}); err != nil {
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
