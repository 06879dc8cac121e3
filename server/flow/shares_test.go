package flow

import (
	"math/rand/v2"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	upstream "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
)

// TestDivideDefaults compares with the seats that upstream gives its own levels, of 600.
func TestDivideDefaults(t *testing.T) {
	r := digest(upstream.SuggestedPriorityLevelConfigurations, nil)
	got := map[string]bounds{}
	for i, b := range divide(600, r.levels) {
		got[r.levels[i].name] = b
	}
	for name, want := range map[string]bounds{
		"exempt": {0, 0, 600}, "catch-all": {13, 13, 613}, "system": {74, 50, 674}, "node-high": {98, 73, 698},
		"leader-election": {25, 25, 625}, "workload-high": {98, 49, 698}, "workload-low": {245, 24, 845}, "global-default": {49, 24, 649},
	} {
		if got[name] != want {
			t.Errorf("%s: %+v, want %+v", name, got[name], want)
		}
	}
}

func TestShare(t *testing.T) {
	level := func(nominal, least, most, high int, smooth float64) claim {
		return claim{bounds: bounds{nominal, least, most}, observed: observed{high: high, smooth: smooth}}
	}
	for _, c := range []struct {
		name   string
		claims []claim
		want   []int
	}{
		{"one wants, one lends", []claim{level(50, 10, 150, 200, 200), level(50, 10, 150, 0, 0)}, []int{90, 10}},
		{"both want", []claim{level(50, 10, 150, 200, 200), level(50, 10, 150, 200, 200)}, []int{50, 50}},
		{"borrowing is bounded", []claim{level(50, 10, 60, 200, 200), level(50, 10, 150, 0, 0)}, []int{60, 40}},
		{"the exempt one takes first", []claim{{exempt: true, bounds: bounds{0, 0, 0}, observed: observed{high: 30}}, level(50, 10, 150, 60, 60), level(50, 10, 150, 0, 0)}, []int{30, 60, 10}},
	} {
		got, _ := share(c.claims)
		for i := range c.want {
			if got[i] != c.want[i] {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
				break
			}
		}
	}
}

// TestShareBounds: whatever is asked for, every level stays between its bounds, and no more is given than there is.
func TestShareBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var claims []claim
		total := 0
		for range 1 + rng.IntN(8) {
			n := rng.IntN(200)
			c := claim{bounds: bounds{nominal: n, least: n - rng.IntN(n+1), most: n + rng.IntN(300)},
				observed: observed{high: rng.IntN(400), smooth: rng.Float64() * 300}}
			total += n
			claims = append(claims, c)
		}
		limits, _ := share(claims)
		sum := 0
		for i, c := range claims {
			if limits[i] < c.least || limits[i] > c.most {
				t.Fatalf("%d is not between %d and %d: %+v", limits[i], c.least, c.most, claims)
			}
			sum += limits[i]
		}
		if sum > total+len(claims) { // each may be rounded up
			t.Fatalf("%d of %d seats given: %v of %+v", sum, total, limits, claims)
		}
	}
}

func TestDigest(t *testing.T) {
	queue := func(hand, queues int32) flowcontrolv1.PriorityLevelConfigurationSpec {
		return flowcontrolv1.PriorityLevelConfigurationSpec{Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue,
				Queuing: &flowcontrolv1.QueuingConfiguration{HandSize: hand, Queues: queues, QueueLengthLimit: 5}}}}
	}
	good, broken := &flowcontrolv1.PriorityLevelConfiguration{Spec: queue(4, 16)}, &flowcontrolv1.PriorityLevelConfiguration{Spec: queue(20, 16)}
	good.Name, broken.Name = "good", "broken"
	schema := func(name, level string, precedence int32) *flowcontrolv1.FlowSchema {
		s := &flowcontrolv1.FlowSchema{}
		s.Name, s.Spec.PriorityLevelConfiguration.Name, s.Spec.MatchingPrecedence = name, level, precedence
		return s
	}
	r := digest([]*flowcontrolv1.PriorityLevelConfiguration{broken, good},
		[]*flowcontrolv1.FlowSchema{schema("z", "good", 10), schema("b", "broken", 1), schema("a", "good", 10), schema("n", "none", 3)})
	var order []string
	for _, s := range r.schemas {
		order = append(order, s.name)
	}
	if want := []string{"exempt", "a", "z", "catch-all"}; !equal(order, want) {
		t.Errorf("schemas %q, want %q", order, want)
	}
	if !r.dangling["b"] || !r.dangling["n"] || r.dangling["a"] {
		t.Errorf("dangling: %v", r.dangling)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
