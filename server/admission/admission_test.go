package admission

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skiff-sh/skiff/api"
)

// gate is a plugin that admits everything and refuses what is named "bad".
type gate struct{ name string }

func (g gate) Name() string                                   { return g.name }
func (gate) Handles(op Operation, _ *api.Kind, _ string) bool { return op != Connect }
func (gate) Admit(context.Context, *Request) error            { return nil }
func (gate) Validate(_ context.Context, r *Request) error {
	if r.Name == "bad" {
		return errors.New("bad")
	}
	return nil
}

func TestChainIsMeasured(t *testing.T) {
	r := prometheus.NewRegistry()
	c := NewChain(r, gate{"A"}, gate{"B"})
	for _, q := range []*Request{{Operation: Create}, {Operation: Create, Name: "bad"}, {Operation: Connect}, {Operation: Delete}} {
		if err := c.Admit(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(t.Context(), q); (err != nil) != (q.Name == "bad") {
			t.Fatal(err)
		}
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			got[strings.TrimSuffix(strings.TrimPrefix(f.GetName(), "apiserver_admission_"), "_admission_duration_seconds")+" "+strings.Join(labels, " ")] = m.Histogram.GetSampleCount()
		}
	}
	for series, want := range map[string]uint64{ // the labels come sorted by their names: name, operation, rejected, type
		"step CREATE false admit": 2, "step CREATE false validate": 1, "step CREATE true validate": 1, "step CONNECT false admit": 1, "step DELETE false validate": 1,
		"controller A CREATE false admit": 2, "controller B CREATE false admit": 2, "controller A CREATE false validate": 1,
		"controller A CREATE true validate": 1, "controller B CREATE false validate": 1, "controller B CREATE true validate": 0, "controller A CONNECT false admit": 0,
	} {
		if got[series] != want {
			t.Errorf("%s: %d, want %d", series, got[series], want)
		}
	}
}

func BenchmarkMeasuredChain(b *testing.B) {
	var plugins []Plugin
	for range 28 {
		plugins = append(plugins, gate{"A"})
	}
	c := NewChain(prometheus.NewRegistry(), plugins...)
	q := &Request{Operation: Create}
	for b.Loop() {
		_ = c.Admit(context.Background(), q)
		_ = c.Validate(context.Background(), q)
	}
}
