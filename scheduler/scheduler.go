package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/api/scheduling"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// Scheduler places pods. Make one with New.
type Scheduler struct {
	cfg       Config
	deps      reconcile.Deps
	log       *slog.Logger
	metrics   *Metrics
	profiles  map[string]*core.Profile
	extenders []*extender
	pods      *client.Cache[*corev1.Pod]

	mu    sync.Mutex
	inbox []func() // changes for the loop to take, in order
	wake  chan struct{}

	// Of the loop alone.
	cluster *core.Cluster
	queue   *queue
	assumed map[types.UID]*placement // decided, and not yet seen as bound
	gated   map[types.UID]bool
	gangs   map[types.NamespacedName]*gang
	looked  time.Time // when the metrics last took sizes
	moved   bool      // something happened since

	binder chan *placement
	beside chan struct{} // a slot for each write that goes on beside the loop
	group  sync.WaitGroup
}

// placement is a pod on its way to a node.
type placement struct {
	pod      *corev1.Pod
	profile  *core.Profile
	decision core.Decision
	tries    int
	since    time.Time                 // when it came into the queue
	began    time.Time                 // of the attempt
	standIn  *resourcev1.ResourceClaim // made for it while it was being bound; nil: none
}

// maxBeside bounds how many status writes and evictions are under way at once.
const maxBeside = 32

// New checks the configuration and asks for the caches that a scheduler reads.
func New(cfg Config) (*Scheduler, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Scheduler{cfg: cfg, deps: cfg.Deps, log: cfg.Deps.Log, metrics: cfg.Metrics, profiles: map[string]*core.Profile{},
		pods: client.CacheOf[*corev1.Pod](cfg.Deps.Caches), wake: make(chan struct{}, 1), cluster: core.New(),
		queue: newQueue(cfg.FirstBackoff, cfg.LastBackoff), assumed: map[types.UID]*placement{}, gated: map[types.UID]bool{},
		gangs:  map[types.NamespacedName]*gang{},
		binder: make(chan *placement, 4096), beside: make(chan struct{}, maxBeside)}
	s.queue.incoming = func(queue, event string) { s.metrics.incoming.WithLabelValues(event, queue).Inc() }
	for _, p := range cfg.Profiles {
		s.profiles[p.SchedulerName] = p
	}
	nodes := client.CacheOf[*corev1.Node](cfg.Deps.Caches)
	for _, in := range cfg.Extenders {
		e, err := newExtender(in, func(name string) (*corev1.Node, bool) { return nodes.Get("", name) })
		if err != nil {
			return nil, err
		}
		s.extenders = append(s.extenders, e)
	}
	for _, k := range s.kinds() {
		client.CacheOfKind(cfg.Deps.Caches, k)
	}
	return s, nil
}

// kinds are the rows of what the core wants to know.
func kinds() []*api.Kind {
	var out []*api.Kind
	for _, o := range core.Kinds() {
		if k, ok := builtin.Table().Of(o); ok {
			out = append(out, k)
		}
	}
	return out
}

// kinds are the rows of what the scheduler wants to know.
func (s *Scheduler) kinds() []*api.Kind {
	if s.cfg.Gangs {
		return append(kinds(), scheduling.PodGroup)
	}
	return kinds()
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	defer s.group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.group.Go(func() { _ = s.deps.Caches.Run(ctx) }) // an error means that somebody else runs them
	if !s.sync(ctx) {
		return nil
	}
	if s.cfg.Gangs {
		defer s.watchGroups()()
	}
	for _, k := range kinds() { // in this order, so that pods come when all that they refer to is known
		defer client.CacheOfKind(s.deps.Caches, k).Subscribe(func(e client.Event[api.Object]) {
			s.post(func() { s.changed(e.Old, e.New) })
		})()
	}
	for range s.cfg.Binders {
		s.group.Go(func() { s.bindAll(ctx) })
	}
	for {
		s.take()
		now := s.deps.Clock.Now()
		if s.moved && now.Sub(s.looked) >= time.Second {
			s.looked, s.moved = now, false
			s.metrics.look(s)
		}
		it, wake := s.queue.next(now)
		if it != nil {
			s.moved = true
			s.schedule(ctx, it, now)
			continue
		}
		if look := s.looked.Add(time.Second); s.moved && (wake.IsZero() || look.Before(wake)) {
			wake = look
		}
		var timer <-chan time.Time
		if !wake.IsZero() {
			timer = s.deps.Clock.After(wake.Sub(now))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer:
		}
	}
}

// sync waits until the caches are filled, and reports whether they are before ctx ends. There is no scheduling without nodes
// and pods; without anything else that the server does not serve, or not to us, it goes on as if there was none.
func (s *Scheduler) sync(ctx context.Context) bool {
	const patience = 5 * time.Second
	for _, k := range s.kinds() {
		cache := client.CacheOfKind(s.deps.Caches, k)
		for !cache.Synced() {
			wait, cancel := context.WithTimeout(ctx, patience)
			err := cache.WaitFor(wait, "")
			cancel()
			if ctx.Err() != nil {
				return false
			}
			if err == nil || k.Plural == "pods" || k.Plural == "nodes" {
				continue
			}
			_, _, err = s.deps.Client.List(ctx, k, "", metav1.ListOptions{Limit: 1})
			if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsMethodNotSupported(err) {
				s.log.Warn("scheduling goes on without objects that cannot be read", "resource", k.GroupResource().String(), "error", err)
				break
			}
		}
	}
	return true
}

// post gives the loop something to do.
func (s *Scheduler) post(f func()) {
	s.mu.Lock()
	s.inbox = append(s.inbox, f)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Scheduler) take() {
	s.mu.Lock()
	todo := s.inbox
	s.inbox = nil
	s.mu.Unlock()
	s.moved = s.moved || len(todo) > 0
	for _, f := range todo {
		f()
	}
}

