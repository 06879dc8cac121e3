package policy

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apiservercel "k8s.io/apiserver/pkg/cel"
)

// metrics count what policies found, by upstream's names.
type metrics struct {
	checks  *prometheus.CounterVec
	latency *prometheus.HistogramVec
}

// newMetrics registers the metrics of one plugin ("validating", "mutating"); a nil registry keeps them to itself.
func newMetrics(r prometheus.Registerer, plugin string) *metrics {
	subsystem, labels := plugin+"_admission_policy", []string{"policy", "policy_binding", "error_type", "enforcement_action"}
	if plugin == "mutating" {
		labels = labels[:3]
	}
	m := &metrics{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "apiserver", Subsystem: subsystem, Name: "check_total",
			Help: "Checks of admission policies by policy, binding, kind of error and the action taken."}, labels),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "apiserver", Subsystem: subsystem, Name: "check_duration_seconds",
			Help: "Latency of the expressions of admission policies.", Buckets: []float64{0.0000005, 0.001, 0.01, 0.1, 1}}, labels),
	}
	if r != nil {
		// A registry that has them already belongs to a server that was made before.
		_, _ = r.Register(m.checks), r.Register(m.latency)
	}
	return m
}

func (m *metrics) observe(d time.Duration, labels ...string) {
	m.checks.WithLabelValues(labels...).Inc()
	m.latency.WithLabelValues(labels...).Observe(d.Seconds())
}

// errorType names a failure in the words of the metric.
func errorType(err error) string {
	var ce *apiservercel.Error
	switch {
	case err == nil:
		return "no_error"
	case errors.Is(err, apiservercel.ErrOutOfBudget):
		return "out_of_budget"
	case errors.As(err, &ce) && ce.Type == apiservercel.ErrorTypeInvalid:
		return "compile_error"
	}
	return "invalid_error"
}
