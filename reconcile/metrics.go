package reconcile

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of upstream's work queues, by their names; dashboards know them. The label "name" is the queue's.
type Metrics struct {
	adds, retries  *prometheus.CounterVec
	waited, worked *prometheus.HistogramVec
	gauges         map[string]*prometheus.Desc

	mu     sync.Mutex
	queues map[string]*queue
}

// NewMetrics makes metrics that nobody collects yet: they are a prometheus.Collector.
func NewMetrics() *Metrics {
	label, buckets := []string{"name"}, prometheus.ExponentialBuckets(10e-9, 10, 12)
	m := &Metrics{queues: map[string]*queue{}, gauges: map[string]*prometheus.Desc{},
		adds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_adds_total", Help: "How often something became due."}, label),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_retries_total",
			Help: "How often something became due again after a failure, or by the clock."}, label),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_queue_duration_seconds",
			Help: "From becoming due to being worked on.", Buckets: buckets}, label),
		worked: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_work_duration_seconds", Help: "How long work took.", Buckets: buckets}, label)}
	for name, help := range map[string]string{"workqueue_depth": "What is due.", "workqueue_unfinished_work_seconds": "How long all unfinished work has been going on, added up.",
		"workqueue_longest_running_processor_seconds": "How long the longest unfinished work has been going on."} {
		m.gauges[name] = prometheus.NewDesc(name, help, label, nil)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.adds, m.retries, m.waited, m.worked} {
		c.Describe(to)
	}
	for _, d := range m.gauges {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.adds, m.retries, m.waited, m.worked} {
		c.Collect(to)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, q := range m.queues {
		depth, sum, longest := q.load()
		for gauge, v := range map[string]float64{"workqueue_depth": float64(depth), "workqueue_unfinished_work_seconds": sum.Seconds(),
			"workqueue_longest_running_processor_seconds": longest.Seconds()} {
			to <- prometheus.MustNewConstMetric(m.gauges[gauge], prometheus.GaugeValue, v, name)
		}
	}
}

// of is the metrics of one queue; nil of nil metrics. A queue of the same name, which has ended, is forgotten.
func (m *Metrics) of(name string, q *queue) *queueMetrics {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues[name] = q
	return &queueMetrics{adds: m.adds.WithLabelValues(name), retries: m.retries.WithLabelValues(name), waited: m.waited.WithLabelValues(name),
		worked: m.worked.WithLabelValues(name), since: map[Key]time.Time{}, started: map[Key]time.Time{}}
}

// queueMetrics is guarded by its queue's lock. A nil one measures nothing.
type queueMetrics struct {
	adds, retries  prometheus.Counter
	waited, worked prometheus.Observer
	since, started map[Key]time.Time
}

func (m *queueMetrics) due(k Key) {
	if m != nil {
		m.adds.Inc()
		m.since[k] = time.Now()
	}
}

func (m *queueMetrics) retry() {
	if m != nil {
		m.retries.Inc()
	}
}

func (m *queueMetrics) start(k Key) {
	if m != nil {
		now := time.Now()
		m.waited.Observe(now.Sub(m.since[k]).Seconds())
		delete(m.since, k)
		m.started[k] = now
	}
}

func (m *queueMetrics) end(k Key) {
	if m == nil {
		return
	}
	if at, ok := m.started[k]; ok { // not after a rest
		m.worked.Observe(time.Since(at).Seconds())
		delete(m.started, k)
	}
}

// load is how much is due, and how long unfinished work has been going on.
func (q *queue) load() (depth int, sum, longest time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.metrics == nil {
		return 0, 0, 0
	}
	for _, at := range q.metrics.started {
		d := time.Since(at)
		sum, longest = sum+d, max(longest, d)
	}
	return len(q.due), sum, longest
}
