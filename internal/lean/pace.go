package lean

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// headroom is what a heap may grow by, in bytes, before its garbage is collected. Go's rule is as much as is alive, which
// for a small heap means marking it again and again.
const headroom = 64 << 20

// Pace keeps the collector to a headroom of 64 MiB until ctx ends: a heap that has more alive than that is collected as Go
// would. It leaves the pace alone where the environment sets GOGC. A process calls it once.
func Pace(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	p := &pacer{percent: 100}
	p.set(percentFor(live()))
	p.arm()
	<-ctx.Done()
	p.stop()
}

// percentFor is the GOGC that gives so many live bytes the headroom.
func percentFor(live uint64) int {
	return int(max(100, min(1000, headroom*100/max(live, 1))))
}

func live() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return headroom
	}
	return s[0].Value.Uint64()
}

// pacer hears of every collection by a piece of garbage.
type pacer struct {
	mu      sync.Mutex
	percent int
	ended   bool
}

// bait is collected by the next collection. It must not be tiny, or it would share a block with others.
type bait struct{ _ [32]byte }

func (p *pacer) arm() {
	runtime.AddCleanup(&bait{}, func(p *pacer) {
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		if !ended {
			p.set(percentFor(live()))
			p.arm()
		}
	}, p)
}

// set changes the pace where it makes a difference: it stops the world for a moment.
func (p *pacer) set(percent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := percent - p.percent; !p.ended && (d > p.percent/8 || -d > p.percent/8) {
		debug.SetGCPercent(percent)
		p.percent = percent
	}
}

func (p *pacer) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	debug.SetGCPercent(100)
}
