package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// check is one named health check.
type check struct {
	name string
	run  func(context.Context) error
	// live and ready say under which roots it is found; /healthz has what /livez has.
	live, ready bool
}

// startHooks are upstream's names for what must have begun before a server is well, in upstream's order. Here all of it has
// before the first request is answered, but for what is marked as written.
var startHooks = []struct {
	name    string
	written bool // waits until the first objects of a cluster are there, where somebody writes them
}{
	{"start-apiserver-admission-initializer", false}, {"generic-apiserver-start-informers", false},
	{"priority-and-fairness-config-consumer", false}, {"priority-and-fairness-filter", false},
	{"storage-object-count-tracker-hook", false}, {"start-apiextensions-informers", false},
	{"start-apiextensions-controllers", false}, {"crd-informer-synced", false},
	{"start-system-namespaces-controller", true}, {"peer-endpoint-reconciler-controller", false},
	{"start-cluster-authentication-info-controller", true}, {"start-kube-apiserver-identity-lease-controller", false},
	{"start-kube-apiserver-identity-lease-garbage-collector", false}, {"storage-readiness", false},
	{"start-legacy-token-tracking-controller", false}, {"start-service-ip-repair-controllers", false},
	{"rbac/bootstrap-roles", true}, {"scheduling/bootstrap-system-priority-classes", true},
	{"priority-and-fairness-config-producer", false}, {"bootstrap-controller", true},
	{"start-kubernetes-service-cidr-controller", true}, {reloadProxyCertificate, false},
	{"start-kube-aggregator-informers", false}, {"apiservice-status-local-available-controller", false},
	{"apiservice-status-remote-available-controller", false}, {"apiservice-registration-controller", false},
	{"apiservice-discovery-controller", false}, {"kube-apiserver-autoregistration", false},
	{"apiservice-openapi-controller", false}, {"apiservice-openapiv3-controller", false},
}

// reloadProxyCertificate is there where the server shows extension servers a certificate.
const reloadProxyCertificate = "aggregator-reload-proxy-client-cert"

const bootstrapRoles = "poststarthook/rbac/bootstrap-roles"

// healthChecks are the named health checks in upstream's order.
func (s *Server) healthChecks() []check {
	fine := func(context.Context) error { return nil }
	etcd := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := s.store.Revision(ctx)
		return err
	}
	filled := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return s.store.WaitFor(ctx, 0)
	}
	out := []check{{"ping", fine, true, true}, {"log", fine, true, true}, {"loopback-serving-certificate", fine, true, false},
		{"etcd", etcd, true, true}, {"etcd-readiness", etcd, false, true}, {"informer-sync", filled, false, true}}
	written := fine
	if f := s.cfg.Readiness[bootstrapRoles]; f != nil {
		written = f
	}
	for _, hook := range startHooks {
		run := fine
		switch {
		case hook.name == reloadProxyCertificate && s.cfg.ProxyCertificate == nil:
			continue
		case hook.name == "apiservice-openapi-controller":
			out = append(out, check{"autoregister-completion", fine, true, true})
		case hook.name == "apiservice-discovery-controller":
			run = s.aggregation.Discovered
		case hook.written:
			run = written
		}
		out = append(out, check{"poststarthook/" + hook.name, run, true, true})
	}
	var more []string
	for name := range s.cfg.Readiness {
		if name != bootstrapRoles {
			more = append(more, name)
		}
	}
	slices.Sort(more)
	for _, name := range more {
		out = append(out, check{name, s.cfg.Readiness[name], false, true})
	}
	return append(out, check{"shutdown", func(context.Context) error {
		select {
		case <-s.stopping:
			return errors.New("process is shutting down")
		default:
			return nil
		}
	}, false, true})
}

// healthPath splits a path of the health checks: the root, and which check is asked for, "" for all.
func healthPath(path string) (root, name string, ok bool) {
	for _, root := range []string{"healthz", "livez", "readyz"} {
		if rest, found := strings.CutPrefix(path, "/"+root); found && (rest == "" || rest[0] == '/') {
			return root, strings.Trim(rest, "/"), true
		}
	}
	return "", "", false
}

func (s *Server) checksOf(root string) []check {
	return slices.DeleteFunc(s.healthChecks(), func(c check) bool {
		if root == "readyz" {
			return !c.ready
		}
		return !c.live
	})
}

// probe runs a check and counts its outcome.
func (s *Server) probe(ctx context.Context, root string, c check) error {
	err := c.run(ctx)
	status := "success"
	if err != nil {
		status = "error"
	}
	s.metrics.healthchecks.WithLabelValues(c.name, root, status).Inc()
	return err
}

const plainText = "text/plain; charset=utf-8"

func (s *Server) health(x *exchange, root, name string) error {
	checks := s.checksOf(root)
	if name != "" {
		for _, c := range checks {
			if c.name != name {
				continue
			}
			if err := s.probe(x.r.Context(), root, c); err != nil {
				x.w.Header().Set("X-Content-Type-Options", "nosniff")
				return x.send(http.StatusInternalServerError, plainText, fmt.Appendf(nil, "internal server error: %v\n", err))
			}
			return x.send(http.StatusOK, plainText, []byte("ok"))
		}
		return x.notFound()
	}
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	// A value may name several checks, separated by commas.
	var excluded, unknown []string
	for _, v := range x.q()["exclude"] {
		for n := range strings.SplitSeq(v, ",") {
			excluded = append(excluded, n)
			if !slices.ContainsFunc(checks, func(c check) bool { return c.name == n }) {
				unknown = append(unknown, fmt.Sprintf("%q", n))
			}
		}
	}
	var out strings.Builder
	var failed []string
	for _, c := range checks {
		switch {
		case slices.Contains(excluded, c.name):
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.name)
		case s.probe(x.r.Context(), root, c) != nil:
			failed = append(failed, c.name)
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.name)
		default:
			fmt.Fprintf(&out, "[+]%s ok\n", c.name)
		}
	}
	if len(unknown) > 0 {
		fmt.Fprintf(&out, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(unknown, ","))
	}
	switch {
	case len(failed) > 0:
		s.cfg.Log.Warn("health checks fail", "path", "/"+root, "checks", failed)
		fmt.Fprintf(&out, "%s check failed\n", root)
		return x.send(http.StatusInternalServerError, plainText, []byte(out.String()))
	case x.q().Has("verbose"):
		fmt.Fprintf(&out, "%s check passed\n", root)
		return x.send(http.StatusOK, plainText, []byte(out.String()))
	}
	return x.send(http.StatusOK, plainText, []byte("ok"))
}

// slis serves the outcome of every health check as metrics, for who computes the control plane's availability.
func (s *Server) slis(x *exchange) error {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubernetes_healthcheck",
		Help: "This metric records the result of a single healthcheck."}, []string{"name", "type"})
	for _, root := range []string{"healthz", "livez", "readyz"} {
		for _, c := range s.checksOf(root) {
			v := 1.0
			if s.probe(x.r.Context(), root, c) != nil {
				v = 0
			}
			g.WithLabelValues(c.name, root).Set(v)
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(g, s.metrics.healthchecks)
	return s.foreign(x, promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
}

// foreign lets a plain handler answer.
func (s *Server) foreign(x *exchange, h http.Handler) error {
	rec := &recorder{ResponseWriter: x.w}
	h.ServeHTTP(rec, x.r)
	if x.code = rec.code; x.code == 0 {
		x.code = http.StatusOK
	}
	x.size = rec.size
	return nil
}
