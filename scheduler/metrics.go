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
	standIns  *prometheus.CounterVec
	incoming  *prometheus.CounterVec
	refusing  *prometheus.GaugeVec
	points    *prometheus.HistogramVec
	binding   *prometheus.GaugeVec
	gangs     *prometheus.CounterVec
	gangTime  *prometheus.HistogramVec
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
		standIns: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_resourceclaim_creates_total",
			Help: "Claims created for extended resources, by the result."}, []string{"status"}),
		incoming: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_queue_incoming_pods_total",
			Help: "Pods that came to one of the places where they wait, and what made them."}, []string{"event", "queue"}),
		refusing: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_unschedulable_pods",
			Help: "Pods that fit nowhere, by the rules that refuse them; a pod counts once for each."}, []string{"plugin", "profile"}),
		points: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_framework_extension_point_duration_seconds",
			Help: "How long the steps of an attempt took: Filter with Score, PostFilter, PreBind, Bind.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 12)},
			[]string{"extension_point", "profile", "status"}),
		gangs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_podgroup_schedule_attempts_total",
			Help: "Attempts to place pod groups, by the result: scheduled, unschedulable, waiting_on_preemption, error."}, []string{"profile", "result"}),
		gangTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_podgroup_scheduling_attempt_duration_seconds",
			Help: "How long attempts to place pod groups took.", Buckets: seconds}, []string{"profile", "result"}),
		binding: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_goroutines",
			Help: "Bindings that are under way or wait for a turn."}, []string{"operation"}),
	}
}

// Collectors are what a registry takes.
func (m *Metrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.attempts, m.duration, m.algorithm, m.sli, m.podTries, m.pending, m.preempted, m.victims, m.sizes, m.standIns,
		m.incoming, m.refusing, m.points, m.binding, m.gangs, m.gangTime}
}

// tried counts an attempt that took so long.
func (m *Metrics) tried(profile, result string, took time.Duration) {
	m.attempts.WithLabelValues(profile, result).Inc()
	m.duration.WithLabelValues(profile, result).Observe(took.Seconds())
}

// step notes how long a step of an attempt took.
func (m *Metrics) step(point, profile, status string, took time.Duration) {
	m.points.WithLabelValues(point, profile, status).Observe(took.Seconds())
}

// succeeded is how a step's outcome is called.
func succeeded(ok bool) string {
	if ok {
		return "Success"
	}
	return "Error"
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
	m.binding.WithLabelValues("binding").Set(float64(len(s.assumed)))
	m.refusing.Reset()
	for rule, pods := range s.queue.by {
		if len(s.profiles) == 1 {
			m.refusing.WithLabelValues(rule, s.cfg.Profiles[0].SchedulerName).Set(float64(len(pods)))
			continue
		}
		for _, it := range pods {
			m.refusing.WithLabelValues(rule, it.pod.Spec.SchedulerName).Inc()
		}
	}
}
