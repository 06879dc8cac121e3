package scheduler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are upstream's, by their names; scrapers and alerts know them.
type Metrics struct {
	attempts  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	algorithm prometheus.Histogram
	sli       *prometheus.HistogramVec
	podTries  prometheus.Histogram
	pending   *prometheus.GaugeVec
	preempted prometheus.Counter
	victims   prometheus.Histogram
	sizes     *prometheus.GaugeVec
}

// NewMetrics makes metrics that nobody collects yet; Collectors offers them.
func NewMetrics() *Metrics {
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	return &Metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total",
			Help: "Attempts to schedule pods, by the result: scheduled, unschedulable, error."}, []string{"profile", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds",
			Help: "How long attempts took, decision and binding.", Buckets: seconds}, []string{"profile", "result"}),
		algorithm: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_scheduling_algorithm_duration_seconds",
			Help: "How long decisions took.", Buckets: prometheus.ExponentialBuckets(0.00001, 2, 20)}),
		sli: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds",
			Help: "From a pod's coming into the queue to its binding.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20)}, []string{"attempts"}),
		podTries: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_attempts",
			Help: "Attempts until a pod was bound.", Buckets: prometheus.ExponentialBuckets(1, 2, 5)}),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_pending_pods",
			Help: "Pods without a node, by where they wait: active, backoff, unschedulable, gated."}, []string{"queue"}),
		preempted: prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total", Help: "Attempts to preempt."}),
		victims: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims",
			Help: "Victims of each preemption.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
		sizes: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_cache_size",
			Help: "What is known: nodes, pods, and those assumed to be bound."}, []string{"type"}),
	}
}

// Collectors are what a registry takes.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.duration, m.algorithm, m.sli, m.podTries, m.pending, m.preempted, m.victims, m.sizes}
}

// tried counts an attempt that took so long.
func (m *Metrics) tried(profile, result string, took time.Duration) {
	m.attempts.WithLabelValues(profile, result).Inc()
	m.duration.WithLabelValues(profile, result).Observe(took.Seconds())
}

// look takes the sizes of queue and cache.
func (m *Metrics) look(s *Scheduler) {
	m.pending.WithLabelValues("active").Set(float64(len(s.queue.ready.list)))
	m.pending.WithLabelValues("backoff").Set(float64(len(s.queue.backoff.list)))
	m.pending.WithLabelValues("unschedulable").Set(float64(len(s.queue.parked.list)))
	m.pending.WithLabelValues("gated").Set(float64(len(s.gated)))
	m.sizes.WithLabelValues("nodes").Set(float64(s.cluster.Nodes()))
	m.sizes.WithLabelValues("pods").Set(float64(s.cluster.Pods()))
	m.sizes.WithLabelValues("assumed_pods").Set(float64(len(s.assumed)))
}
