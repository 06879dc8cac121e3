package webhook

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/server/admission"
)

// metrics count calls, by upstream's names.
type metrics struct {
	latency  *prometheus.HistogramVec
	requests *prometheus.CounterVec
	refused  *prometheus.CounterVec
	open     *prometheus.CounterVec
}

// newMetrics registers the metrics, or finds them: both plugins share them. A nil registry keeps them to itself.
func newMetrics(r prometheus.Registerer) *metrics {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "apiserver", Subsystem: "admission", Name: name, Help: help}
	}
	return &metrics{
		latency: shared(r, prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "apiserver", Subsystem: "admission",
			Name: "webhook_admission_duration_seconds", Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25},
			Help: "Latency of admission webhooks by name, type (validating or admit) and operation."},
			[]string{"name", "type", "operation", "rejected"})),
		requests: shared(r, prometheus.NewCounterVec(opts("webhook_request_total",
			"Requests to admission webhooks by name, type, operation, HTTP status code and whether the request was rejected."),
			[]string{"name", "type", "operation", "code", "rejected"})),
		refused: shared(r, prometheus.NewCounterVec(opts("webhook_rejection_count",
			"Rejections by admission webhooks by name, type, operation, kind of error and status code."),
			[]string{"name", "type", "operation", "error_type", "rejection_code"})),
		open: shared(r, prometheus.NewCounterVec(opts("webhook_fail_open_count",
			"Failures of admission webhooks that were ignored, by name and type."), []string{"name", "type"})),
	}
}

func shared[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &already) {
		if there, ok := already.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}

// observe counts one call and what came of it; ignored says that a failure was forgiven.
func (m *metrics) observe(h *hook, op admission.Operation, d time.Duration, err error, ignored bool) {
	kind := "admit"
	if h.rejectsPatch {
		kind = "validating"
	}
	code := http.StatusOK
	var failed *callError
	var status apierrors.APIStatus
	broken := errors.As(err, &failed)
	if err != nil {
		code = http.StatusInternalServerError
		if errors.As(err, &status) {
			code = min(int(status.Status().Code), 600)
		}
	}
	rejected := strconv.FormatBool(err != nil && !ignored)
	m.latency.WithLabelValues(h.name, kind, string(op), rejected).Observe(d.Seconds())
	m.requests.WithLabelValues(h.name, kind, string(op), strconv.Itoa(code), rejected).Inc()
	switch {
	case ignored:
		m.open.WithLabelValues(h.name, kind).Inc()
		m.refused.WithLabelValues(h.name, kind, string(op), "calling_webhook_error", "0").Inc()
	case broken:
		m.refused.WithLabelValues(h.name, kind, string(op), "calling_webhook_error", "0").Inc()
	case err != nil:
		m.refused.WithLabelValues(h.name, kind, string(op), "no_error", strconv.Itoa(code)).Inc()
	}
}
