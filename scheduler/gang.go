package scheduler

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	schedulingv1alpha2 "k8s.io/api/scheduling/v1alpha2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/scheduling"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// This file places the pods of a group together (KEP-4671, behind the gates GenericWorkload and GangScheduling). A group's
// pods are held until there are as many as it needs. Then all that have no node are decided upon in one go, each seeing what
// those before it take, and bound only if enough of the group has a node by then; else what they took is given back.

// gang is a group, and the pods that name it.
type gang struct {
	group *schedulingv1alpha2.PodGroup // nil: not there (yet)
	pods  map[types.UID]*corev1.Pod
	held  map[types.UID]*corev1.Pod // not in the queue: there is no group, or there are too few of them
}

// groupOf names the group that a pod belongs to.
func (s *Scheduler) groupOf(p *corev1.Pod) (name types.NamespacedName, ok bool) {
	if g := p.Spec.SchedulingGroup; s.cfg.Gangs && g != nil && g.PodGroupName != nil {
		return types.NamespacedName{Namespace: p.Namespace, Name: *g.PodGroupName}, true
	}
	return name, false
}

func (s *Scheduler) gang(name types.NamespacedName) *gang {
	g := s.gangs[name]
	if g == nil {
		g = &gang{pods: map[types.UID]*corev1.Pod{}, held: map[types.UID]*corev1.Pod{}}
		s.gangs[name] = g
	}
	return g
}

// needs is how many pods a group must have with a node for any to be bound.
func (g *gang) needs() int {
	if g.group == nil || g.group.Spec.SchedulingPolicy.Gang == nil {
		return 0
	}
	return int(g.group.Spec.SchedulingPolicy.Gang.MinCount)
}

func (g *gang) complete() bool { return g.group != nil && len(g.pods) >= g.needs() }

// groupChanged takes a group's newer state; nil when it is gone.
func (s *Scheduler) groupChanged(name types.NamespacedName, group *schedulingv1alpha2.PodGroup) {
	g := s.gang(name)
	g.group = group
	s.release(g)
	s.forgetGang(name, g)
}

// joins takes a pod's newer state into its group, and reports whether the pod must be held back.
func (s *Scheduler) joins(p *corev1.Pod) (held bool) {
	name, ok := s.groupOf(p)
	if !ok {
		return false
	}
	g := s.gang(name)
	_, known := g.pods[p.UID]
	g.pods[p.UID] = p
	if p.Spec.NodeName != "" || len(p.Spec.SchedulingGates) > 0 {
		delete(g.held, p.UID)
		s.release(g)
		return false
	}
	if !g.complete() {
		g.held[p.UID] = p
		return true
	}
	delete(g.held, p.UID)
	s.release(g)
	if !known { // one more may be what the others wait for
		for uid := range g.pods {
			if it := s.queue.items[uid]; it != nil && it.home == &s.queue.parked && it.refused[core.GangScheduling] {
				s.queue.awake(it, s.deps.Clock.Now(), "UnschedulablePodAdd")
			}
		}
	}
	return false
}

// release lets the pods of a group into the queue once there are enough.
func (s *Scheduler) release(g *gang) {
	if !g.complete() {
		return
	}
	for _, p := range slices.SortedFunc(maps.Values(g.held), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	}) {
		delete(g.held, p.UID)
		s.queue.put(p, s.deps.Clock.Now())
	}
}

// leaves forgets a pod that is gone.
func (s *Scheduler) leaves(p *corev1.Pod) {
	if name, ok := s.groupOf(p); ok {
		g := s.gang(name)
		delete(g.pods, p.UID)
		delete(g.held, p.UID)
		s.forgetGang(name, g)
	}
}

func (s *Scheduler) forgetGang(name types.NamespacedName, g *gang) {
	if g.group == nil && len(g.pods) == 0 {
		delete(s.gangs, name)
	}
}

// member is one pod of a group while the group is being placed.
type member struct {
	it       *item
	pod      *core.Pod
	decision core.Decision
	failure  error
	on       string // the node that it takes for now; "": none
	evicting bool   // others must leave there first
	message  string // why it has none, or must wait
}

