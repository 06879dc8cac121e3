package dropin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/daemon"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/internal/version"
	"github.com/skiff-sh/skiff/server"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/bootstrap"
)

// apiFlags are the flags of kube-apiserver that mean something here.
type apiFlags struct {
	bindAddress, advertiseAddress, externalHostname string
	securePort                                      int
	certDir, certFile, keyFile                      string

	etcdServers                         []string
	etcdCA, etcdCert, etcdKey, etcdPath string
	encryption                          string
	encryptionReload                    bool

	clientCA, tokenFile       string
	anonymous                 bool
	issuers, audiences        []string
	accountKeys               []string
	signingKey, jwksURI       string
	accountLookup             bool
	proxyCA                   string
	proxyNames, proxyUser     []string
	proxyUID, proxyGroup      []string
	proxyExtra                []string
	proxyCert, proxyKey       string
	kubeletCA                 string
	kubeletCert, kubeletKey   string
	modes                     []string
	enabled, disabled, legacy []string

	serviceRange, nodePorts   string
	runtimeConfig             []string
	featureGates              []string
	inFlight, mutatingFlight  int
	requestTimeout            time.Duration
	allowPrivileged           bool
	bootstrapTokens           bool
	priorityAndFairness       bool
	endpointReconciler        string
	storageBackend, mediaType string
	audit                     auditFlags
	webhooks                  webhookFlags
	oidc                      oidcFlags
	admissionFile             string
	notReady, unreachable     int64
}

