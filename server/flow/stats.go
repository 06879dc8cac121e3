package flow

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// stats counts what became of the requests of one schema at one level. They outlive changes of both.
type stats struct {
	dispatched, executing, seats      atomic.Int64
	inQueue, seatsInQueue             atomic.Int64
	noSeat, queueFull, tooLate        atomic.Int64
	execution, waitServed, waitInVain prometheus.Histogram
}

// seconds are upstream's buckets for waiting and execution.
var seconds = []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30}

func newStats(level, schema string) *stats {
	histogram := func(name, help string, label, value string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: seconds,
			ConstLabels: prometheus.Labels{"priority_level": level, "flow_schema": schema, label: value}})
	}
	const waiting = "Length of time a request spent waiting in its queue"
	return &stats{
		execution: histogram("request_execution_seconds", "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
			"type", "regular"),
		waitServed: histogram("request_wait_duration_seconds", waiting, "execute", "true"),
		waitInVain: histogram("request_wait_duration_seconds", waiting, "execute", "false"),
	}
}

func (s *stats) begin(seats int) {
	s.dispatched.Add(1)
	s.executing.Add(1)
	s.seats.Add(int64(seats))
}

func (s *stats) end(seats int, took time.Duration) {
	s.executing.Add(-1)
	s.seats.Add(int64(-seats))
	s.execution.Observe(took.Seconds())
}

func (s *stats) queue(requests, seats int) {
	s.inQueue.Add(int64(requests))
	s.seatsInQueue.Add(int64(seats))
}

func (s *stats) waited(d time.Duration, served bool) {
	if served {
		s.waitServed.Observe(d.Seconds())
	} else {
		s.waitInVain.Observe(d.Seconds())
	}
}

func (s *stats) reject(why verdict) {
	switch why {
	case noSeat:
		s.noSeat.Add(1)
	case queueFull:
		s.queueFull.Add(1)
	case tooLate:
		s.tooLate.Add(1)
	}
}

const prefix = "apiserver_flowcontrol_"

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

var (
	perFlow  = []string{"priority_level", "flow_schema"}
	perLevel = []string{"priority_level"}

	dispatchedDesc     = gauge("dispatched_requests_total", "Number of requests executed by API Priority and Fairness subsystem", perFlow...)
	rejectedDesc       = gauge("rejected_requests_total", "Number of requests rejected by API Priority and Fairness subsystem", append(perFlow[:2:2], "reason")...)
	executingDesc      = gauge("current_executing_requests", "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem", perFlow...)
	executingSeatsDesc = gauge("current_executing_seats", "Concurrency (number of seats) occupied by the currently executing requests in the API Priority and Fairness subsystem", perFlow...)
	inQueueDesc        = gauge("current_inqueue_requests", "Number of requests currently pending in queues of the API Priority and Fairness subsystem", perFlow...)
	inQueueSeatsDesc   = gauge("current_inqueue_seats", "Number of seats currently pending in queues of the API Priority and Fairness subsystem", perFlow...)
	nominalDesc        = gauge("nominal_limit_seats", "Nominal number of execution seats configured for each priority level", perLevel...)
	lowerDesc          = gauge("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level", perLevel...)
	upperDesc          = gauge("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level", perLevel...)
	currentDesc        = gauge("current_limit_seats", "current derived number of execution seats available to each priority level", perLevel...)
	highDesc           = gauge("demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats", perLevel...)
	averageDesc        = gauge("demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats", perLevel...)
	deviationDesc      = gauge("demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats", perLevel...)
	smoothedDesc       = gauge("demand_seats_smoothed", "Smoothed seat demands", perLevel...)
	targetDesc         = gauge("target_seats", "Seat allocation targets", perLevel...)
	fractionDesc       = gauge("seat_fair_frac", "Fair fraction of server's concurrency to allocate to each priority level that can use it")
)

// Describe says nothing: the series come and go with the objects.
func (g *Gate) Describe(chan<- *prometheus.Desc) {}

// Collect gives the gate's metrics, under upstream's names.
func (g *Gate) Collect(out chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	g.changing.Lock()
	defer g.changing.Unlock()
	for key, s := range g.stats {
		level, schema := key[0], key[1]
		put(dispatchedDesc, prometheus.CounterValue, float64(s.dispatched.Load()), level, schema)
		for _, r := range []struct {
			why verdict
			n   int64
		}{{noSeat, s.noSeat.Load()}, {queueFull, s.queueFull.Load()}, {tooLate, s.tooLate.Load()}} {
			if r.n > 0 {
				put(rejectedDesc, prometheus.CounterValue, float64(r.n), level, schema, string(r.why))
			}
		}
		put(executingDesc, prometheus.GaugeValue, float64(s.executing.Load()), level, schema)
		put(executingSeatsDesc, prometheus.GaugeValue, float64(s.seats.Load()), level, schema)
		put(inQueueDesc, prometheus.GaugeValue, float64(s.inQueue.Load()), level, schema)
		put(inQueueSeatsDesc, prometheus.GaugeValue, float64(s.seatsInQueue.Load()), level, schema)
		s.execution.Collect(out)
		s.waitServed.Collect(out)
		s.waitInVain.Collect(out)
	}
	for _, l := range g.plan.Load().levels {
		l.mu.Lock()
		name, b, limit, last, target := l.name, l.bounds, l.limit, l.last, l.target
		l.mu.Unlock()
		put(nominalDesc, prometheus.GaugeValue, float64(b.nominal), name)
		put(lowerDesc, prometheus.GaugeValue, float64(b.least), name)
		put(upperDesc, prometheus.GaugeValue, float64(b.most), name)
		put(currentDesc, prometheus.GaugeValue, float64(limit), name)
		put(highDesc, prometheus.GaugeValue, float64(last.high), name)
		put(averageDesc, prometheus.GaugeValue, last.average, name)
		put(deviationDesc, prometheus.GaugeValue, last.deviation, name)
		put(smoothedDesc, prometheus.GaugeValue, last.smooth, name)
		put(targetDesc, prometheus.GaugeValue, target, name)
	}
	put(fractionDesc, prometheus.GaugeValue, g.fraction)
}
