package flow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/skiff-sh/skiff/api"
	internalread "github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

const (
	sharing     = 10 * time.Second // seats move between levels this often
	maintaining = time.Minute      // missing and changed objects are put right this often
)

// objects are all stored ones of a type.
func objects[T api.Object](st store.Store) (out []T) {
	prefix := internalread.Kind[T]().Prefix("")
	for e := range st.Snapshot(prefix).Scan(prefix, "") {
		if o, ok := e.Object.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// load puts the stored objects to work. Levels that are still there keep their requests; those of a level that is gone
// are served in it to the last.
func (g *Gate) load() {
	r := digest(objects[*flowcontrolv1.PriorityLevelConfiguration](g.cfg.Store), objects[*flowcontrolv1.FlowSchema](g.cfg.Store))
	g.changing.Lock()
	defer g.changing.Unlock()
	before := map[string]*guarded{}
	if p := g.plan.Load(); p != nil {
		for _, l := range p.levels {
			before[l.name] = l
		}
	}
	next := &plan{read: r}
	now := time.Since(g.start)
	levels := map[string]*guarded{}
	for i, b := range divide(g.cfg.Seats, r.levels) {
		spec := r.levels[i]
		l := before[spec.name]
		if l == nil {
			l = &guarded{level: level{limit: b.initial()}}
		}
		l.mu.Lock()
		l.bounds, l.widest = b, b.widest(spec.hand)
		tell(l.configure(now, spec, max(l.least, min(l.limit, l.most))))
		l.mu.Unlock()
		levels[spec.name] = l
		next.levels = append(next.levels, l)
	}
	for _, s := range r.schemas {
		key := [2]string{s.level, s.name}
		if g.stats[key] == nil {
			g.stats[key] = newStats(s.level, s.name)
		}
		next.schemas = append(next.schemas, &schema{schemaSpec: s, level: levels[s.level], stats: g.stats[key]})
	}
	g.plan.Store(next)
	if len(before) > 0 {
		g.share(now)
	}
}

// share moves the levels' limits to where their seats are wanted. The caller holds changing.
func (g *Gate) share(now time.Duration) {
	levels := g.plan.Load().levels
	claims := make([]claim, len(levels))
	for i, l := range levels {
		l.mu.Lock()
		l.last = l.demand.period(now)
		claims[i] = claim{exempt: l.exempt, bounds: l.bounds, observed: l.last}
		l.target = claims[i].target()
		l.mu.Unlock()
	}
	limits, fraction := share(claims)
	g.fraction = fraction
	for i, l := range levels {
		l.mu.Lock()
		tell(l.setLimit(now, limits[i]))
		l.mu.Unlock()
	}
}

// Run follows the objects, shares the seats, and maintains what every cluster has, until ctx ends.
func (g *Gate) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, k := range []*api.Kind{internalread.Kind[*flowcontrolv1.PriorityLevelConfiguration](), internalread.Kind[*flowcontrolv1.FlowSchema]()} {
		go func() {
			if err := g.follow(ctx, k.Prefix(""), changed); ctx.Err() == nil {
				cancel(fmt.Errorf("flow: watching %s: %w", k.Prefix(""), err))
			}
		}()
	}
	tick := time.NewTicker(sharing)
	defer tick.Stop()
	due := time.NewTimer(0) // for maintenance
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		case <-changed:
			g.load()
			g.tellStatus(ctx)
		case <-tick.C:
			g.changing.Lock()
			g.share(time.Since(g.start))
			g.changing.Unlock()
		case <-due.C:
			g.maintain(ctx)
			g.tellStatus(ctx)
			due.Reset(maintaining + rand.N(maintaining/10))
		}
	}
}

// follow says when something under a prefix has changed, until ctx ends or the store fails.
func (g *Gate) follow(ctx context.Context, prefix string, changed chan<- struct{}) error {
	news := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for {
		w, err := g.cfg.Store.Watch(ctx, prefix, 0)
		if err != nil {
			return err
		}
		news() // what has changed until the watch began
		for err == nil {
			if _, _, err = w.Next(ctx); err == nil {
				news()
			}
		}
		w.Close()
		if ctx.Err() != nil || !errors.Is(err, store.ErrCompacted) {
			return err
		}
		select { // events come faster than they are read: let the burst pass
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
