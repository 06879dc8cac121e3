package etcd

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// metrics are about etcd as the store sees it, by upstream's names.
type metrics struct {
	latency *prometheus.HistogramVec
	errors  *prometheus.CounterVec
}

func newMetrics() metrics {
	labels := []string{"operation", "group", "resource"}
	return metrics{
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "etcd_request_duration_seconds",
			Help:    "Etcd request latency in seconds for each operation and object type.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}}, labels),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "etcd_request_errors_total",
			Help: "Etcd failed request counts for each operation and object type."}, labels),
	}
}

// operations are what etcd is asked for.
type operation int

const (
	opCreate operation = iota
	opUpdate
	opDelete
	opList
	operations
)

var operationNames = [operations]string{"create", "update", "delete", "list"}

// timing is where the operations of one kind are observed.
type timing [operations]struct {
	latency prometheus.Observer
	errors  prometheus.Counter
}

// timing makes the series of a prefix. A codec that knows its resource names it; else the prefix does.
func (m *metrics) timing(prefix string, codec any) *timing {
	gr := schema.GroupResource{Resource: strings.Trim(strings.TrimPrefix(prefix, root), "/")}
	if c, ok := codec.(interface{ GroupResource() schema.GroupResource }); ok {
		gr = c.GroupResource()
	}
	var t timing
	for op, name := range operationNames {
		t[op].latency = m.latency.WithLabelValues(name, gr.Group, gr.Resource)
		t[op].errors = m.errors.WithLabelValues(name, gr.Group, gr.Resource)
	}
	return &t
}

func (t *timing) observe(op operation, start time.Time, err error) {
	t[op].latency.Observe(time.Since(start).Seconds())
	if err != nil {
		t[op].errors.Inc()
	}
}

var sizeDesc = prometheus.NewDesc("apiserver_storage_size_bytes", "Size of the storage database file physically allocated in bytes.",
	[]string{"storage_cluster_id"}, nil)

// Describe and Collect give the store's metrics.
func (s *Store) Describe(out chan<- *prometheus.Desc) {
	s.metrics.latency.Describe(out)
	s.metrics.errors.Describe(out)
	out <- sizeDesc
}

func (s *Store) Collect(out chan<- prometheus.Metric) {
	s.metrics.latency.Collect(out)
	s.metrics.errors.Collect(out)
	if s.member != nil {
		out <- prometheus.MustNewConstMetric(sizeDesc, prometheus.GaugeValue, float64(s.member.etcd.Server.Backend().Size()), "etcd-0")
	}
}
