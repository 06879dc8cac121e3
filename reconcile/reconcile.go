// Package reconcile runs controllers: functions from the state of the world to the next change, called once for
// each key that something may have happened to.
//
// Invariant: a controller sees its own writes. After a successful write the engine waits (WaitFor) until the caches
// include it before the same key is reconciled again, so controllers keep no expectations. The same key is never
// reconciled twice at once. A controller declares its inputs and the only kinds that it writes.
//
// controllers, scheduler, node, proxy, podnet, dns and daemon may import reconcile; it imports client and api only.
package reconcile

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/client"
)

// Key names what to reconcile: most often the object of the controller's main kind.
type Key struct{ Namespace, Name string }

func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Result says when to look again without an event. The zero value: not. The latest result of a key counts: a visit for
// another reason replaces the one that was planned.
type Result struct {
	After time.Duration
	// Rest is how long the key is let alone, so that a burst of changes is one visit where a visit is costly. After an
	// error there is none.
	Rest time.Duration
}

// Controller is one reconciler, declared as data.
type Controller struct {
	// Name is upstream's controller name ("deployment-controller"); it is also its identity and its event source.
	Name string
	// Queue is upstream's name of its queue in metrics ("deployment"), where that differs from Name.
	Queue string
	// Inputs are the changes that make a key due. At least one.
	Inputs []Input
	// Writes lists the resources that it writes ("apps/replicasets", "pods"), and nothing else; for the documentation
	// and a test against the bootstrap role of the same name.
	Writes []string
	// Workers is how many keys are reconciled side by side; 0 means 4.
	Workers int
	// Reconcile brings the world one step nearer to what the key wants. An error is retried with exponential back-off
	// (5 ms to 16 min, as upstream's queues); conflicts and "not found" of stale reads retry silently.
	Reconcile func(ctx context.Context, key Key) (Result, error)
	// Start, if set, runs beside the workers until ctx ends (a timer loop that is no reaction to a change).
	Start func(ctx context.Context) error
}

// Deps is what every controller is built from. Client carries the controller's own identity; Caches are shared by
// all components of the process.
type Deps struct {
	Client client.Interface
	Caches *client.Caches
	Events Recorder
	Clock  clock.WithTicker
	Log    *slog.Logger
}

// Recorder writes events.k8s.io/v1-shaped core events about an object, aggregated and rate limited as upstream does.
// Type is corev1.EventTypeNormal or EventTypeWarning; reason and the message's wording are upstream's, users grep for them.
type Recorder interface {
	Eventf(about runtime.Object, eventType, reason, format string, args ...any)
}
