package dropin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/internal/version"
	"github.com/skiff-sh/skiff/node"
)

// kubeletFlags are the flags of kubelet that mean something here. Where a configuration file says the same, the flag counts.
type kubeletFlags struct {
	kubeconfig, config, name, nodeIP  string
	rootDir, certDir, endpoint        string
	labels, taints                    []string
	clientCA, certFile, keyFile       string
	address, healthzAddress, domain   string
	port, healthzPort, maxPods        int
	dns                               []string
	resolvConf, cgroupRoot, podCIDR   string
	logMaxSize                        string
	logMaxFiles, gcHigh, gcLow, pulls int
	anonymous                         bool
	featureGates                      []string
}

func (o *kubeletFlags) flags(f *flags) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server, and as which node")
	f.StringVar(&o.config, "config", "", "a KubeletConfiguration")
	f.StringVar(&o.name, "hostname-override", "", "the node's name (default: the host's)")
	f.StringVar(&o.nodeIP, "node-ip", "", "the node's address (default: that of the interface with the default route)")
	f.StringVar(&o.rootDir, "root-dir", "/var/lib/kubelet", "where volumes are kept")
	f.StringVar(&o.certDir, "cert-dir", "/var/lib/kubelet/pki", "where a serving certificate is made and kept when none is given")
	f.StringVar(&o.endpoint, "container-runtime-endpoint", "unix:///run/containerd/containerd.sock", "the container runtime's CRI socket")
	f.StringSliceVar(&o.labels, "node-labels", nil, "key=value labels of the node object")
	f.StringSliceVar(&o.taints, "register-with-taints", nil, "key=value:effect taints of a new node object")
	f.StringVar(&o.clientCA, "client-ca-file", "", "who signs the certificates of the node API's callers")
	f.StringVar(&o.certFile, "tls-cert-file", "", "the node API's serving certificate")
	f.StringVar(&o.keyFile, "tls-private-key-file", "", "its key")
	f.StringVar(&o.address, "address", "0.0.0.0", "where the node API listens")
	f.IntVar(&o.port, "port", 10250, "its port")
	f.StringVar(&o.healthzAddress, "healthz-bind-address", "127.0.0.1", "where the health check listens")
	f.IntVar(&o.healthzPort, "healthz-port", 10248, "its port; 0 serves none")
	f.StringVar(&o.domain, "cluster-domain", "cluster.local", "the cluster's DNS domain")
	f.StringSliceVar(&o.dns, "cluster-dns", nil, "the cluster's nameservers")
	f.StringVar(&o.resolvConf, "resolv-conf", "/etc/resolv.conf", "the node's own nameservers")
	f.StringVar(&o.cgroupRoot, "cgroup-root", "", "the group above kubepods")
	f.StringVar(&o.podCIDR, "pod-cidr", "", "the range of pod addresses, where no controller gives one")
	f.IntVar(&o.maxPods, "max-pods", 110, "how many pods the node takes")
	f.StringVar(&o.logMaxSize, "container-log-max-size", "10Mi", "the size at which a container's log is rotated")
	f.IntVar(&o.logMaxFiles, "container-log-max-files", 5, "how many files of a log are kept")
	f.IntVar(&o.gcHigh, "image-gc-high-threshold", 85, "percent of the image file system above which images are removed")
	f.IntVar(&o.gcLow, "image-gc-low-threshold", 80, "percent down to which they are")
	f.BoolVar(&o.anonymous, "anonymous-auth", true, "taken for upstream's sake: the node API always asks who is there")
	f.StringSliceVar(&o.featureGates, "feature-gates", nil, "name=true|false")
	f.quiet = []string{"fail-swap-on", "rotate-certificates", "cgroup-driver", "cgroups-per-qos", "authentication-token-webhook", "authorization-mode",
		"pod-infra-container-image", "serialize-image-pulls", "volume-plugin-dir"}
}