// scheduleGang tries to place a group, beginning with the pod that was next.
func (s *Scheduler) scheduleGang(ctx context.Context, first *item, name types.NamespacedName) {
	g := s.gang(name)
	began := s.deps.Clock.Now()
	members := s.membersOf(g, first)
	placed, evicting, failure := s.countPlaced(g), false, error(nil)
	for _, m := range members {
		if m.it.pod.Spec.SchedulerName != first.pod.Spec.SchedulerName {
			failure = fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q", first.pod.Spec.SchedulerName, m.it.pod.Spec.SchedulerName)
		}
	}
	for _, m := range members {
		if failure != nil {
			break
		}
		if s.try(ctx, m); m.failure != nil {
			failure = fmt.Errorf("failed to schedule other pod from a pod group: %w", m.failure)
		}
		if m.on != "" {
			placed++
			evicting = evicting || m.evicting
		}
	}
	enough := failure == nil && placed > 0 && placed >= g.needs()
	if enough && !evicting {
		s.bindGang(ctx, members)
	} else {
		s.giveUpGang(ctx, members, failure, enough)
	}
	result, condition := "unschedulable", metav1.Condition{Status: metav1.ConditionFalse, Reason: schedulingv1alpha2.PodGroupReasonUnschedulable, Message: errGang}
	switch {
	case failure != nil:
		result, condition.Reason, condition.Message = "error", schedulingv1alpha2.PodGroupReasonSchedulerError, failure.Error()
	case enough && evicting:
		result, condition.Message = "waiting_on_preemption", waitsForRoom
	case enough:
		result, condition = "scheduled", metav1.Condition{Status: metav1.ConditionTrue, Reason: "Scheduled"}
	}
	s.metrics.gangs.WithLabelValues(first.pod.Spec.SchedulerName, result).Inc()
	s.metrics.gangTime.WithLabelValues(first.pod.Spec.SchedulerName, result).Observe(s.deps.Clock.Since(began).Seconds())
	s.tellGroup(ctx, name, g.group, condition)
}

// What is said about a group and its pods, in upstream's words.
const (
	errGang      = "pod group is unschedulable"
	waitsForRoom = errGang + ", pod group is waiting for preemption to complete"
	tooFew       = errGang + ", waiting for minCount pods from a gang to be scheduled, one or more plugins asked to wait and no plugin rejected pod"
)

// membersOf are a group's pods that want a node, taken out of the queue, in the order in which they are to be placed.
func (s *Scheduler) membersOf(g *gang, first *item) []*member {
	members := []*member{{it: first}}
	for uid := range g.pods {
		if it := s.queue.items[uid]; it != nil && it != first {
			s.queue.take(it)
			it.attempts++
			members = append(members, &member{it: it})
		}
	}
	slices.SortFunc(members, func(a, b *member) int {
		return cmp.Or(cmp.Compare(b.it.priority, a.it.priority), cmp.Compare(a.it.seq, b.it.seq))
	})
	return members
}

// countPlaced is how many pods of a group have a node, or are on their way to one.
func (s *Scheduler) countPlaced(g *gang) (n int) {
	for uid, p := range g.pods {
		if p.Spec.NodeName != "" || s.assumed[uid] != nil {
			n++
		}
	}
	return n
}

// try decides upon a member, and lets it take what was decided.
func (s *Scheduler) try(ctx context.Context, m *member) {
	m.pod = s.cluster.Pod(m.it.pod, s.profiles[m.it.pod.Spec.SchedulerName])
	m.it.asked = m.pod
	out, failure := s.outside(ctx, m.it.pod)
	m.decision = s.cluster.DecideWith(m.pod, out)
	switch d := &m.decision; {
	case *failure != nil:
		m.failure = *failure
		return
	case d.Node == "":
		var hint string
		if m.on, hint = s.makeRoom(ctx, m.pod, d); m.on == "" {
			s.freeDevices(ctx, m.pod, d)
		}
		m.evicting, m.message = m.on != "", d.Message(d.Hint(m.pod, hint))
	default:
		m.on = d.Node
		s.cluster.Promise(d)
	}
	if m.on != "" {
		s.cluster.Assume(m.pod, m.on)
	}
}

// bindGang sends the members that have a node on their way, and parks the others.
func (s *Scheduler) bindGang(ctx context.Context, members []*member) {
	for _, m := range members {
		profile := s.profiles[m.it.pod.Spec.SchedulerName]
		if m.on == "" {
			s.parkMember(ctx, m, m.message)
			continue
		}
		s.queue.drop(m.it.pod.UID)
		one := &placement{pod: m.it.pod, profile: profile, decision: m.decision, tries: m.it.attempts, since: m.it.since, began: s.deps.Clock.Now()}
		s.assumed[m.it.pod.UID] = one
		select {
		case s.binder <- one:
		case <-ctx.Done():
			return
		}
	}
}

// giveUpGang gives back what the members took, and parks them all. With enough, they only wait until there is room.
func (s *Scheduler) giveUpGang(ctx context.Context, members []*member, failure error, enough bool) {
	for _, m := range members {
		if m.on != "" {
			s.cluster.Release(&m.decision)
			s.cluster.Delete(m.it.pod)
		}
	}
	for _, m := range members {
		switch {
		case failure != nil:
			why := failure
			if m.failure != nil {
				why = m.failure
			}
			s.queue.fail(m.it, s.deps.Clock.Now())
			s.metrics.tried(m.it.pod.Spec.SchedulerName, "error", 0)
			s.sayWhyNot(ctx, m.it.pod, "", corev1.PodReasonSchedulerError, why.Error())
			continue
		case m.on != "" && enough:
			s.cluster.Nominate(m.pod, m.on) // they are to find their places free
			if !m.evicting {
				m.message = waitsForRoom
			}
		case m.on != "":
			m.on, m.message = "", tooFew
		}
		s.parkMember(ctx, m, m.message)
	}
}

// parkMember puts a member away until something changes that may help it or, if it had a node, the others.
func (s *Scheduler) parkMember(ctx context.Context, m *member, message string) {
	refused := m.decision.RefusedBy()
	refused[core.GangScheduling] = true
	if m.evicting {
		refused[core.NodeResourcesFit] = true
	}
	s.queue.park(m.it, refused, s.deps.Clock.Now())
	s.metrics.tried(m.it.pod.Spec.SchedulerName, "unschedulable", 0)
	if !m.decision.Early || m.on != "" {
		s.sayWhyNot(ctx, m.it.pod, m.on, corev1.PodReasonUnschedulable, message)
	}
}

// tellGroup says in a group's status how it went. What was scheduled once stays so, whatever becomes of pods that come later.
func (s *Scheduler) tellGroup(ctx context.Context, name types.NamespacedName, group *schedulingv1alpha2.PodGroup, c metav1.Condition) {
	if group == nil {
		return
	}
	c.Type, c.ObservedGeneration = schedulingv1alpha2.PodGroupScheduled, group.Generation
	before := apimeta.FindStatusCondition(group.Status.Conditions, c.Type)
	if before != nil && before.Status == metav1.ConditionTrue && c.Status != metav1.ConditionTrue {
		return
	}
	conditions := slices.Clone(group.Status.Conditions)
	c.LastTransitionTime = metav1.NewTime(s.deps.Clock.Now()).Rfc3339Copy()
	if !apimeta.SetStatusCondition(&conditions, c) {
		return
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": group.UID}, "status": map[string]any{"conditions": conditions}})
	if err != nil {
		return
	}
	s.background(ctx, func(ctx context.Context) {
		_, err := s.deps.Client.Patch(ctx, scheduling.PodGroup, name.Namespace, name.Name, "status", types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
			s.log.Warn("a pod group's status could not be written", "group", name.String(), "error", err)
		}
	})
}

// watchGroups follows the groups until the returned function is called.
func (s *Scheduler) watchGroups() (cancel func()) {
	return client.CacheOfKind(s.deps.Caches, scheduling.PodGroup).Subscribe(func(e client.Event[api.Object]) {
		s.post(func() {
			o := e.New
			if o == nil {
				o = e.Old
			}
			group, _ := e.New.(*schedulingv1alpha2.PodGroup)
			s.groupChanged(types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}, group)
		})
	})
}
