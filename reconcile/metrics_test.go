package reconcile

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestQueueMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, q := NewMetrics(), newQueue()
		q.metrics = m.of("test", q)
		a, b := Key{Name: "a"}, Key{Name: "b"}
		q.add(a)
		q.add(a) // already due
		q.add(b)
		time.Sleep(time.Second)
		q.next()
		time.Sleep(2 * time.Second)
		want := map[string]float64{"workqueue_adds_total": 2, "workqueue_depth": 1, "workqueue_unfinished_work_seconds": 2, "workqueue_queue_duration_seconds": 1}
		for name, v := range gathered(t, m) {
			if w, ok := want[name]; ok && v != w {
				t.Errorf("%s is %v, want %v", name, v, w)
			}
			delete(want, name)
		}
		if len(want) > 0 {
			t.Errorf("missing: %v", want)
		}
		q.done(a, true, Result{})
		q.next()
		time.Sleep(time.Second)
		if got := gathered(t, m)["workqueue_retries_total"]; got != 1 {
			t.Errorf("%v retries", got)
		}
		if depth, sum, longest := q.load(); depth != 1 || sum != time.Second || longest != time.Second {
			t.Errorf("%d due, %v, %v", depth, sum, longest)
		}
		q.close()
	})
}

// gathered is each metric's value, a histogram's sum.
func gathered(t *testing.T, m *Metrics) map[string]float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, one := range f.Metric {
			out[f.GetName()] = one.GetCounter().GetValue() + one.GetGauge().GetValue() + one.GetHistogram().GetSampleSum()
		}
	}
	return out
}

// A key that rests is visited once for all that happens meanwhile, and not before.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, start := newQueue(), time.Now()
		k := Key{Name: "a"}
		q.add(k)
		q.next()
		q.done(k, false, Result{Rest: time.Second, After: time.Minute})
		q.add(k)
		q.add(k)
		q.next()
		if got := time.Since(start); got != time.Second {
			t.Errorf("visited after %v", got)
		}
		q.done(k, false, Result{Rest: time.Minute, After: time.Second})
		q.next()
		if got := time.Since(start); got != time.Minute+time.Second+1 {
			t.Errorf("visited after %v, it was to rest", got)
		}
		q.close()
	})
}