func (p *process) apiFlags() (*flags, *apiFlags) {
	f, o := p.flags(), &apiFlags{}
	f.StringVar(&o.advertiseAddress, "advertise-address", "", "the address at which the cluster reaches this server (default: the bind address, or the host's)")
	f.StringVar(&o.bindAddress, "bind-address", "0.0.0.0", "the address to listen on")
	f.IntVar(&o.securePort, "secure-port", 6443, "the port to listen on")
	f.StringVar(&o.externalHostname, "external-hostname", "", "the host name for addresses that the server tells of itself")
	f.StringVar(&o.certDir, "cert-dir", "/var/run/kubernetes", "where a serving certificate is made and kept when none is given")
	f.StringVar(&o.certFile, "tls-cert-file", "", "the serving certificate, read again when it changes")
	f.StringVar(&o.keyFile, "tls-private-key-file", "", "the serving certificate's key")

	f.StringSliceVar(&o.etcdServers, "etcd-servers", nil, "etcd's endpoints (scheme://host:port)")
	f.StringVar(&o.etcdCA, "etcd-cafile", "", "who signs etcd's certificates")
	f.StringVar(&o.etcdCert, "etcd-certfile", "", "the certificate for etcd")
	f.StringVar(&o.etcdKey, "etcd-keyfile", "", "its key")
	f.StringVar(&o.etcdPath, "etcd-prefix", "/registry", "the prefix of all keys")
	f.StringVar(&o.encryption, "encryption-provider-config", "", "an EncryptionConfiguration: how values are encrypted in etcd")
	f.BoolVar(&o.encryptionReload, "encryption-provider-config-automatic-reload", false, "read that file again when it changes")
	f.StringVar(&o.storageBackend, "storage-backend", "etcd3", "etcd3 is the only one")
	f.StringVar(&o.mediaType, "storage-media-type", "application/vnd.kubernetes.protobuf", "how objects are kept; protobuf is the only one")

	f.BoolVar(&o.anonymous, "anonymous-auth", true, "let requests without credentials be system:anonymous")
	f.StringVar(&o.clientCA, "client-ca-file", "", "who signs the certificates of users")
	f.StringVar(&o.tokenFile, "token-auth-file", "", "a file of bearer tokens: token,user,uid,groups")
	f.StringArrayVar(&o.issuers, "service-account-issuer", nil, "the issuer of service account tokens; the first issues, all are believed")
	f.StringArrayVar(&o.accountKeys, "service-account-key-file", nil, "keys that service account tokens are verified with")
	f.StringVar(&o.signingKey, "service-account-signing-key-file", "", "the key that signs service account tokens")
	f.StringSliceVar(&o.audiences, "api-audiences", nil, "who the API server is, in tokens (default: the issuer)")
	f.StringVar(&o.jwksURI, "service-account-jwks-uri", "", "where the discovery document says that the keys are")
	f.BoolVar(&o.accountLookup, "service-account-lookup", true, "tokens are believed only while what they are bound to lives; false is not supported")
	f.BoolVar(&o.bootstrapTokens, "enable-bootstrap-token-auth", false, "let bootstrap tokens (Secrets in kube-system) authenticate nodes that join")
	f.StringVar(&o.proxyCA, "requestheader-client-ca-file", "", "who signs the certificates of authenticating proxies")
	f.StringSliceVar(&o.proxyNames, "requestheader-allowed-names", nil, "common names of authenticating proxies (default: all)")
	f.StringSliceVar(&o.proxyUser, "requestheader-username-headers", nil, "headers that name the user")
	f.StringSliceVar(&o.proxyUID, "requestheader-uid-headers", nil, "headers that name the user's UID")
	f.StringSliceVar(&o.proxyGroup, "requestheader-group-headers", nil, "headers that name the user's groups")
	f.StringSliceVar(&o.proxyExtra, "requestheader-extra-headers-prefix", nil, "prefixes of headers with more about the user")
	f.StringVar(&o.proxyCert, "proxy-client-cert-file", "", "the certificate that extension API servers know this server by")
	f.StringVar(&o.proxyKey, "proxy-client-key-file", "", "its key")

	f.StringSliceVar(&o.modes, "authorization-mode", nil, "who decides, in order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny (default AlwaysAllow)")
	f.StringSliceVar(&o.enabled, "enable-admission-plugins", nil, "admission plugins beyond the usual ones")
	f.StringSliceVar(&o.disabled, "disable-admission-plugins", nil, "admission plugins to leave out")
	f.Int64Var(&o.notReady, "default-not-ready-toleration-seconds", 300, "how long pods stay on a node that is not ready, unless they say")
	f.Int64Var(&o.unreachable, "default-unreachable-toleration-seconds", 300, "how long pods stay on a node that cannot be reached, unless they say")
	f.StringVar(&o.admissionFile, "admission-control-config-file", "", "an AdmissionConfiguration: what the admission plugins are told")
	f.StringSliceVar(&o.legacy, "admission-control", nil, "the admission plugins; all others are left out")

	f.StringVar(&o.serviceRange, "service-cluster-ip-range", "", "the range of cluster addresses, or two for two families")
	f.StringVar(&o.nodePorts, "service-node-port-range", "30000-32767", "the range of node ports")
	f.StringVar(&o.kubeletCA, "kubelet-certificate-authority", "", "who signs the kubelets' certificates")
	f.StringVar(&o.kubeletCert, "kubelet-client-certificate", "", "the certificate for kubelets")
	f.StringVar(&o.kubeletKey, "kubelet-client-key", "", "its key")
	f.StringSliceVar(&o.runtimeConfig, "runtime-config", nil, "group/version=true|false, api/all, api/ga, api/beta, api/alpha")
	f.StringSliceVar(&o.featureGates, "feature-gates", nil, "name=true|false; the names of upstream's release are known")
	f.IntVar(&o.inFlight, "max-requests-inflight", 400, "how many requests that only read are served at once")
	f.IntVar(&o.mutatingFlight, "max-mutating-requests-inflight", 200, "how many requests that write are served at once")
	f.DurationVar(&o.requestTimeout, "request-timeout", time.Minute, "how long a request may take that is no watch or stream")
	f.BoolVar(&o.allowPrivileged, "allow-privileged", false, "taken for upstream's sake: privileged containers are admission's to allow")
	f.BoolVar(&o.priorityAndFairness, "enable-priority-and-fairness", true, "requests pass flow control; false is not supported")
	f.StringVar(&o.endpointReconciler, "endpoint-reconciler-type", "lease", "lease or none: whether the Service kubernetes leads here")
	o.audit.define(f)
	o.webhooks.define(f)
	o.oidc.define(f)
	f.quiet = []string{"profiling", "watch-cache", "watch-cache-sizes", "default-watch-cache-size", "enable-garbage-collector",
		"log-flush-frequency", "delete-collection-workers", "etcd-compaction-interval", "tls-cipher-suites", "logging-format",
		"http2-max-streams-per-connection", "kubelet-preferred-address-types", "etcd-readycheck-timeout", "etcd-healthcheck-timeout"}
	return f, o
}

func runAPIServer(ctx context.Context, p *process) error {
	f, o := p.apiFlags()
	if err := f.parse(); err != nil {
		return err
	}
	a, err := o.server(f)
	if err != nil {
		return err
	}
	a.Log = p.log
	if o.encryption == "" {
		return a.Run(ctx, nil)
	}
	ctx, stop := context.WithCancel(ctx)
	e, err := newEncryption(ctx, o.encryption, p.log)
	if err != nil {
		stop()
		return fmt.Errorf("--encryption-provider-config: %w", err)
	}
	a.Etcd.Transform = e.transformer
	a.Server.Readiness = map[string]func(context.Context) error{"kms-providers": e.healthy}
	var following sync.WaitGroup
	defer following.Wait()
	defer stop()
	if o.encryptionReload {
		following.Go(func() { e.follow(ctx) })
	}
	return a.Run(ctx, nil)
}

