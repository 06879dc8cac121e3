package server

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/audit"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/authz"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store"
)

// Config is all that a Server needs. Store, Kinds and Log are always required; TLS and an address only by Run.
type Config struct {
	Store store.Store
	// Kinds is the table that is served. It is the server's own: custom resources are added to it.
	Kinds *api.Table

	// TLS has the serving certificate. The server itself asks for client certificates of ClientCAs.
	TLS *tls.Config
	// Listener is served by Run, or if nil a new one on Listen ("0.0.0.0:6443").
	Listener net.Listener
	Listen   string

	ClientCAs *x509.CertPool
	CAPEM     []byte // the cluster's CA, for pods
	// ServiceAccountKey signs tokens in the name of Issuer, for Audiences (Issuer if none are given). Tokens of
	// OtherIssuers and tokens signed with a key of ServiceAccountVerify are believed too. JWKSURI is where the discovery
	// document says that the keys are, if not below the issuer.
	ServiceAccountKey    crypto.Signer
	ServiceAccountVerify []crypto.PublicKey
	Issuer               string
	OtherIssuers         []string
	Audiences            []string
	JWKSURI              string
	// FrontProxy believes the headers of an authenticating proxy. Nil: none is believed.
	FrontProxy *authn.FrontProxy
	// NoAnonymous refuses requests without credentials, but for the health checks and the version.
	NoAnonymous bool
	// AuthorizationModes is the chain of authorizers by upstream's names (Node, RBAC, AlwaysAllow, AlwaysDeny). None:
	// Node and RBAC. Webhook asks AuthorizationWebhook.
	AuthorizationModes   []string
	AuthorizationWebhook authorizer.Authorizer
	// AuthorizationConfig is a file that says instead of the modes who decides. Nil: there is none.
	AuthorizationConfig *authz.StructuredConfig
	// EnabledAdmission and DisabledAdmission are admission plugins that are there or left out other than by default, by
	// upstream's names. By default are its own and NodeRestriction.
	EnabledAdmission, DisabledAdmission []string
	// TolerationSeconds is how long pods stay on nodes with trouble unless they say so themselves, by the taint
	// (node.kubernetes.io/not-ready, node.kubernetes.io/unreachable); 300 s where it does not say.
	TolerationSeconds map[string]int64
	// AdmissionConfigFile is an AdmissionConfiguration: what the plugins are told. "": nothing.
	AdmissionConfigFile string
	// BootstrapTokens lets the Secrets of type bootstrap.kubernetes.io/token authenticate nodes that join.
	BootstrapTokens bool
	// Authentication believes tokens of OpenID Connect providers, and says who may come without credentials. Nil: nobody's,
	// and NoAnonymous says.
	Authentication *authn.StructuredConfig
	// TokenWebhook is asked about bearer tokens that the server does not know. Nil: nobody is.
	TokenWebhook authenticator.Token
	// StaticTokens are bearer tokens that never expire, by token.
	StaticTokens map[string]user.Info

	// ServiceCIDRs are the ranges of cluster addresses, one of a family; the first one's family is the default.
	ServiceCIDRs []netip.Prefix
	// Shared says that other servers write to the store too.
	Shared        bool
	NodePortRange [2]int // first and last; zero is 30000-32767
	// ProxyCertificate gives the client certificate by which extension API servers know that requests come through this
	// server. Nil: it shows them none.
	ProxyCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// ExternalAddress is where clients reach the server ("192.0.2.1:6443"), as /api tells; "" is left out.
	ExternalAddress string
	// KubeletClientTLS has the client certificate for the nodes' kubelet APIs (logs, exec, proxy).
	KubeletClientTLS *tls.Config

	// GitVersion is what /version tells, "v1.36.3+skiff" if empty.
	GitVersion string
	// MaxRequestsInFlight and MaxMutatingInFlight together are the seats that flow control gives to requests; 0 is 400 and
	// 200. Who finds none waits, or gets 429.
	MaxRequestsInFlight, MaxMutatingInFlight int
	// RequestTimeout bounds a request that is no watch or stream; 0 is a minute.
	RequestTimeout time.Duration

	// Audit is told of every request that its policy asks about. Nil: nobody is.
	Audit *audit.Auditor

	// Flags are what /flagz shows: the flags that the process was started with, by name.
	Flags map[string]string
	// SlowWatch is how long the client of a watch may leave a write standing before it is cut off; 0 is 30 s.
	SlowWatch time.Duration
	// Readiness are more checks of /readyz, by name.
	Readiness map[string]func(context.Context) error

	// Authenticator, Authorizer, Admission and Extensions replace the parts that New would otherwise make.
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	Admission     *admission.Chain
	Extensions    *rest.Extensions

	Log *slog.Logger
}

func (c *Config) validate() error {
	switch {
	case c.Store == nil:
		return errors.New("server: Config.Store is missing")
	case c.Kinds == nil:
		return errors.New("server: Config.Kinds is missing")
	case c.Log == nil:
		return errors.New("server: Config.Log is missing")
	}
	if c.GitVersion == "" {
		c.GitVersion = "v1.36.3+skiff"
	}
	if c.MaxRequestsInFlight == 0 {
		c.MaxRequestsInFlight = 400
	}
	if c.MaxMutatingInFlight == 0 {
		c.MaxMutatingInFlight = 200
	}
	if c.SlowWatch == 0 {
		c.SlowWatch = 30 * time.Second
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = time.Minute
	}
	if c.NodePortRange == [2]int{} {
		c.NodePortRange = [2]int{30000, 32767}
	}
	if len(c.Audiences) == 0 && c.Issuer != "" {
		c.Audiences = []string{c.Issuer}
	}
	return nil
}
