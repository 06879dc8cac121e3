package aggregation

import (
	"github.com/prometheus/client_golang/prometheus"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// metrics are about availability, by upstream's names.
type metrics struct {
	unavailable *prometheus.GaugeVec
	failures    *prometheus.CounterVec
}

// newMetrics registers the metrics; a nil registry keeps them to itself.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		unavailable: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "aggregator_unavailable_apiservice",
			Help: "Gauge of APIServices which are marked as unavailable broken down by APIService name."}, []string{"name"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aggregator_unavailable_apiservice_total",
			Help: "Counter of APIServices which are marked as unavailable broken down by APIService name and reason."}, []string{"name", "reason"}),
	}
	if r != nil {
		r.MustRegister(m.unavailable, m.failures)
	}
	return m
}

// state tells of an APIService's condition, and counts it where it has become unavailable.
func (m *metrics) state(name string, was *apiregistrationv1.APIServiceCondition, now apiregistrationv1.APIServiceCondition) {
	if now.Status == apiregistrationv1.ConditionTrue {
		m.unavailable.WithLabelValues(name).Set(0)
		return
	}
	m.unavailable.WithLabelValues(name).Set(1)
	if was == nil || was.Status == apiregistrationv1.ConditionTrue {
		m.failures.WithLabelValues(name, now.Reason).Inc()
	}
}

// forget drops what is told of an APIService that is gone.
func (m *metrics) forget(name string) { m.unavailable.DeleteLabelValues(name) }
