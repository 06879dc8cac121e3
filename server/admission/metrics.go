package admission

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The two steps of admission, as the metrics call them.
const (
	admitStep = iota
	validateStep
)

// meter measures a chain by upstream's metrics. What it found for a plugin, a step, an operation and an outcome is kept, so
// that a request looks up no labels.
type meter struct {
	steps, plugins *prometheus.HistogramVec
	names          []string
	found          []outcomes // by plugin; the last is the whole step's
}

type outcomes [2][4][2]atomic.Pointer[prometheus.Observer]

func newMeter(r prometheus.Registerer, plugins []Plugin) *meter {
	vec := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "apiserver", Subsystem: "admission", Name: name, Help: help,
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5}}, append(labels, "type", "operation", "rejected"))
		r.MustRegister(v)
		return v
	}
	m := &meter{steps: vec("step_admission_duration_seconds", "Latency of a step of admission (validate or admit) by operation."),
		plugins: vec("controller_admission_duration_seconds", "Latency of an admission plugin by its name, the step (validate or admit) and the operation.", "name"),
		found:   make([]outcomes, len(plugins)+1)}
	for _, p := range plugins {
		m.names = append(m.names, p.Name())
	}
	return m
}

// step is one step of admission that is being measured; the zero step is not.
type step struct {
	*meter
	kind        int
	op          Operation
	begin, last time.Time
}

func (c *Chain) step(kind int, op Operation) step {
	if c.meter == nil {
		return step{}
	}
	now := time.Now()
	return step{c.meter, kind, op, now, now}
}

// plugin says that the i-th plugin has answered.
func (s *step) plugin(i int, err error) {
	if s.meter != nil {
		s.last = s.observe(i, s.last, err)
	}
}

// whole says that the step has ended.
func (s *step) whole(err error) {
	if s.meter != nil {
		s.observe(len(s.names), s.begin, err)
	}
}

// observe counts what the i-th plugin, or for the number of plugins the whole step, did since begin. It returns now.
func (s *step) observe(i int, begin time.Time, err error) time.Time {
	now := time.Now()
	rejected := 0
	if err != nil {
		rejected = 1
	}
	at := &s.found[i][s.kind][s.op.index()][rejected]
	o := at.Load()
	if o == nil {
		labels := []string{[]string{"admit", "validate"}[s.kind], string(s.op), strconv.FormatBool(err != nil)}
		var found prometheus.Observer
		if i == len(s.names) {
			found = s.steps.WithLabelValues(labels...)
		} else {
			found = s.plugins.WithLabelValues(append([]string{s.names[i]}, labels...)...)
		}
		o = &found
		at.Store(o)
	}
	(*o).Observe(now.Sub(begin).Seconds())
	return now
}

func (op Operation) index() int {
	switch op {
	case Create:
		return 0
	case Update:
		return 1
	case Delete:
		return 2
	}
	return 3
}