// server makes the API server that the flags describe.
func (o *apiFlags) server(f *flags) (*daemon.APIServer, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if _, err := f.gates(o.featureGates); err != nil {
		return nil, err
	}
	for name, on := range map[string]bool{"service-account-lookup": o.accountLookup, "enable-priority-and-fairness": o.priorityAndFairness} {
		if !on {
			f.p.log.Warn("this cannot be switched off here", "flag", "--"+name)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	a := &daemon.APIServer{HostName: host, Server: server.Config{
		Listen:     net.JoinHostPort(o.bindAddress, strconv.Itoa(o.securePort)),
		GitVersion: version.String(), MaxRequestsInFlight: o.inFlight, MaxMutatingInFlight: o.mutatingFlight, RequestTimeout: o.requestTimeout,
		NoAnonymous: !o.anonymous, BootstrapTokens: o.bootstrapTokens, AuthorizationModes: o.modes, Flags: f.set()}}
	if len(o.modes) == 0 && o.webhooks.authorization == "" {
		a.Server.AuthorizationModes = []string{"AlwaysAllow"}
		a.Server.NoAnonymous = a.Server.NoAnonymous || !f.Changed("anonymous-auth")
	}
	for _, step := range []func(*flags, *daemon.APIServer) error{o.etcd, o.addresses, o.certificates, o.users, o.accounts, o.oidc.authentication, o.proxies, o.kinds, o.admission, o.audit.auditor, o.webhooks.ask} {
		if err := step(f, a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (o *apiFlags) validate() error {
	var errs []error
	for _, v := range []struct {
		wrong bool
		text  string
	}{
		{len(o.etcdServers) == 0, "--etcd-servers must be specified"},
		{o.securePort < 1 || o.securePort > 65535, fmt.Sprintf("--secure-port %d must be between 1 and 65535, inclusive. It cannot be turned off with 0", o.securePort)},
		{o.storageBackend != "etcd3" && o.storageBackend != "", fmt.Sprintf("--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'; found %q", o.storageBackend)},
		{o.mediaType != "" && o.mediaType != "application/vnd.kubernetes.protobuf", fmt.Sprintf("--storage-media-type %q is not supported: objects are kept as protobuf, custom resources as JSON", o.mediaType)},
		{len(o.issuers) == 0 || o.issuers[0] == "", "service-account-issuer is a required flag, --service-account-signing-key-file and --service-account-issuer are required flags"},
		{len(o.issuers) > 0 && o.signingKey == "", "--service-account-signing-key-file and --service-account-issuer are required flags"},
		{(o.proxyCert == "") != (o.proxyKey == ""), "--proxy-client-cert-file and --proxy-client-key-file must be given together"},
		{o.endpointReconciler != "lease" && o.endpointReconciler != "none", fmt.Sprintf("--endpoint-reconciler-type %q must be lease or none", o.endpointReconciler)},
		{len(o.enabled)+len(o.disabled) > 0 && len(o.legacy) > 0, "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"},
	} {
		if v.wrong {
			errs = append(errs, errors.New(v.text))
		}
	}
	return errors.Join(errs...)
}

func (o *apiFlags) etcd(_ *flags, a *daemon.APIServer) error {
	a.Etcd = daemon.EtcdConfig{Servers: o.etcdServers, Prefix: "/" + strings.Trim(o.etcdPath, "/")}
	if o.etcdCA == "" && o.etcdCert == "" {
		for _, s := range o.etcdServers {
			if strings.HasPrefix(s, "https:") {
				a.Etcd.TLS = &tls.Config{}
			}
		}
		return nil
	}
	a.Etcd.TLS = &tls.Config{}
	if o.etcdCert != "" {
		r, err := reload(o.etcdCert, o.etcdKey)
		if err != nil {
			return err
		}
		a.Etcd.TLS = r.client(nil)
	}
	if o.etcdCA != "" {
		pool, _, err := authorities(o.etcdCA)
		if err != nil {
			return err
		}
		a.Etcd.TLS.RootCAs = pool
	}
	return nil
}

// addresses reads where the server is reached and what it gives to Services.
func (o *apiFlags) addresses(_ *flags, a *daemon.APIServer) error {
	at := o.advertiseAddress
	if at == "" {
		at = o.bindAddress
	}
	ip, err := netip.ParseAddr(at)
	if err != nil {
		return fmt.Errorf("--advertise-address: %w", err)
	}
	if ip.IsUnspecified() || o.advertiseAddress == "" && ip.IsLoopback() {
		if ip, err = daemon.HostIP(); err != nil {
			return err
		}
	}
	a.Advertise = netip.AddrPortFrom(ip, uint16(o.securePort))
	a.Server.ExternalAddress = a.Advertise.String()
	if o.externalHostname != "" {
		a.Server.ExternalAddress = net.JoinHostPort(o.externalHostname, strconv.Itoa(o.securePort))
	}
	a.NoEndpoints = o.endpointReconciler == "none"

	text := o.serviceRange
	if text == "" {
		text = "10.0.0.0/24"
	}
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return fmt.Errorf("--service-cluster-ip-range: %w", err)
		}
		a.Server.ServiceCIDRs = append(a.Server.ServiceCIDRs, p.Masked())
	}
	if r := a.Server.ServiceCIDRs; len(r) > 2 || len(r) == 2 && r[0].Addr().Is4() == r[1].Addr().Is4() {
		return fmt.Errorf("--service-cluster-ip-range %q must be one range, or two of different families", text)
	}
	a.Server.NodePortRange, err = portRange(o.nodePorts)
	return err
}

// portRange reads "30000-32767", or "30000+2767".
func portRange(text string) ([2]int, error) {
	wrong := fmt.Errorf("--service-node-port-range %q is no range of ports", text)
	first, last, ok := strings.Cut(text, "-")
	plus := false
	if !ok {
		if first, last, plus = strings.Cut(text, "+"); !plus {
			last = first
		}
	}
	a, err := strconv.Atoi(strings.TrimSpace(first))
	b, err2 := strconv.Atoi(strings.TrimSpace(last))
	if plus {
		b += a
	}
	if err != nil || err2 != nil || a < 1 || b > 65535 || a > b {
		return [2]int{}, wrong
	}
	return [2]int{a, b}, nil
}

func (o *apiFlags) certificates(_ *flags, a *daemon.APIServer) (err error) {
	first := a.Server.ServiceCIDRs[0].Addr().Next()
	leaf := pki.Leaf{User: "kube-apiserver", DNS: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost", a.HostName},
		IPs: []net.IP{first.AsSlice(), a.Advertise.Addr().AsSlice(), net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	if o.externalHostname != "" {
		leaf.DNS = append(leaf.DNS, o.externalHostname)
	}
	if ip := net.ParseIP(o.bindAddress); ip != nil && !ip.IsUnspecified() {
		leaf.IPs = append(leaf.IPs, ip)
	}
	if a.Server.TLS, err = serving(o.certFile, o.keyFile, o.certDir, "apiserver", leaf); err != nil {
		return err
	}
	kubelets := &tls.Config{}
	if o.kubeletCert != "" {
		r, err := reload(o.kubeletCert, o.kubeletKey)
		if err != nil {
			return err
		}
		kubelets = r.client(nil)
	}
	// Without an authority nobody can say whose certificate a kubelet serves with: upstream does not ask then, either.
	kubelets.InsecureSkipVerify = o.kubeletCA == ""
	if o.kubeletCA != "" {
		if kubelets.RootCAs, _, err = authorities(o.kubeletCA); err != nil {
			return err
		}
	}
	a.Server.KubeletClientTLS = kubelets
	return nil
}

func (o *apiFlags) users(_ *flags, a *daemon.APIServer) (err error) {
	if o.clientCA != "" {
		if a.Server.ClientCAs, a.ClientCA, err = authorities(o.clientCA); err != nil {
			return err
		}
		a.Server.CAPEM = a.ClientCA
	}
	if o.tokenFile != "" {
		a.Server.StaticTokens, err = staticTokens(o.tokenFile)
	}
	return err
}

func (o *apiFlags) accounts(_ *flags, a *daemon.APIServer) (err error) {
	if a.Server.ServiceAccountKey, err = privateKey(o.signingKey); err != nil {
		return err
	}
	if a.Server.ServiceAccountVerify, err = publicKeys(o.accountKeys); err != nil {
		return err
	}
	a.Server.Issuer, a.Server.OtherIssuers = o.issuers[0], o.issuers[1:]
	a.Server.Audiences, a.Server.JWKSURI = o.audiences, o.jwksURI
	return nil
}

func (o *apiFlags) proxies(_ *flags, a *daemon.APIServer) error {
	if o.proxyCert != "" {
		r, err := reload(o.proxyCert, o.proxyKey)
		if err != nil {
			return err
		}
		a.Server.ProxyCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return r.get() }
	}
	if o.proxyCA == "" {
		return nil
	}
	pool, pem, err := authorities(o.proxyCA)
	if err != nil {
		return err
	}
	a.Server.FrontProxy = &authn.FrontProxy{CAs: pool, AllowedNames: o.proxyNames, UserHeaders: o.proxyUser, UIDHeaders: o.proxyUID,
		GroupHeaders: o.proxyGroup, ExtraPrefixes: o.proxyExtra}
	a.FrontProxy = &bootstrap.FrontProxy{CA: pem, AllowedNames: o.proxyNames, UserHeaders: o.proxyUser, UIDHeaders: o.proxyUID,
		GroupHeaders: o.proxyGroup, ExtraPrefixes: o.proxyExtra}
	return nil
}

// kinds is the table that --runtime-config leaves.
func (o *apiFlags) kinds(f *flags, a *daemon.APIServer) error {
	all := builtin.Kinds()
	off := map[string]bool{}
	stages := map[string]bool{}
	for _, s := range o.runtimeConfig {
		name, text, _ := strings.Cut(s, "=")
		on := true
		if text != "" {
			var err error
			if on, err = strconv.ParseBool(text); err != nil {
				return fmt.Errorf("--runtime-config %s: %w", s, err)
			}
		}
		if stage, ok := strings.CutPrefix(name, "api/"); ok {
			if !slices.Contains([]string{"all", "ga", "beta", "alpha", "legacy"}, stage) {
				return fmt.Errorf("--runtime-config: unknown key %q", name)
			}
			stages[stage] = on
			continue
		}
		known := slices.ContainsFunc(all, func(k *api.Kind) bool { return k.GroupVersionKind().GroupVersion().String() == name })
		if on && !known {
			f.p.log.Warn("an API version is not served here", "version", name)
		}
		off[name] = !on
	}
	stage := func(v string) string {
		switch {
		case strings.Contains(v, "alpha"):
			return "alpha"
		case strings.Contains(v, "beta"):
			return "beta"
		}
		return "ga"
	}
	a.Server.Kinds = api.NewTable(slices.DeleteFunc(all, func(k *api.Kind) bool {
		if gone, said := off[k.GroupVersionKind().GroupVersion().String()]; said {
			return gone
		}
		if on, said := stages[stage(k.Version)]; said {
			return !on
		}
		on, said := stages["all"]
		return said && !on && k.GroupVersionKind().GroupVersion().String() != "v1"
	})...)
	return nil
}

// usualPlugins are the admission plugins that upstream runs unless they are disabled.
var usualPlugins = strings.Fields(`NamespaceLifecycle LimitRanger ServiceAccount TaintNodesByCondition PodSecurity Priority
	DefaultTolerationSeconds DefaultStorageClass StorageObjectInUseProtection PodGroupProtection PersistentVolumeClaimResize
	RuntimeClass CertificateApproval CertificateSigning ClusterTrustBundleAttest CertificateSubjectRestriction DefaultIngressClass
	PodTopologyLabels PodGroupWorkloadExists NodeDeclaredFeatureValidator JobValidation PodResizeValidator MutatingAdmissionPolicy
	MutatingAdmissionWebhook ValidatingAdmissionPolicy ValidatingAdmissionWebhook ResourceQuota`)

// admission selects plugins. The server runs NodeRestriction by default, upstream's program only when it is asked to.
func (o *apiFlags) admission(_ *flags, a *daemon.APIServer) error {
	on, off := slices.Concat(o.enabled, o.legacy), slices.Clone(o.disabled)
	if len(o.legacy) > 0 {
		off = slices.DeleteFunc(slices.Clone(usualPlugins), func(name string) bool { return slices.Contains(o.legacy, name) })
	}
	if !slices.Contains(on, "NodeRestriction") && !slices.Contains(off, "NodeRestriction") {
		off = append(off, "NodeRestriction")
	}
	a.Server.EnabledAdmission, a.Server.DisabledAdmission = on, off
	a.Server.AdmissionConfigFile = o.admissionFile
	a.Server.TolerationSeconds = map[string]int64{corev1.TaintNodeNotReady: o.notReady, corev1.TaintNodeUnreachable: o.unreachable}
	return nil
}
