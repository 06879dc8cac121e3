package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// Config is what a Scheduler needs.
type Config struct {
	Deps reconcile.Deps
	// SchedulerName selects the pods that ask for this scheduler. Default "default-scheduler".
	SchedulerName string
	// Binders is how many bindings are written side by side. Default 64.
	Binders int
}

// Scheduler places pods. Make one with New.
type Scheduler struct {
	cfg    Config
	deps   reconcile.Deps
	pods   *client.Cache[*corev1.Pod]
	claims *client.Cache[*corev1.PersistentVolumeClaim]
	pdbs   *client.Cache[*policyv1.PodDisruptionBudget]
	log    *slog.Logger

	mu     sync.Mutex
	inbox  []func() // changes for the loop to take, in order
	wake   chan struct{}
	state  *state
	queue  *queue
	bound  map[types.UID]bool // assumed, and not yet seen as bound
	binder chan binding
	group  sync.WaitGroup // all goroutines of Run
}

type binding struct {
	pod   *podState
	node  string
	delay []*corev1.PersistentVolumeClaim // claims that wait for the node's name
}

// New checks the configuration and asks for the caches that a scheduler reads.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Deps.Client == nil || cfg.Deps.Caches == nil || cfg.Deps.Clock == nil {
		return nil, errors.New("scheduler: Deps needs a Client, Caches and a Clock")
	}
	if cfg.SchedulerName == "" {
		cfg.SchedulerName = corev1.DefaultSchedulerName
	}
	if cfg.Binders == 0 {
		cfg.Binders = 64
	}
	if cfg.Deps.Log == nil {
		cfg.Deps.Log = slog.New(slog.DiscardHandler)
	}
	s := &Scheduler{cfg: cfg, deps: cfg.Deps, log: cfg.Deps.Log, wake: make(chan struct{}, 1), state: newState(), queue: newQueue(),
		bound: map[types.UID]bool{}, binder: make(chan binding, 4096),
		pods:   client.CacheOf[*corev1.Pod](cfg.Deps.Caches),
		claims: client.CacheOf[*corev1.PersistentVolumeClaim](cfg.Deps.Caches),
		pdbs:   client.CacheOf[*policyv1.PodDisruptionBudget](cfg.Deps.Caches)}
	s.state.volumes = s.lookup()
	return s, nil
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	cs := s.deps.Caches
	defer subscribe(s, client.CacheOf[*corev1.Node](cs), s.nodeChanged)()
	defer subscribe(s, s.pods, s.podChanged)()
	defer subscribe(s, client.CacheOf[*corev1.Namespace](cs), s.namespaceChanged)()
	defer subscribe(s, s.claims, func(client.Event[*corev1.PersistentVolumeClaim]) { s.volumesChanged() })()
	defer subscribe(s, client.CacheOf[*corev1.PersistentVolume](cs), func(client.Event[*corev1.PersistentVolume]) { s.volumesChanged() })()
	defer subscribe(s, client.CacheOf[*storagev1.StorageClass](cs), func(client.Event[*storagev1.StorageClass]) { s.volumesChanged() })()

	defer s.group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.group.Go(func() { _ = cs.Run(ctx) }) // an error means that somebody else runs them
	if err := cs.Sync(ctx); err != nil {
		return nil
	}
	for range s.cfg.Binders {
		s.group.Go(func() { s.bind(ctx) })
	}
	for {
		s.take()
		now := s.deps.Clock.Now()
		it, wake := s.queue.next(now)
		if it != nil {
			s.schedule(ctx, it, now)
			continue
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

// subscribe passes a cache's events to the loop, in their order.
func subscribe[T api.Object](s *Scheduler, c *client.Cache[T], f func(client.Event[T])) (cancel func()) {
	return c.Subscribe(func(e client.Event[T]) { s.post(func() { f(e) }) })
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
	for _, f := range todo {
		f()
	}
}

// schedule tries to place one pod.
func (s *Scheduler) schedule(ctx context.Context, it *item, now time.Time) {
	pod := it.pod
	p := newPodState(pod)
	d := s.state.decide(p)
	if d.node == nil {
		s.queue.failed(pod.UID, now, false)
		nominated, hint := s.makeRoom(ctx, p, &d)
		message := d.message(hint)
		s.deps.Events.Eventf(pod, corev1.EventTypeWarning, "FailedScheduling", "%s", message)
		s.background(ctx, func(ctx context.Context) { s.setCondition(ctx, pod, nominated, message) })
		return
	}
	var delay []*corev1.PersistentVolumeClaim
	for _, name := range claimsOf(pod) {
		if claim, ok := s.claims.Get(pod.Namespace, name); ok && claim.Spec.VolumeName == "" {
			delay = append(delay, claim)
		}
	}
	s.queue.drop(pod.UID)
	delete(s.state.nominated, pod.UID)
	s.bound[pod.UID] = true
	s.state.setPod(p, d.node.name)
	select {
	case s.binder <- binding{p, d.node.name, delay}:
	case <-ctx.Done():
	}
}

// background runs f beside the loop, in a goroutine of its own so that it delays no binding: there are at most as many
// as pods that fail at once.
func (s *Scheduler) background(ctx context.Context, f func(context.Context)) {
	s.group.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		f(ctx)
	})
}