// background runs f beside the loop; when too many do, it waits for a place there, not here.
func (s *Scheduler) background(ctx context.Context, f func(context.Context)) {
	s.group.Go(func() {
		select {
		case <-ctx.Done():
			return
		case s.beside <- struct{}{}:
		}
		defer func() { <-s.beside }()
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		f(ctx)
	})
}

// schedule tries to place one pod.
func (s *Scheduler) schedule(ctx context.Context, it *item, now time.Time) {
	if name, ok := s.groupOf(it.pod); ok {
		s.scheduleGang(ctx, it, name)
		return
	}
	profile := s.profiles[it.pod.Spec.SchedulerName]
	p := s.cluster.Pod(it.pod, profile)
	it.asked = p
	out, failure := s.outside(ctx, it.pod)
	d := s.cluster.DecideWith(p, out)
	took := s.deps.Clock.Since(now)
	s.metrics.algorithm.Observe(took.Seconds())
	filtered := "Success"
	if d.Node == "" {
		filtered = "Unschedulable"
	}
	s.metrics.step("Filter", profile.SchedulerName, filtered, took)
	switch {
	case *failure != nil:
		s.queue.fail(it, s.deps.Clock.Now())
		s.metrics.tried(profile.SchedulerName, "error", took)
		s.sayWhyNot(ctx, it.pod, nominationKept, corev1.PodReasonSchedulerError, (*failure).Error())
	case d.Node == "":
		s.refused(ctx, it, p, &d)
		s.metrics.tried(profile.SchedulerName, "unschedulable", took)
	default:
		s.queue.drop(it.pod.UID)
		one := &placement{pod: it.pod, profile: profile, decision: d, tries: it.attempts, since: it.since, began: now}
		s.assumed[it.pod.UID] = one
		s.cluster.Promise(&one.decision)
		s.cluster.Assume(p, d.Node)
		select {
		case s.binder <- one:
		case <-ctx.Done():
		}
	}
}

// refused parks a pod that fits nowhere, tries to make room for it, and says why.
func (s *Scheduler) refused(ctx context.Context, it *item, p *core.Pod, d *core.Decision) {
	began := s.deps.Clock.Now()
	node, hint := s.makeRoom(ctx, p, d)
	status := "Unschedulable"
	if node != "" {
		status = "Success"
	}
	s.metrics.step("PostFilter", it.pod.Spec.SchedulerName, status, s.deps.Clock.Since(began))
	if node == "" {
		s.freeDevices(ctx, p, d)
	}
	s.queue.park(it, d.RefusedBy(), s.deps.Clock.Now())
	if !d.Early {
		s.sayWhyNot(ctx, it.pod, node, corev1.PodReasonUnschedulable, d.Message(d.Hint(p, hint)))
	}
}

// changed takes a change from a cache.
func (s *Scheduler) changed(old, new api.Object) {
	switch o := old.(type) {
	case *corev1.Pod:
		if new == nil {
			s.podGone(o)
			return
		}
	}
	if p, ok := new.(*corev1.Pod); ok {
		before, _ := old.(*corev1.Pod)
		s.podChanged(before, p)
		return
	}
	if new == nil {
		s.cluster.Delete(old)
		s.hint(old, nil)
	} else if s.cluster.Set(new) {
		s.hint(old, new)
	}
}

func (s *Scheduler) podChanged(old, p *corev1.Pod) {
	switch {
	case old != nil && old.UID != p.UID:
		s.podGone(old)
		s.podChanged(nil, p)
	case p.Spec.NodeName != "":
		s.joins(p)
		s.queue.drop(p.UID)
		delete(s.assumed, p.UID)
		delete(s.gated, p.UID)
		if s.cluster.Set(p) {
			s.hint(objectOrNil(old), p)
		}
	case s.profiles[p.Spec.SchedulerName] == nil || p.DeletionTimestamp != nil:
		s.queue.drop(p.UID)
		delete(s.gated, p.UID)
		s.leaves(p)
		s.cluster.Forget(p.UID)
	case s.assumed[p.UID] != nil: // its binding is on the way
	case len(p.Spec.SchedulingGates) > 0:
		s.gated[p.UID] = true
		s.joins(p)
		s.queue.drop(p.UID)
	case s.joins(p):
		delete(s.gated, p.UID)
		s.queue.drop(p.UID)
	case old == nil || s.gated[p.UID] || worthAnotherTry(old, p):
		delete(s.gated, p.UID)
		if node := p.Status.NominatedNodeName; old == nil && node != "" {
			s.cluster.Nominate(s.cluster.Pod(p, s.profiles[p.Spec.SchedulerName]), node)
		}
		s.queue.put(p, s.deps.Clock.Now())
	default:
		s.queue.refresh(p)
	}
}

func objectOrNil(p *corev1.Pod) api.Object {
	if p == nil {
		return nil
	}
	return p
}

func (s *Scheduler) podGone(p *corev1.Pod) {
	s.queue.drop(p.UID)
	s.leaves(p)
	delete(s.gated, p.UID)
	_, on := s.assumed[p.UID]
	delete(s.assumed, p.UID)
	s.cluster.Delete(p)
	if p.Spec.NodeName != "" || on {
		s.hint(p, nil)
	}
}

// worthAnotherTry tells a change of the pod's wishes from our own note in its status.
func worthAnotherTry(old, p *corev1.Pod) bool {
	return old.Generation != p.Generation || !sameLabels(old, p) || len(old.Status.ResourceClaimStatuses) != len(p.Status.ResourceClaimStatuses) ||
		len(old.Spec.SchedulingGates) != len(p.Spec.SchedulingGates)
}
