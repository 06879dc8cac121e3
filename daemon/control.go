package daemon

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler"
)

// ControllerManager is the controllers of a cluster, running where they lead.
type ControllerManager struct {
	// As gives the client of one controller, by the name of its service account in kube-system; Reader is whose reads
	// fill the caches that they share.
	As     func(account string) client.Interface
	Reader client.Interface
	Config controllers.Config
	Leader *reconcile.Leader // nil: there is no other
	// Metrics measure the controllers' queues; nil: nobody asks.
	Metrics *reconcile.Metrics
	Log     *slog.Logger
}

// Run reconciles until ctx ends. Where the leadership is lost everything is stopped, and started anew when it comes back.
func (m *ControllerManager) Run(ctx context.Context) error {
	if err := m.Config.Validate(); err != nil {
		return err
	}
	return lead(ctx, m.Leader, func(ctx context.Context) error {
		caches := client.NewCaches(m.Reader, m.Log)
		all := controllers.All(func(account string) reconcile.Deps {
			c := m.Reader
			if account != controllers.Manager {
				c = m.As(account)
			}
			return reconcile.NewDeps(account, c, caches, clock.RealClock{}, m.Log)
		}, m.Config)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return named("caches", caches.Run(ctx)) })
		g.Go(func() error {
			return named("controllers", reconcile.Run(ctx, reconcile.Options{Log: m.Log, Metrics: m.Metrics}, all...))
		})
		return g.Wait()
	})
}

// Scheduler is the scheduler of a cluster, running where it leads.
type Scheduler struct {
	Client client.Interface
	Config scheduler.Config // but for its Deps
	Leader *reconcile.Leader
	Log    *slog.Logger
}

// Run schedules until ctx ends, as ControllerManager.Run.
func (s *Scheduler) Run(ctx context.Context) error {
	return lead(ctx, s.Leader, func(ctx context.Context) error {
		cfg := s.Config
		cfg.Deps = reconcile.NewDeps("default-scheduler", s.Client, client.NewCaches(s.Client, s.Log), clock.RealClock{}, s.Log)
		sched, err := scheduler.New(cfg)
		if err != nil {
			return err
		}
		return named("scheduler", sched.Run(ctx))
	})
}

// lead runs f until ctx ends, whenever l leads.
func lead(ctx context.Context, l *reconcile.Leader, f func(context.Context) error) error {
	if l == nil {
		return f(ctx)
	}
	for {
		err := l.Run(ctx, f)
		if ctx.Err() != nil || err == nil || !reconcile.Lost(err) {
			return err
		}
		select { // the next candidate's turn
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