// file takes what a configuration file says and no flag has said.
func (o *kubeletFlags) file(p *process, f *flags) (*kubeletv1beta1.KubeletConfiguration, error) {
	c := &kubeletv1beta1.KubeletConfiguration{}
	if o.config == "" {
		return c, nil
	}
	err := p.readConfig(o.config, "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration", c, "address", "port", "healthzPort", "healthzBindAddress",
		"clusterDomain", "clusterDNS", "tlsCertFile", "tlsPrivateKeyFile", "authentication", "authorization", "maxPods", "resolvConf",
		"cgroupRoot", "podCIDR", "containerLogMaxSize", "containerLogMaxFiles", "imageGCHighThresholdPercent", "imageGCLowThresholdPercent",
		"maxParallelImagePulls", "registerWithTaints", "containerRuntimeEndpoint", "nodeLeaseDurationSeconds", "podLogsDir", "featureGates",
		"cgroupDriver", "failSwapOn", "rotateCertificates", "serverTLSBootstrap", "serializeImagePulls", "logging", "failCgroupV1")
	if err != nil {
		return nil, err
	}
	text := func(flag string, to *string, v string) {
		if v != "" && !f.Changed(flag) {
			*to = v
		}
	}
	number := func(flag string, to *int, v *int32) {
		if v != nil && *v != 0 && !f.Changed(flag) {
			*to = int(*v)
		}
	}
	text("address", &o.address, c.Address)
	text("healthz-bind-address", &o.healthzAddress, c.HealthzBindAddress)
	text("cluster-domain", &o.domain, c.ClusterDomain)
	text("tls-cert-file", &o.certFile, c.TLSCertFile)
	text("tls-private-key-file", &o.keyFile, c.TLSPrivateKeyFile)
	text("client-ca-file", &o.clientCA, c.Authentication.X509.ClientCAFile)
	text("cgroup-root", &o.cgroupRoot, c.CgroupRoot)
	text("pod-cidr", &o.podCIDR, c.PodCIDR)
	text("container-log-max-size", &o.logMaxSize, c.ContainerLogMaxSize)
	text("container-runtime-endpoint", &o.endpoint, c.ContainerRuntimeEndpoint)
	if c.ResolverConfig != nil {
		text("resolv-conf", &o.resolvConf, *c.ResolverConfig)
	}
	if c.HealthzPort != nil && !f.Changed("healthz-port") {
		o.healthzPort = int(*c.HealthzPort)
	}
	number("port", &o.port, &c.Port)
	number("max-pods", &o.maxPods, &c.MaxPods)
	number("container-log-max-files", &o.logMaxFiles, c.ContainerLogMaxFiles)
	number("image-gc-high-threshold", &o.gcHigh, c.ImageGCHighThresholdPercent)
	number("image-gc-low-threshold", &o.gcLow, c.ImageGCLowThresholdPercent)
	if c.MaxParallelImagePulls != nil {
		o.pulls = int(*c.MaxParallelImagePulls)
	}
	if len(c.ClusterDNS) > 0 && !f.Changed("cluster-dns") {
		o.dns = c.ClusterDNS
	}
	for _, name := range slices.Sorted(maps.Keys(c.FeatureGates)) {
		o.featureGates = append(o.featureGates, fmt.Sprintf("%s=%v", name, c.FeatureGates[name]))
	}
	return c, nil
}

func runKubelet(ctx context.Context, p *process) error {
	f := p.flags()
	var o kubeletFlags
	o.flags(f)
	if err := f.parse(); err != nil {
		return err
	}
	file, err := o.file(p, f)
	if err != nil {
		return err
	}
	if _, err := f.gates(o.featureGates); err != nil {
		return err
	}
	if o.kubeconfig == "" {
		return errors.New("--kubeconfig is missing: a kubelet without an API server is not supported")
	}
	conn, err := connect(o.kubeconfig, "", "kubelet")
	if err != nil {
		return err
	}
	c, err := conn.client()
	if err != nil {
		return err
	}
	cfg, err := o.node(p, file)
	if err != nil {
		return err
	}
	caches := client.NewCaches(c, p.log)
	cfg.Client, cfg.Caches, cfg.Log, cfg.Version = c, caches, p.log, version.String()
	agent, err := node.New(*cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return caches.Run(ctx) })
	g.Go(func() error { return agent.Run(ctx) })
	if o.healthzPort != 0 {
		g.Go(func() error {
			return plain(ctx, net.JoinHostPort(o.healthzAddress, strconv.Itoa(o.healthzPort)), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
		})
	}
	return g.Wait()
}

