package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/client"
)

// Upstream's times.
const (
	leaseDuration = 15 * time.Second // others wait this long after the last renewal that they saw
	renewDeadline = 10 * time.Second // the leader gives up when it could not renew for this long
	retryPeriod   = 2 * time.Second
)

// errLost says that the lease went to somebody else or could not be renewed in time.
var errLost = errors.New("the lease was lost")

// Lost reports whether Leader.Run ended because the lease went to somebody else or could not be renewed.
func Lost(err error) bool { return errors.Is(err, errLost) }

// Leader lets one of several processes lead, by a Lease in upstream's form: holders of upstream's leader election and
// of this one respect each other. Clocks are never compared between machines: a candidate counts from when it saw
// the lease change.
type Leader struct {
	Client          client.Interface
	Namespace, Name string // of the Lease
	Identity        string // unique to this process
	Clock           clock.WithTicker
	Log             *slog.Logger
	// Others wait Duration after the last renewal that they saw (in whole seconds); the leader gives up when it could not
	// renew for RenewDeadline; both try every Retry. Zero is upstream's 15 s, 10 s and 2 s.
	Duration, RenewDeadline, Retry time.Duration
}

func (l *Leader) withDefaults() {
	if l.Clock == nil {
		l.Clock = clock.RealClock{}
	}
	if l.Log == nil {
		l.Log = slog.New(slog.DiscardHandler)
	}
	if l.Duration == 0 {
		l.Duration = leaseDuration
	}
	if l.RenewDeadline == 0 {
		l.RenewDeadline = renewDeadline
	}
	if l.Retry == 0 {
		l.Retry = retryPeriod
	}
}

// Run waits until the lease is ours, then calls lead with a context that ends when it is lost. It returns lead's error,
// nil if ctx ended, or an error when the lease was lost: the process should then end, or call Run again.
func (l Leader) Run(ctx context.Context, lead func(ctx context.Context) error) error {
	l.withDefaults()
	e := &election{Leader: l}
	for !e.acquire(ctx) {
		if !e.pause(ctx, l.Retry+rand.N(l.Retry*6/5)) {
			return nil
		}
	}
	l.Log.Info("leading", "lease", l.Namespace+"/"+l.Name, "identity", l.Identity)

	leading, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	done := make(chan error, 1)
	go func() { done <- lead(leading) }()
	err := e.hold(leading, lost, done)
	e.release()
	if ctx.Err() != nil && !errors.Is(err, errLost) {
		return nil
	}
	return err
}

// election is one candidate's view of the lease.
type election struct {
	Leader
	seen   *coordinationv1.Lease
	seenAt time.Time // when seen last changed, by our clock
}

func (e *election) pause(ctx context.Context, d time.Duration) bool {
	t := e.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C():
		return true
	}
}

// hold renews until lead has returned, and ends leading when the lease is lost.
func (e *election) hold(leading context.Context, lost context.CancelCauseFunc, done <-chan error) error {
	renewed := e.Clock.Now()
	for {
		t := e.Clock.NewTimer(e.Retry)
		select {
		case err := <-done:
			t.Stop()
			if context.Cause(leading) == errLost {
				return errLost
			}
			return err
		case <-t.C():
		}
		if leading.Err() != nil {
			continue // lead is being waited for; keep the lease as long as it lasts
		}
		ctx, cancel := context.WithTimeout(leading, e.RenewDeadline/2)
		ok := e.acquire(ctx)
		cancel()
		switch {
		case ok:
			renewed = e.Clock.Now()
		case e.heldByOther() || e.Clock.Since(renewed) >= e.RenewDeadline:
			e.Log.Error("no longer leading", "lease", e.Namespace+"/"+e.Name)
			lost(errLost)
		}
	}
}

func (e *election) heldByOther() bool {
	return e.seen != nil && holder(e.seen) != e.Identity && holder(e.seen) != ""
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// acquire takes or renews the lease, and reports whether it is ours.
func (e *election) acquire(ctx context.Context) bool {
	current, err := client.Get[*coordinationv1.Lease](ctx, e.Client, e.Namespace, e.Name)
	if apierrors.IsNotFound(err) {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}}
		e.claim(lease)
		made, err := client.Create(ctx, e.Client, lease)
		if err == nil {
			e.see(made)
		}
		return err == nil
	}
	if err != nil {
		return false
	}
	e.see(current)
	if e.heldByOther() && e.Clock.Since(e.seenAt) < duration(current) {
		return false
	}
	next := current.DeepCopy()
	e.claim(next)
	made, err := client.Update(ctx, e.Client, next)
	if err != nil {
		return false
	}
	e.see(made)
	return true
}

func (e *election) see(l *coordinationv1.Lease) {
	if e.seen == nil || e.seen.ResourceVersion != l.ResourceVersion {
		e.seen, e.seenAt = l, e.Clock.Now()
	}
}

func duration(l *coordinationv1.Lease) time.Duration {
	if l.Spec.LeaseDurationSeconds == nil {
		return leaseDuration
	}
	return time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
}

// claim writes our name and the time into a lease of our own.
func (e *election) claim(l *coordinationv1.Lease) {
	now := metav1.NewMicroTime(e.Clock.Now())
	seconds := int32(e.Duration / time.Second)
	if holder(l) != e.Identity {
		transitions := int32(0)
		if l.Spec.LeaseTransitions != nil {
			transitions = *l.Spec.LeaseTransitions + 1
		}
		l.Spec.LeaseTransitions, l.Spec.AcquireTime = &transitions, &now
	}
	l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &e.Identity, &seconds, &now
}

// release gives the lease back so that the next leader need not wait for it to run out.
func (e *election) release() {
	ctx, cancel := context.WithTimeout(context.Background(), e.Retry)
	defer cancel()
	current, err := client.Get[*coordinationv1.Lease](ctx, e.Client, e.Namespace, e.Name)
	if err != nil || holder(current) != e.Identity {
		return
	}
	next := current.DeepCopy()
	nobody, second := "", int32(1)
	next.Spec.HolderIdentity, next.Spec.LeaseDurationSeconds = &nobody, &second
	if _, err := client.Update(ctx, e.Client, next); err != nil {
		e.Log.Warn("the lease could not be released", "err", err)
	}
}
