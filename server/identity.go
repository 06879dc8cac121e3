package server

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/apis/apiserver"

	"github.com/skiff-sh/skiff/server/authn"
	"github.com/skiff-sh/skiff/server/authz"
)

// structured makes the authenticator of an AuthenticationConfiguration.
func (s *Server) structured(c authn.StructuredConfig) (*authn.Structured, error) {
	c.Log, c.Reloaded = s.cfg.Log, s.metrics.reloads("authentication_config_controller")
	if s.issuer != nil {
		c.Taken = append([]string{s.cfg.Issuer}, s.cfg.OtherIssuers...)
	}
	a, err := authn.NewStructured(c)
	if err != nil {
		return nil, err
	}
	s.strangers = a.Anonymous()
	s.run = append(s.run, a.Run)
	return a, nil
}

// authorizers makes the chain of authorizers.
func (s *Server) authorizers(a *authz.Authorizer) (*authz.Chain, error) {
	if s.cfg.AuthorizationConfig == nil {
		return a.Modes(s.cfg.AuthorizationModes, s.cfg.AuthorizationWebhook)
	}
	c := *s.cfg.AuthorizationConfig
	c.Log, c.Reloaded = s.cfg.Log, s.metrics.reloads("authorization_config_controller")
	chain, err := a.Structured(c)
	if err == nil {
		s.run = append(s.run, chain.Run)
	}
	return chain, err
}

// open reports whether a path is served to callers without credentials, as system:anonymous.
func (s *Server) open(path string) bool {
	a := s.strangers
	if a == nil {
		return !s.cfg.NoAnonymous
	}
	return a.Enabled && (len(a.Conditions) == 0 ||
		slices.ContainsFunc(a.Conditions, func(c apiserver.AnonymousAuthCondition) bool { return c.Path == path }))
}

// reloads counts the readings of a configuration file while the server runs.
func (m *metrics) reloads(subsystem string) func(error) {
	labels := []string{"status"}
	total := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "apiserver", Subsystem: subsystem, Name: "automatic_reloads_total",
		Help: "Total number of automatic reloads of the configuration file split by status."}, labels)
	last := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "apiserver", Subsystem: subsystem, Name: "automatic_reload_last_timestamp_seconds",
		Help: "Timestamp of the last automatic reload of the configuration file split by status."}, labels)
	m.registry.MustRegister(total, last)
	return func(err error) {
		status := "success"
		if err != nil {
			status = "failure"
		}
		total.WithLabelValues(status).Inc()
		last.WithLabelValues(status).SetToCurrentTime()
	}
}
