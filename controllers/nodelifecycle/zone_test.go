package nodelifecycle

import (
	"testing"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
)

func TestPaceOfAZone(t *testing.T) {
	cfg := Config{}.withDefaults()
	for name, c := range map[string]struct {
		ready, unready int
		want           float64
	}{
		"all well":                      {10, 0, 0.1},
		"one of many":                   {9, 1, 0.1},
		"two of two":                    {0, 2, 0.1},
		"two of three are too few":      {1, 2, 0.1},
		"most of a small zone":          {4, 6, 0},
		"most of a large zone":          {30, 60, 0.01},
		"a whole zone, others are well": {0, 60, 0.1},
	} {
		if got := cfg.Pace(StateOf(c.ready, c.unready, cfg.Unhealthy), c.ready+c.unready); got != c.want {
			t.Errorf("%s: %v nodes a second, want %v", name, got, c.want)
		}
	}
}

func TestNodesTakeTurns(t *testing.T) {
	z := &zones{cfg: Config{}.withDefaults(), limiters: map[string]*rate.Limiter{}}
	if ok, _ := z.turn("a", 0.1, now); !ok {
		t.Fatal("the first node must wait")
	}
	ok, wait := z.turn("a", 0.1, now)
	if ok || wait != 10*time.Second {
		t.Errorf("the second one: %v, in %v, want 10 s", ok, wait)
	}
	if ok, _ := z.turn("b", 0.1, now); !ok {
		t.Error("a zone waits for another")
	}
	if ok, wait := z.turn("a", 0, now.Add(time.Hour)); ok || wait != 0 {
		t.Errorf("in a disrupted zone: %v, in %v", ok, wait)
	}
	if ok, _ := z.turn("a", 0.1, now.Add(2*time.Hour)); !ok {
		t.Error("nothing happens after the disruption")
	}
}

func TestEvictedNodeNeedsNoTurn(t *testing.T) {
	asked := 0
	in := Input{Node: nodeWith(corev1.ConditionUnknown, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}), Heard: now, Grace: time.Minute, Now: now,
		Turn: func() (bool, time.Duration) { asked++; return false, time.Second }}
	if _, again := Plan(in); asked != 0 || again != time.Minute {
		t.Errorf("asked %d times for a node that is evicted already, again in %v", asked, again)
	}
	in.Node = nodeWith(corev1.ConditionUnknown)
	if _, again := Plan(in); asked != 1 || again != time.Second {
		t.Errorf("asked %d times, again in %v, want its turn in a second", asked, again)
	}
}
