package server

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/plugins"
	"github.com/skiff-sh/skiff/server/alloc"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/authz"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/server/reviews"
	"github.com/skiff-sh/skiff/server/tokens"
)

// wire makes the parts that the configuration did not give.
func (s *Server) wire(ctx context.Context) error {
	cfg := &s.cfg
	var tok *tokens.Issuer
	if cfg.ServiceAccountKey != nil {
		var err error
		tok, err = tokens.New(tokens.Config{Issuer: cfg.Issuer, Issuers: cfg.OtherIssuers, Key: cfg.ServiceAccountKey,
			Verify: cfg.ServiceAccountVerify, Audiences: cfg.Audiences, JWKSURI: cfg.JWKSURI, Lookup: tokens.FromStore(s.store)})
		if err != nil {
			return err
		}
		s.issuer = tok
	}
	if s.authn = cfg.Authenticator; s.authn == nil {
		ac := authn.Config{ClientCAs: cfg.ClientCAs, Tokens: tok, Static: cfg.StaticTokens, Webhook: cfg.TokenWebhook,
			FrontProxy: cfg.FrontProxy, NoAnonymous: true} // the paths that are open to everybody are admit's to know
		if cfg.BootstrapTokens {
			ac.BootstrapSecret = tokens.FromStore(s.store).Secret
		}
		if cfg.Authentication != nil {
			var err error
			if ac.Structured, err = s.structured(*cfg.Authentication); err != nil {
				return fmt.Errorf("authentication: %w", err)
			}
		}
		s.authn = authn.New(ac)
	}
	var rules reviews.Authorizer
	if s.authz = cfg.Authorizer; s.authz == nil {
		a := authz.New(s.store)
		s.run = append(s.run, a.Run)
		chain, err := s.authorizers(a)
		if err != nil {
			return fmt.Errorf("authorization: %w", err)
		}
		s.authz, rules = chain, chain
	}
	chain := cfg.Admission
	if chain == nil {
		c, err := s.plugins()
		if err != nil {
			return err
		}
		chain = &c
	}
	ext := cfg.Extensions
	if ext == nil {
		ext = &rest.Extensions{Actions: reviews.Actions(s.authn, rules, tok), Claims: map[string]rest.Claim{}}
		if len(cfg.ServiceCIDRs) > 0 {
			services := alloc.New(s.store, cfg.ServiceCIDRs, cfg.NodePortRange)
			if cfg.Shared {
				if err := services.Share(ctx); err != nil {
					return err
				}
			}
			ext.Claims["services"] = services.Claim
		}
	}
	s.rest = rest.New(rest.Config{Store: s.store, Kinds: s.kinds, Admission: *chain, Extensions: *ext,
		CustomTypes: s.custom.Types, MayCreate: s.mayCreate, Log: cfg.Log})
	return nil
}

// plugins makes the chain of admission plugins.
func (s *Server) plugins() (admission.Chain, error) {
	cfg := &s.cfg
	d := plugins.Deps{Store: s.store, Kinds: s.kinds, Authorizer: s.authz, Log: cfg.Log, Metrics: s.metrics.registry, Types: s.custom.TypesOf,
		Enable: cfg.EnabledAdmission, Disable: cfg.DisabledAdmission, CreateNamespace: s.createNamespace, TolerationSeconds: cfg.TolerationSeconds}
	if cfg.AdmissionConfigFile != "" {
		var err error
		if d.Settings, err = plugins.ReadSettings(cfg.AdmissionConfigFile); err != nil {
			return admission.Chain{}, fmt.Errorf("admission: %w", err)
		}
	}
	return plugins.Chain(d)
}

// createNamespace makes a namespace as the server itself.
func (s *Server) createNamespace(ctx context.Context, name string) error {
	self := s.Local(&user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}})
	_, err := self.Create(ctx, read.Kind[*corev1.Namespace](), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// mayCreate authorizes an update or apply that is about to create its object.
func (s *Server) mayCreate(ctx context.Context, k *api.Kind, namespace, name string) error {
	i := *request.From(ctx)
	i.Verb, i.Subresource = "create", ""
	return s.authorize(ctx, i.Attributes())
}

func (s *Server) authorize(ctx context.Context, a authorizer.Attributes) error {
	_, err := s.rule(ctx, a)
	return err
}

// rule authorizes, and gives the authorizer's reason.
func (s *Server) rule(ctx context.Context, a authorizer.Attributes) (string, error) {
	decision, reason, err := s.authz.Authorize(ctx, a)
	s.metrics.rulings[decision].Inc()
	if decision == authorizer.DecisionAllow {
		return reason, nil
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return reason, &undecided{err}
	}
	if decision != authorizer.DecisionDeny && !a.IsResourceRequest() && publicPath(a.GetPath()) {
		return reason, nil
	}
	return reason, forbidden(a, reason)
}

// undecided says that who decides about requests could not.
type undecided struct{ error }

// quiet passes net/http's complaints on at debug level: a client that breaks off a handshake is no news.
func quiet(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
