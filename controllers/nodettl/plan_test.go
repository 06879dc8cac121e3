package nodettl

import "testing"

func TestStepsOverlap(t *testing.T) {
	at := 0
	for _, c := range []struct{ nodes, seconds int }{{1, 0}, {100, 0}, {101, 15}, {95, 15}, {89, 0}, {3000, 300}, {1801, 300}, {1700, 60}, {460, 30}, {0, 0}} {
		if at = Step(at, c.nodes); steps[at].seconds != c.seconds {
			t.Errorf("%d nodes: %d s, want %d", c.nodes, steps[at].seconds, c.seconds)
		}
	}
}
