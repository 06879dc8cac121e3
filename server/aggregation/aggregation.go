package aggregation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/discovery"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

type apiService = apiregistrationv1.APIService

// Client is how the server writes to its own API.
type Client interface {
	Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error)
	Update(ctx context.Context, k *api.Kind, obj api.Object, sub string, o metav1.UpdateOptions) (api.Object, error)
	Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error
}

// Config is what a Server needs. All but Certificate and Metrics is required.
type Config struct {
	Store  store.Store
	Kinds  *api.Table
	Client Client
	// Certificate is the front proxy's client certificate, by which extension servers know that the identity headers can
	// be believed. Nil: none is shown, and extension servers take every request for anonymous.
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	Metrics     prometheus.Registerer
	Log         *slog.Logger
}

// Server is the aggregating part of one API server.
type Server struct {
	Config
	routes     atomic.Pointer[routes]
	metrics    *metrics
	registered chan struct{} // closed when the local group-versions have been registered for the first time

	mu      sync.Mutex
	remotes map[string]*Remote // by APIService's name
}

// routes is who serves what. It never changes once it is published.
type routes struct {
	remote        map[schema.GroupVersion]*Remote
	available     map[string]bool // by APIService's name; of those in remote
	registrations *discovery.Registrations
}

// New makes a Server.
func New(cfg Config) *Server {
	s := &Server{Config: cfg, metrics: newMetrics(cfg.Metrics), registered: make(chan struct{}), remotes: map[string]*Remote{}}
	s.routes.Store(&routes{registrations: &discovery.Registrations{}})
	return s
}

// Load takes the routes from the store, so that a restart is not seen by clients.
func (s *Server) Load(ctx context.Context) error {
	if err := s.Store.WaitFor(ctx, 0); err != nil {
		return err
	}
	s.publish()
	return nil
}

// Registrations is what the APIServices say; a new value after each change.
func (s *Server) Registrations() *discovery.Registrations { return s.routes.Load().registrations }

// Remote is the extension server that serves a group-version; nil where it is served here or by nobody.
func (s *Server) Remote(group, version string) *Remote {
	m := s.routes.Load().remote
	if len(m) == 0 {
		return nil
	}
	return m[schema.GroupVersion{Group: group, Version: version}]
}

// Registered is closed when the group-versions that are served here have their APIServices.
func (s *Server) Registered() <-chan struct{} { return s.registered }

// Discovered is nil once every extension server that was available before the start has been asked what it serves: until
// then, discovery knows nothing of it but its name.
func (s *Server) Discovered(context.Context) error {
	routes := s.routes.Load()
	for _, r := range routes.remote {
		if routes.available[r.name] && !r.looked.Load() {
			return fmt.Errorf("%s has not been looked at yet", r.name)
		}
	}
	return nil
}

// publish makes the routes anew.
func (s *Server) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &routes{remote: map[schema.GroupVersion]*Remote{}, available: map[string]bool{}, registrations: &discovery.Registrations{}}
	kept := map[string]*Remote{}
	for o := range read.All[*apiService](s.Store, "") {
		name := o.Name
		gv := schema.GroupVersion{Group: o.Spec.Group, Version: o.Spec.Version}
		reg := discovery.Registration{GroupVersion: gv, GroupPriority: o.Spec.GroupPriorityMinimum, VersionPriority: o.Spec.VersionPriority}
		if o.Spec.Service != nil {
			r := s.remotes[name]
			if r == nil || !r.serves(o) {
				r = s.newRemote(o)
			}
			kept[name] = r
			next.remote[gv], next.available[name] = r, available(o)
			reg.Remote = r.discovered(available(o))
		}
		next.registrations.All = append(next.registrations.All, reg)
	}
	for name, r := range s.remotes {
		if kept[name] != r {
			r.close()
		}
		if kept[name] == nil {
			s.metrics.forget(name)
		}
	}
	s.remotes = kept
	s.routes.Store(next)
}

func available(o *apiService) bool {
	c := condition(o)
	return c != nil && c.Status == apiregistrationv1.ConditionTrue
}

func condition(o *apiService) *apiregistrationv1.APIServiceCondition {
	for i := range o.Status.Conditions {
		if c := &o.Status.Conditions[i]; c.Type == apiregistrationv1.Available {
			return c
		}
	}
	return nil
}

// Run keeps the APIServices of what is served here, and looks after the others, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	changed := make(chan struct{}, 1)
	for _, k := range []*api.Kind{read.Kind[*apiService](), read.Kind[*apiextensionsv1.CustomResourceDefinition]()} {
		wg.Go(func() { s.notify(ctx, k.Prefix(""), changed) })
	}
	keepers := map[*Remote]context.CancelFunc{}
	started := false
	delay := time.Duration(0) // of the next try after a failure
	for {
		s.publish()
		s.tend(ctx, &wg, keepers)
		err := s.register(ctx, !started)
		if err == nil {
			delay = 0
			if !started {
				started = true
				close(s.registered)
			}
		} else if ctx.Err() == nil {
			s.Log.Warn("registering the API's group-versions", "error", err)
			delay = min(max(2*delay, 100*time.Millisecond), 30*time.Second)
		}
		if err := wait(ctx, changed, delay); err != nil {
			return nil
		}
	}
}

// tend starts a keeper for each remote that has none, and ends those of remotes that are no more.
func (s *Server) tend(ctx context.Context, wg *sync.WaitGroup, keepers map[*Remote]context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	present := map[*Remote]bool{}
	for _, r := range s.remotes {
		present[r] = true
		if keepers[r] != nil {
			continue
		}
		kctx, stop := context.WithCancel(ctx)
		keepers[r] = stop
		wg.Go(func() { s.keep(kctx, r) })
	}
	for r, stop := range keepers {
		if !present[r] {
			stop()
			delete(keepers, r)
		}
	}
}

// notify tells ch of changes under a prefix until ctx ends. The first word comes when the watch stands, so that a look
// after it misses nothing.
func (s *Server) notify(ctx context.Context, prefix string, ch chan<- struct{}) {
	for ctx.Err() == nil {
		w, err := s.Store.Watch(ctx, prefix, 0)
		if err == nil {
			tell(ch)
			for err == nil {
				if _, _, err = w.Next(ctx); err == nil {
					tell(ch)
				}
			}
			w.Close()
		}
		if !errors.Is(err, store.ErrCompacted) {
			_ = wait(ctx, nil, time.Second)
		}
	}
}

func tell(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wait returns at the first of a word on ch, the end of a delay (0: none), and the end of ctx, whose error it returns.
func wait(ctx context.Context, ch <-chan struct{}, delay time.Duration) error {
	var due <-chan time.Time
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ch:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