func (s *Scheduler) bind(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-s.binder:
			if err := s.write(ctx, b); err != nil {
				s.unbind(b, err)
				continue
			}
			s.deps.Events.Eventf(b.pod.pod, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", b.pod.pod.Namespace, b.pod.pod.Name, b.node)
		}
	}
}

const selectedNode = "volume.kubernetes.io/selected-node"

func (s *Scheduler) write(ctx context.Context, b binding) error {
	pod := b.pod.pod
	if len(b.delay) > 0 {
		if err := s.awaitClaims(ctx, b); err != nil {
			return err
		}
	}
	_, err := s.deps.Client.Action(ctx, client.KindOf[*corev1.Pod](), pod.Namespace, pod.Name, "binding", &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: b.node}})
	return err
}

// awaitClaims tells the volumes' controllers which node the pod will be on and waits until its claims are bound.
func (s *Scheduler) awaitClaims(ctx context.Context, b binding) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{selectedNode: b.node}}})
	if err != nil {
		return err
	}
	for _, claim := range b.delay {
		changed := make(chan struct{}, 1)
		stop := s.claims.Subscribe(func(e client.Event[*corev1.PersistentVolumeClaim]) {
			if e.New != nil && e.New.UID == claim.UID && e.New.Spec.VolumeName != "" {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
		})
		now, err := client.Patch[*corev1.PersistentVolumeClaim](ctx, s.deps.Client, claim.Namespace, claim.Name, "", types.MergePatchType, patch)
		if err != nil || now.Spec.VolumeName != "" { // a claim that was bound meanwhile changes no more
			stop()
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
			stop()
		case <-ctx.Done():
			stop()
			return ctx.Err()
		}
	}
	return nil
}

// unbind takes back what the state assumed about a pod whose binding failed.
func (s *Scheduler) unbind(b binding, err error) {
	s.post(func() {
		uid := b.pod.pod.UID
		if !s.bound[uid] {
			return // the cache has seen it bound or gone
		}
		delete(s.bound, uid)
		s.state.dropPod(uid)
		if apierrors.IsNotFound(err) || errors.Is(err, context.Canceled) {
			return
		}
		s.log.Warn("a pod could not be bound", "pod", b.pod.pod.Namespace+"/"+b.pod.pod.Name, "node", b.node, "error", err)
		if now, ok := s.pods.Get(b.pod.pod.Namespace, b.pod.pod.Name); ok && now.UID == uid && now.Spec.NodeName == "" && now.DeletionTimestamp == nil {
			s.queue.put(now)
			s.queue.failed(uid, s.deps.Clock.Now(), true)
		}
	})
}

// setCondition says in the pod's status why it has no node, and which one is being cleared for it.
func (s *Scheduler) setCondition(ctx context.Context, pod *corev1.Pod, nominated, message string) {
	status := map[string]any{}
	if !slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && c.Message == message
	}) {
		status["conditions"] = []map[string]any{{
			"type": corev1.PodScheduled, "status": corev1.ConditionFalse, "reason": corev1.PodReasonUnschedulable, "message": message,
			"lastProbeTime": nil, "observedGeneration": pod.Generation,
			"lastTransitionTime": metav1.NewTime(s.deps.Clock.Now()).Rfc3339Copy()}}
	}
	if nominated != pod.Status.NominatedNodeName {
		status["nominatedNodeName"] = nominated
	}
	if len(status) > 0 {
		s.patchStatus(ctx, pod, status)
	}
}

// What follows runs in the loop.

func (s *Scheduler) nodeChanged(e client.Event[*corev1.Node]) {
	if e.New == nil {
		s.state.dropNode(e.Old.Name)
		return
	}
	if s.state.setNode(e.New) {
		s.queue.change(s.deps.Clock.Now(), nil)
	}
}

func (s *Scheduler) namespaceChanged(e client.Event[*corev1.Namespace]) {
	if e.New == nil {
		s.state.setNamespace(e.Old.Name, nil)
		return
	}
	if s.state.setNamespace(e.New.Name, e.New.Labels) {
		s.queue.change(s.deps.Clock.Now(), nil)
	}
}

