package server

import (
	"context"
	"log"
	"log/slog"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission/plugins"
	"github.com/skiff-sh/skiff/server/alloc"
	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/authz"
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
		s.authn = authn.New(ac)
	}
	var rules reviews.Authorizer
	if s.authz = cfg.Authorizer; s.authz == nil {
		a := authz.New(s.store)
		s.run = append(s.run, a.Run)
		chain, err := a.Modes(cfg.AuthorizationModes, cfg.AuthorizationWebhook)
		if err != nil {
			return err
		}
		s.authz, rules = chain, chain
	}
	chain := cfg.Admission
	if chain == nil {
		c, err := plugins.Chain(plugins.Deps{Store: s.store, Kinds: s.kinds, Authorizer: s.authz, Log: cfg.Log,
			Metrics: s.metrics.registry, Types: s.custom.TypesOf, Enable: cfg.EnabledAdmission, Disable: cfg.DisabledAdmission})
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
	if err != nil && ctx.Err() != nil {
		return "", ctx.Err()
	}
	return reason, forbidden(a, reason)
}

// quiet passes net/http's complaints on at debug level: a client that breaks off a handshake is no news.
func quiet(l *slog.Logger) *log.Logger { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }
