package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the server's own, in a registry of its own.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	handler  http.Handler
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, group, version, resource, subresource and HTTP response code."},
			[]string{"verb", "group", "version", "resource", "subresource", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, group and resource; watches and streams are left out.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60}}, []string{"verb", "group", "resource"}),
	}
	m.registry.MustRegister(m.requests, m.latency, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

func (m *metrics) observe(x *exchange, d time.Duration) {
	i := x.info
	verb, resource, sub := i.Verb, i.Resource, i.Subresource
	if i.Kind == nil { // names that clients made up are no labels
		resource, sub = "", ""
	}
	code := x.code
	if code == 0 {
		code = http.StatusOK
	}
	switch verb {
	case "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "post", "put":
	default:
		verb = "other"
	}
	group, version := i.Group, i.Version
	if i.Kind == nil {
		group, version = "", ""
	} else if _, ok := i.Kind.Subresource(sub); !ok {
		sub = ""
	}
	m.requests.WithLabelValues(verb, group, version, resource, sub, strconv.Itoa(code)).Inc()
	if !x.longRunning() {
		m.latency.WithLabelValues(verb, group, resource).Observe(d.Seconds())
	}
}