func (s *Scheduler) volumesChanged() {
	s.queue.change(s.deps.Clock.Now(), func(p *corev1.Pod) bool { return len(claimsOf(p)) > 0 })
}

func (s *Scheduler) podChanged(e client.Event[*corev1.Pod]) {
	if e.New == nil {
		s.gone(e.Old)
		return
	}
	p := e.New
	switch {
	case p.Spec.NodeName != "":
		s.placed(e.Old, p)
	case p.Spec.SchedulerName != s.cfg.SchedulerName || p.DeletionTimestamp != nil:
		s.queue.drop(p.UID)
		s.state.forget(p.UID)
	case s.bound[p.UID]: // its binding is on the way
	case len(p.Spec.SchedulingGates) > 0:
		s.queue.drop(p.UID)
	case e.Old == nil || worthAnotherTry(e.Old, p):
		if node := p.Status.NominatedNodeName; e.Old == nil && node != "" {
			s.state.nominate(newPodState(p), node)
		}
		s.queue.put(p)
	default:
		s.queue.refresh(p)
	}
}

// worthAnotherTry tells a change of the pod's wishes from our own note in its status.
func worthAnotherTry(old, p *corev1.Pod) bool {
	a, okA := classKey(old)
	b, okB := classKey(p)
	return !okA || !okB || a != b || len(old.Spec.SchedulingGates) != len(p.Spec.SchedulingGates) || old.UID != p.UID
}

func (s *Scheduler) placed(old, p *corev1.Pod) {
	s.queue.drop(p.UID)
	delete(s.bound, p.UID)
	delete(s.state.nominated, p.UID)
	known, ok := s.state.pods[p.UID]
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	if ok && !ended && known.node.name == p.Spec.NodeName && (old == nil || old.Generation == p.Generation) && labels.Equals(known.pod.Labels, p.Labels) &&
		(known.pod.DeletionTimestamp == nil) == (p.DeletionTimestamp == nil) {
		return // a status that changes nothing for others
	}
	s.state.setPod(newPodState(p), p.Spec.NodeName)
	s.changedFor(p)
}

func (s *Scheduler) gone(p *corev1.Pod) {
	s.queue.drop(p.UID)
	delete(s.bound, p.UID)
	s.state.forget(p.UID)
	if s.state.dropPod(p.UID) {
		s.changedFor(p)
	}
}

// changedFor lets pods be tried again that a change of another pod may help: room became free, or a friend arrived.
func (s *Scheduler) changedFor(*corev1.Pod) {
	if len(s.queue.items) > 0 {
		s.queue.change(s.deps.Clock.Now(), nil)
	}
}

// lookup reads the caches for the volume and spread rules.
func (s *Scheduler) lookup() volumeLookup {
	cs := s.deps.Caches
	volumes := client.CacheOf[*corev1.PersistentVolume](cs)
	volumes.AddIndex("class", func(v *corev1.PersistentVolume) []string { return []string{v.Spec.StorageClassName} })
	classes := client.CacheOf[*storagev1.StorageClass](cs)
	services := client.CacheOf[*corev1.Service](cs)
	sets := client.CacheOf[*appsv1.ReplicaSet](cs)
	stateful := client.CacheOf[*appsv1.StatefulSet](cs)
	return volumeLookup{
		claim:      s.claims.Get,
		volume:     func(name string) (*corev1.PersistentVolume, bool) { return volumes.Get("", name) },
		class:      func(name string) (*storagev1.StorageClass, bool) { return classes.Get("", name) },
		candidates: func(class string) []*corev1.PersistentVolume { return volumes.By("class", class) },
		siblings: func(p *corev1.Pod) labels.Selector {
			sel := labels.NewSelector()
			for _, svc := range services.List(p.Namespace) {
				if len(svc.Spec.Selector) == 0 {
					continue
				}
				if own := labels.SelectorFromSet(svc.Spec.Selector); own.Matches(labels.Set(p.Labels)) {
					sel = and(sel, own)
				}
			}
			if owner := metav1.GetControllerOf(p); owner != nil {
				switch owner.Kind {
				case "ReplicaSet":
					if set, ok := sets.Get(p.Namespace, owner.Name); ok {
						sel = and(sel, selectorOf(set.Spec.Selector))
					}
				case "StatefulSet":
					if set, ok := stateful.Get(p.Namespace, owner.Name); ok {
						sel = and(sel, selectorOf(set.Spec.Selector))
					}
				}
			}
			if sel.Empty() {
				return nil
			}
			return sel
		},
	}
}

func and(a, b labels.Selector) labels.Selector {
	requirements, _ := b.Requirements()
	return a.Add(requirements...)
}
