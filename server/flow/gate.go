package flow

import (
	"context"
	"errors"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

// Config is what a Gate needs.
type Config struct {
	// Seats is how many requests of limited levels are served at once: --max-requests-inflight and
	// --max-mutating-requests-inflight together.
	Seats int
	// Wait bounds how long a request without a deadline waits in its queue. Others wait a quarter of the time that they have.
	Wait time.Duration
	// Store has the objects, and how many objects of a kind there are: a list takes a seat for every hundred.
	Store store.Store
	// Client writes the objects that every cluster has, and the schemas' status; nil writes nothing.
	Client Client
	Log    *slog.Logger
}

// Gate is what every request passes before its verb runs.
type Gate struct {
	cfg   Config
	start time.Time
	plan  atomic.Pointer[plan]

	changing sync.Mutex // held while the plan changes
	stats    map[[2]string]*stats
	fraction float64 // of the last sharing of seats; guarded by changing
}

// plan is the objects at work. It never changes; its levels do.
type plan struct {
	read
	schemas []*schema
	levels  []*guarded
}

// schema is a FlowSchema at work.
type schema struct {
	schemaSpec
	level *guarded
	stats *stats
}

// guarded is a level and its lock.
type guarded struct {
	mu sync.Mutex
	level
	bounds
	widest int      // seats of one request
	last   observed // demand of the last period
	target float64
	pressure
}

// New makes a gate of what the store knows now. Run keeps it up to date.
func New(cfg Config) *Gate {
	g := &Gate{cfg: cfg, start: time.Now(), stats: map[[2]string]*stats{}}
	g.load()
	return g
}

// Request is a request at the gate.
type Request struct {
	*request.Info
	// Limit is how many objects of a list are asked for at most; 0 is all.
	Limit int64
	// Initial says that a watch begins with what there is.
	Initial bool
}

// Ticket is a request's right to be served, or what is known of one that was turned away.
type Ticket struct {
	// RetryAfter is when a rejected request may come again, in seconds.
	RetryAfter int
	// Waited is how long the request was in a queue.
	Waited time.Duration

	g      *Gate
	schema *schema
	waiter *waiter
	seats  int
	began  time.Duration
}

// ErrRejected is the answer for a request that must try again later.
var ErrRejected = errors.New("Too many requests, please try again later.") //lint:ignore ST1005 upstream's text

// Enter waits until the request may be served; Done must then be called once. The error is ErrRejected. UIDs tells who
// decided in both cases.
func (g *Gate) Enter(ctx context.Context, r Request) (Ticket, error) {
	s := g.classify(r.Info)
	l := s.level
	seats := g.width(r, l)
	now := time.Since(g.start)
	t := Ticket{g: g, schema: s, seats: seats, began: now}
	l.mu.Lock()
	if l.take(now, seats) {
		l.mu.Unlock()
		s.stats.begin(seats)
		return t, nil
	}
	w, why := l.enqueue(now, seats, s.flow(r.Info))
	if why == queued {
		tell(l.dispatch(now)) // the queue's turn may be now, if only a wide one's place is not free
	} else {
		t.RetryAfter = l.pressure.drop(now)
	}
	l.mu.Unlock()
	if why != queued {
		s.stats.reject(why)
		return t, ErrRejected
	}
	t.waiter = w
	return t, g.wait(ctx, &t)
}

// wait waits in the queue.
func (g *Gate) wait(ctx context.Context, t *Ticket) error {
	s, l := t.schema, t.schema.level
	s.stats.queue(1, t.seats)
	limit := g.cfg.Wait
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d) / 4
	}
	timer := time.NewTimer(min(limit, time.Minute))
	defer timer.Stop()
	select {
	case <-t.waiter.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	now := time.Since(g.start)
	l.mu.Lock()
	next, left := l.abandon(now, t.waiter)
	tell(next)
	if left {
		t.RetryAfter = l.pressure.drop(now)
	}
	l.mu.Unlock()
	s.stats.queue(-1, -t.seats)
	t.Waited = now - t.began
	s.stats.waited(t.Waited, !left)
	if left {
		s.stats.reject(tooLate)
		return ErrRejected
	}
	s.stats.begin(t.seats)
	return nil
}

// tell wakes the requests that are served now. The caller holds the level's lock.
func tell(served []*waiter) {
	for _, w := range served {
		close(w.ready)
	}
}

// Done gives the seats back.
func (t *Ticket) Done() {
	if t.g == nil {
		return
	}
	now := time.Since(t.g.start)
	l := t.schema.level
	l.mu.Lock()
	tell(l.finish(now, t.seats, t.waiter))
	l.mu.Unlock()
	began := t.began
	if t.waiter != nil {
		began = t.waiter.since
	}
	t.schema.stats.end(t.seats, now-began)
	t.g = nil
}

// UIDs are the values of the headers that name the FlowSchema and the PriorityLevelConfiguration. They are shared.
func (t *Ticket) UIDs() (flowSchema, priorityLevel []string) {
	return t.schema.uid, t.schema.level.uid
}

func (g *Gate) classify(i *request.Info) *schema {
	p := g.plan.Load()
	for _, s := range p.schemas {
		if s.matches(i) {
			return s
		}
	}
	for _, s := range p.schemas {
		if s.name == flowcontrolv1.FlowSchemaNameCatchAll {
			return s
		}
	}
	return p.schemas[len(p.schemas)-1]
}

// flow tells the flows of a schema apart.
func (s *schema) flow(i *request.Info) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s.name))
	h.Write([]byte{0})
	switch s.by {
	case flowcontrolv1.FlowDistinguisherMethodByUserType:
		h.Write([]byte(i.User.GetName()))
	case flowcontrolv1.FlowDistinguisherMethodByNamespaceType:
		h.Write([]byte(i.Namespace))
	}
	// FNV's upper bits are weak for short texts, and a hand needs sixty good ones.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

const (
	objectsPerSeat = 100
	widestRequest  = 10 // seats
)

// width is how many seats a request takes: lists, and watches that begin with one, as many as they have to write.
func (g *Gate) width(r Request, l *guarded) int {
	if r.Verb != "list" && (r.Verb != "watch" || !r.Initial) || r.Name != "" || r.Kind == nil || r.Kind.StoragePath == "" || l.exempt {
		return 1
	}
	n := g.count(r.Kind)
	if r.Limit > 0 {
		n = min(n, int(r.Limit))
	}
	return max(1, min((n+objectsPerSeat-1)/objectsPerSeat, widestRequest, l.widest))
}

func (g *Gate) count(k *api.Kind) int {
	prefix := k.Prefix("")
	return g.cfg.Store.Snapshot(prefix).Len(prefix)
}
