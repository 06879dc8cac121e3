package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/client"
)

const defaultWorkers = 4

// Options is what Run may be told. The zero value logs nothing and measures nothing.
type Options struct {
	Log     *slog.Logger
	Metrics *Metrics
}

// Run runs controllers until ctx ends, and returns when all their work has ended. Work starts when the caches of a
// controller's inputs, and all others that were asked for from the same set, have been filled; someone else runs the
// caches. The error is about the declarations; what goes wrong in a controller is logged and tried again.
func Run(ctx context.Context, o Options, controllers ...Controller) error {
	names := map[string]bool{}
	for _, c := range controllers {
		if err := c.validate(); err != nil {
			return err
		}
		if names[c.Name] {
			return fmt.Errorf("two controllers are called %q", c.Name)
		}
		names[c.Name] = true
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var wg sync.WaitGroup
	for _, c := range controllers {
		e := &engine{Controller: c, queue: newQueue(), log: o.Log.With("controller", c.Name)}
		if c.Reconcile != nil {
			e.queue.metrics = o.Metrics.of(cmp.Or(c.Queue, c.Name), e.queue)
		}
		wg.Go(func() { e.run(ctx) })
	}
	wg.Wait()
	return nil
}

func (c Controller) validate() error {
	switch {
	case c.Name == "":
		return errors.New("a controller has no name")
	case c.Reconcile == nil && c.Start == nil:
		return fmt.Errorf("controller %s does nothing", c.Name)
	case c.Reconcile != nil && len(c.Inputs) == 0:
		return fmt.Errorf("controller %s has no inputs", c.Name)
	}
	return nil
}

// engine runs one controller.
type engine struct {
	Controller
	queue *queue
	log   *slog.Logger
}

func (e *engine) run(ctx context.Context) {
	sets := map[*client.Caches]bool{}
	for _, in := range e.Inputs {
		defer in.start(e.queue.add)()
		if in.caches != nil {
			sets[in.caches] = true
		}
	}
	for cs := range sets {
		if cs.Sync(ctx) != nil { // only ctx ends it
			return
		}
	}
	stop := context.AfterFunc(ctx, e.queue.close)
	defer stop()
	var wg sync.WaitGroup
	if e.Start != nil {
		wg.Go(func() { e.keepStarted(ctx) })
	}
	if e.Reconcile != nil {
		workers := e.Workers
		if workers == 0 {
			workers = defaultWorkers
		}
		for range workers {
			wg.Go(func() { e.work(ctx) })
		}
	}
	wg.Wait()
}

// keepStarted runs Start again, with back-off, for as long as it fails.
func (e *engine) keepStarted(ctx context.Context) {
	for backoff := time.Second; ctx.Err() == nil; backoff = min(2*backoff, time.Minute) {
		err := e.caught(func() error { return e.Start(ctx) })
		if err == nil || ctx.Err() != nil {
			return
		}
		e.log.Error("the controller's loop failed", "err", err, "retry", backoff)
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
	}
}

func (e *engine) work(ctx context.Context) {
	for {
		k, ok := e.queue.next()
		if !ok {
			return
		}
		e.one(ctx, k)
	}
}

// one reconciles one key and waits until the caches include what it wrote.
func (e *engine) one(ctx context.Context, k Key) {
	ctx, w := withWrites(ctx)
	var r Result
	err := e.caught(func() (err error) {
		r, err = e.Reconcile(ctx, k)
		return err
	})
	if waitErr := w.wait(ctx); waitErr != nil && ctx.Err() == nil {
		e.log.Warn("the caches do not show the controller's own write", "key", k.String(), "err", waitErr)
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		e.log.Warn("reconcile failed", "key", k.String(), "err", err)
	}
	e.queue.done(k, err != nil, r)
}

// caught turns a panic into an error and logs its stack.
func (e *engine) caught(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.log.Error("the controller panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}