// node is the node agent's configuration.
func (o *kubeletFlags) node(p *process, file *kubeletv1beta1.KubeletConfiguration) (*node.Config, error) {
	var err error
	if o.name == "" {
		if o.name, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	o.name = strings.ToLower(o.name)
	first, _, _ := strings.Cut(o.nodeIP, ",")
	ip, err := netip.ParseAddr(first)
	if first == "" || err == nil && ip.IsUnspecified() {
		ip, err = daemon.HostIP()
	}
	if err != nil {
		return nil, fmt.Errorf("--node-ip: %w", err)
	}
	c := &node.Config{Name: o.name, CRIEndpoint: o.endpoint, RootDir: o.rootDir, PodLogDir: file.PodLogsDir,
		ListenAddr: net.JoinHostPort(o.address, strconv.Itoa(o.port)), NodeIP: ip, ClusterDomain: o.domain, ResolvConf: o.resolvConf,
		CgroupRoot: filepath.Join(strings.TrimPrefix(o.cgroupRoot, "/"), "kubepods"), PodCIDR: o.podCIDR, MaxPods: o.maxPods, MaxPulls: o.pulls,
		LogMaxFiles: o.logMaxFiles, ImageGCHigh: o.gcHigh, ImageGCLow: o.gcLow, LeaseDuration: time.Duration(file.NodeLeaseDurationSeconds) * time.Second,
		Taints: file.RegisterWithTaints, Labels: map[string]string{}}
	if !strings.Contains(c.CRIEndpoint, "://") {
		c.CRIEndpoint = "unix://" + c.CRIEndpoint
	}
	size, err := resource.ParseQuantity(o.logMaxSize)
	if err != nil {
		return nil, fmt.Errorf("--container-log-max-size: %w", err)
	}
	c.LogMaxSize = size.Value()
	for _, d := range o.dns {
		a, err := netip.ParseAddr(d)
		if err != nil {
			return nil, fmt.Errorf("--cluster-dns: %w", err)
		}
		c.ClusterDNS = append(c.ClusterDNS, a)
	}
	for _, l := range o.labels {
		k, v, _ := strings.Cut(l, "=")
		c.Labels[k] = v
	}
	for _, t := range o.taints {
		taint, err := parseTaint(t)
		if err != nil {
			return nil, err
		}
		c.Taints = append(c.Taints, taint)
	}
	if o.clientCA != "" {
		var pool *x509.CertPool
		if pool, _, err = authorities(o.clientCA); err != nil {
			return nil, err
		}
		c.ClientCAs = pool
	}
	var t *tls.Config
	t, err = serving(o.certFile, o.keyFile, o.certDir, "kubelet", pki.Leaf{User: "system:node:" + o.name, Groups: []string{"system:nodes"},
		DNS: []string{o.name}, IPs: []net.IP{ip.AsSlice(), net.IPv4(127, 0, 0, 1)}})
	c.TLS = t
	return c, err
}

// parseTaint reads key=value:effect or key:effect.
func parseTaint(text string) (corev1.Taint, error) {
	key, effect, ok := strings.Cut(text, ":")
	key, value, _ := strings.Cut(key, "=")
	t := corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)}
	switch t.Effect {
	case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		ok = false
	}
	if !ok || key == "" {
		return t, fmt.Errorf("--register-with-taints: invalid taint spec: %v", text)
	}
	return t, nil
}

// plain serves HTTP without TLS until ctx ends.
func plain(ctx context.Context, addr string, h http.Handler) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 32 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
