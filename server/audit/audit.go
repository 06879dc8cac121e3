package audit

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	internal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Config is what an Auditor needs.
type Config struct {
	// Policy says what is told of which request; see ReadPolicy.
	Policy *internal.Policy
	// File and Webhook are where events go: one of them at least.
	File    *FileConfig
	Webhook *WebhookConfig
	Log     *slog.Logger
}

// backend takes events. They are not changed after.
type backend interface {
	name() string
	write(*auditv1.Event) error
	// run works until ctx ends, and then hands over what it still has.
	run(ctx context.Context)
}

// Auditor writes audit events.
type Auditor struct {
	cfg      Config
	backends []backend

	events prometheus.Counter
	levels *prometheus.CounterVec
	errors *prometheus.CounterVec
}

// New opens the back ends.
func New(cfg Config) (*Auditor, error) {
	switch {
	case cfg.Policy == nil:
		return nil, errors.New("audit: Config.Policy is missing")
	case cfg.Log == nil:
		return nil, errors.New("audit: Config.Log is missing")
	case cfg.File == nil && cfg.Webhook == nil:
		return nil, errors.New("audit: neither a file nor a webhook is given")
	}
	a := &Auditor{cfg: cfg,
		events: prometheus.NewCounter(prometheus.CounterOpts{Name: "apiserver_audit_event_total", Help: "Counter of audit events generated and sent to the audit backend."}),
		levels: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_audit_level_total", Help: "Counter of policy levels for audit events (1 per request)."}, []string{"level"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "apiserver_audit_error_total",
			Help: "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error."}, []string{"plugin"})}
	if cfg.File != nil {
		f, err := openFile(*cfg.File)
		if err != nil {
			return nil, err
		}
		a.backends = append(a.backends, f)
	}
	if cfg.Webhook != nil {
		w, err := openWebhook(*cfg.Webhook, a.lost)
		if err != nil {
			return nil, err
		}
		a.backends = append(a.backends, w)
	}
	return a, nil
}

// Run works until ctx ends, and then tells what is still untold.
func (a *Auditor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, b := range a.backends {
		wg.Go(func() { b.run(ctx) })
	}
	wg.Wait()
	return nil
}

func (a *Auditor) emit(ev *auditv1.Event) {
	a.events.Inc()
	for _, b := range a.backends {
		if err := b.write(ev); err != nil {
			a.lost(b.name(), 1, err)
		}
	}
}

// lost counts events that could not be told.
func (a *Auditor) lost(plugin string, n int, err error) {
	a.errors.WithLabelValues(plugin).Add(float64(n))
	a.cfg.Log.Error("audit events are lost", "plugin", plugin, "events", n, "err", err)
}

// Describe and Collect give the metrics under upstream's names.
func (a *Auditor) Describe(out chan<- *prometheus.Desc) {
	a.events.Describe(out)
	a.levels.Describe(out)
	a.errors.Describe(out)
}

func (a *Auditor) Collect(out chan<- prometheus.Metric) {
	a.events.Collect(out)
	a.levels.Collect(out)
	a.errors.Collect(out)
}
