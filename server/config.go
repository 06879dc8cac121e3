package server

import (
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
	// ServiceAccountKey signs tokens in the name of Issuer, for Audiences (Issuer if none are given).
	ServiceAccountKey crypto.Signer
	Issuer            string
	Audiences         []string
	// StaticTokens are bearer tokens that never expire, by token.
	StaticTokens map[string]user.Info

	ServiceCIDR   netip.Prefix
	NodePortRange [2]int // first and last; zero is 30000-32767
	// KubeletClientTLS has the client certificate for the nodes' kubelet APIs (logs, exec, proxy).
	KubeletClientTLS *tls.Config

	// GitVersion is what /version tells, "v1.36.3+skiff" if empty.
	GitVersion string
	// MaxInFlight bounds requests that are no watches or streams; 0 is 600. More get 429.
	MaxInFlight int
	// RequestTimeout bounds a request that is no watch or stream; 0 is a minute.
	RequestTimeout time.Duration

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
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 600
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
