package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// Config is everything that an Agent needs to know. Fields without a stated default are required.
type Config struct {
	// Name is the node's name; the Client's identity is system:node:<Name>.
	Name   string
	Client client.Interface
	Caches *client.Caches
	// Events records events about pods and the node. Default: made from Client with component "kubelet".
	Events reconcile.Recorder

	// CRIEndpoint is the container runtime's socket ("unix:///run/skiff/containerd.sock" or a plain path).
	CRIEndpoint string

	RootDir         string // volumes, hosts files and termination messages; default /var/lib/skiff/node
	PodLogDir       string // NS_NAME_UID/CONTAINER/N.log; default /var/log/pods
	ContainerLogDir string // links that log collectors follow; default /var/log/containers. "-" makes none

	ListenAddr string // of the node's HTTP API; default ":10250". "-" serves none
	// TLS holds the serving certificate of the node API. Nil serves plain HTTP, for tests.
	TLS *tls.Config
	// ClientCAs verifies client certificates of callers of the node API (the API server). Nil: tokens only.
	ClientCAs *x509.CertPool
	// Anonymous lets the node API be used by anyone, without authentication and authorization; for tests.
	Anonymous bool

	NodeIP        netip.Addr   // what the node is reached at; default: the address of the default route's interface
	ClusterDNS    []netip.Addr // nameservers of ClusterFirst pods; none: such pods get the node's resolv.conf
	ClusterDomain string       // default "cluster.local"
	ResolvConf    string       // the node's own; default /etc/resolv.conf

	// CgroupRoot is the group under which all pods live ("skiff" makes /skiff/burstable/pod<UID>). Default "skiff".
	CgroupRoot string

	Labels      map[string]string // added to the node object at registration
	Taints      []corev1.Taint    // set on the node object when it is created
	PodCIDR     string            // asked for at registration; normally empty, the controllers give one
	MaxPods     int               // default 110
	MaxPulls    int               // image pulls side by side; default 4
	LogMaxSize  int64             // bytes at which a container's log is rotated; default 10 MiB
	LogMaxFiles int               // files kept of one container's log; default 5

	ImageGCHigh, ImageGCLow int // percent of the image file system; default 85 and 80
	// LeaseDuration is how long the node counts as alive after a renewal; it is renewed four times as often. Default 40 s.
	LeaseDuration time.Duration
	Version       string // kubeletVersion; default "v1.36.3"

	Clock clock.WithTicker // default: the real one
	Log   *slog.Logger     // default: slog.Default()
}

// validate fills in defaults and says what is missing.
func (c *Config) validate() error {
	if c.Name == "" || c.Client == nil || c.Caches == nil || c.CRIEndpoint == "" {
		return errors.New("node: Config needs Name, Client, Caches and CRIEndpoint")
	}
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.RootDir, "/var/lib/skiff/node")
	def(&c.PodLogDir, "/var/log/pods")
	def(&c.ContainerLogDir, "/var/log/containers")
	def(&c.ListenAddr, ":10250")
	def(&c.ClusterDomain, "cluster.local")
	def(&c.ResolvConf, "/etc/resolv.conf")
	def(&c.CgroupRoot, "skiff")
	def(&c.Version, "v1.36.3")
	for _, n := range []struct {
		p *int
		v int
	}{{&c.MaxPods, 110}, {&c.MaxPulls, 4}, {&c.LogMaxFiles, 5}, {&c.ImageGCHigh, 85}, {&c.ImageGCLow, 80}} {
		if *n.p == 0 {
			*n.p = n.v
		}
	}
	if c.ImageGCLow > c.ImageGCHigh || c.ImageGCHigh > 100 || c.MaxPods < 0 || c.MaxPulls < 1 || c.LogMaxFiles < 2 {
		return errors.New("node: Config has thresholds or limits out of range")
	}
	if c.LogMaxSize == 0 {
		c.LogMaxSize = 10 << 20
	}
	if c.LeaseDuration == 0 {
		c.LeaseDuration = 40 * time.Second
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if !c.NodeIP.IsValid() {
		ip, err := defaultAddress()
		if err != nil {
			return fmt.Errorf("node: no NodeIP given and none found: %w", err)
		}
		c.NodeIP = ip
	}
	if c.ContainerLogDir == "-" {
		c.ContainerLogDir = ""
	}
	for _, d := range []string{c.RootDir, filepath.Join(c.RootDir, "pods"), c.PodLogDir, c.ContainerLogDir} {
		if d == "" {
			continue
		}
		if err := os.MkdirAll(d, 0o750); err != nil {
			return err
		}
	}
	return os.MkdirAll(c.PodLogDir, 0o755)
}
