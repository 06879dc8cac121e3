package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/deprecation"

	"github.com/skiff-sh/skiff/api"
	apicodec "github.com/skiff-sh/skiff/api/codec"
	"github.com/skiff-sh/skiff/server/aggregation"
	"github.com/skiff-sh/skiff/server/crd"
	"github.com/skiff-sh/skiff/server/discovery"
	"github.com/skiff-sh/skiff/server/flow"
	"github.com/skiff-sh/skiff/server/openapi"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/server/streams"
	"github.com/skiff-sh/skiff/store"
)

// Server is one API server.
type Server struct {
	cfg       Config
	store     store.Store
	kinds     *api.Table
	authn     authenticator.Request
	authz     authorizer.Authorizer
	strangers *apiserver.AnonymousAuthConfig // who may come without credentials; nil: Config.NoAnonymous says
	rest      *rest.REST
	discovery *discovery.Documents
	openapi   *openapi.Documents
	streams   *streams.Streams
	custom    *crd.Server
	// aggregation knows the API servers that serve other group-versions.
	aggregation *aggregation.Server
	issuer      issuer
	metrics     *metrics
	flow        *flow.Gate
	// deprecated is what the answers for old kinds warn of.
	deprecated map[*api.Kind]string
	watches    sync.Map                      // *api.Kind to *atomic.Int64: how many HTTP watches follow it
	run        []func(context.Context) error // what runs beside the listener

	ready    chan struct{} // closed when Run serves
	stopping chan struct{} // closed when Run begins to end
	once     sync.Once
}

// issuer is what the OpenID paths need of the token issuer.
type issuer interface {
	JWKS() []byte
	OpenIDConfiguration() []byte
}

// New makes a server and tells the store how the table's kinds are kept, so that Local works at once.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, store: cfg.Store, kinds: cfg.Kinds, metrics: newMetrics(&cfg),
		ready: make(chan struct{}), stopping: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, k := range cfg.Kinds.Kinds() {
		if k.Hub != nil || k.StoragePath == "" {
			continue // another row registers the prefix, or there is nothing to keep
		}
		if err := s.store.Register(ctx, k.Prefix(""), apicodec.For(k)); err != nil {
			return nil, fmt.Errorf("register %s: %w", k, err)
		}
	}
	s.newFlow()
	s.deprecated = deprecations(cfg.Kinds.Kinds())
	if err := s.newCustom(); err != nil {
		return nil, err
	}
	s.newAggregation()
	s.streams = streams.New(streams.Config{Store: s.store, Kinds: cfg.Kinds, KubeletTLS: cfg.KubeletClientTLS, Log: cfg.Log})
	if err := s.wire(ctx); err != nil {
		return nil, err
	}
	return s, errors.Join(s.custom.Load(ctx), s.aggregation.Load(ctx))
}

// deprecations are the warnings of the kinds whose types say that they are deprecated.
func deprecations(kinds []*api.Kind) map[*api.Kind]string {
	out := map[*api.Kind]string{}
	for _, k := range kinds {
		obj := k.New()
		obj.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
		if text := deprecation.WarningMessage(obj); text != "" {
			out[k] = text
		}
	}
	return out
}

// self is the server as a user of its own API.
var self user.Info = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// newFlow makes the gate that requests pass, of the objects that the store has, and the auditor that follows them.
func (s *Server) newFlow() {
	s.flow = flow.New(flow.Config{Seats: s.cfg.MaxRequestsInFlight + s.cfg.MaxMutatingInFlight, Wait: s.cfg.RequestTimeout / 4,
		Store: s.store, Client: s.Local(self), Log: s.cfg.Log})
	s.metrics.registry.MustRegister(s.flow)
	s.run = append(s.run, s.flow.Run)
	if a := s.cfg.Audit; a != nil {
		s.metrics.registry.MustRegister(a)
		s.run = append(s.run, a.Run)
	}
}

// newCustom makes the part that serves custom resources.
func (s *Server) newCustom() (err error) {
	s.custom, err = crd.New(crd.Config{Store: s.store, Kinds: s.kinds, Client: s.Local(self), Gone: s.forget,
		Metrics: s.metrics.registry, Log: s.cfg.Log})
	if err == nil {
		s.run = append(s.run, s.custom.Run)
	}
	return err
}

// forget drops what is kept for a row that is no longer served.
func (s *Server) forget(k *api.Kind) {
	s.watches.Delete(k)
	s.metrics.forget(k)
	if s.rest != nil {
		s.rest.Forget(k)
	}
}

// Local is the API as one user calls it in the process.
func (s *Server) Local(u user.Info) *Local { return &Local{s: s, user: u} }

// Kinds is the table that is served, custom resources included.
func (s *Server) Kinds() *api.Table { return s.kinds }

// Run serves until ctx ends, then lets requests finish for up to ten seconds.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.TLS == nil {
		return errors.New("server: Config.TLS is missing")
	}
	ln := s.cfg.Listener
	if ln == nil {
		var err error
		if ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen); err != nil {
			return err
		}
	}
	tc := s.cfg.TLS.Clone()
	if tc.ClientCAs = s.cfg.ClientCAs; s.cfg.FrontProxy != nil {
		tc.ClientCAs = nil // clients offer only certificates of authorities that they are asked for: leave it to them
	}
	tc.ClientAuth = tls.RequestClientCert
	if tc.MinVersion == 0 {
		tc.MinVersion = tls.VersionTLS12
	}
	tc.NextProtos = []string{"h2", "http/1.1"}
	tc.DynamicRecordSizingDisabled = true // small records at first would each be a system call
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conns := &connections{idle: map[net.Conn]struct{}{}}
	hs := &http.Server{ConnState: conns.state, Handler: s.Handler(), TLSConfig: tc, MaxHeaderBytes: 1 << 20, ReadHeaderTimeout: 32 * time.Second,
		IdleTimeout: 90 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: quiet(s.cfg.Log),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000, MaxReceiveBufferPerStream: 256 << 10,
			MaxReceiveBufferPerConnection: 25 << 20}}
	hs.RegisterOnShutdown(conns.end)
	fails := make(chan error, len(s.run)+1)
	var wg sync.WaitGroup
	for _, f := range s.run {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				fails <- err
			}
		})
	}
	wg.Go(func() {
		if err := hs.ServeTLS(joiner{ln}, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fails <- err
		}
	})
	s.once.Do(func() { close(s.ready) })
	var err error
	select {
	case <-ctx.Done():
	case err = <-fails:
	}
	close(s.stopping)
	cancel() // ends watches, which would never finish by themselves
	stop, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	if hs.Shutdown(stop) != nil {
		hs.Close()
	}
	wg.Wait()
	return err
}

// Ready returns when Run serves and the store's cache is filled.
func (s *Server) Ready(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	// An authorizer that follows the store refuses nearly everybody until it has read it.
	if a, ok := s.authz.(interface{ Sync(context.Context) error }); ok {
		if err := a.Sync(ctx); err != nil {
			return err
		}
	}
	return s.store.WaitFor(ctx, 0)
}
