// Package daemonset keeps one pod of each DaemonSet on every node that fits.
//
// Invariant: a rolling update never takes an available old pod away while maxUnavailable nodes already lack an
// available one, and with maxSurge never runs more than that many extra pods. Only controllers/ may import daemonset.
package daemonset

import (
	"cmp"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/controllers/revisions"
)

// burst bounds how many pods are created or deleted in one go.
const burst = 250

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

// Input is all that a plan depends on.
type Input struct {
	Set   *appsv1.DaemonSet
	Nodes []*corev1.Node
	Pods  []*corev1.Pod // those that the set owns
	Hash  string        // the current revision's
	// Retry says how long a failed pod of the node must still stay before it is replaced; 0 is at once.
	Retry func(node string) time.Duration
	Now   time.Time
}

// Decision is what to do for one set.
type Decision struct {
	Actions []plan.Action
	Again   time.Duration // when a pod becomes available or a failed one may be replaced; 0: no need
	Failed  []string      // nodes whose failed pod is replaced now
	Status  appsv1.DaemonSetStatus
}

// place is one node with what the set has there.
type place struct {
	node           *corev1.Node
	wanted, stay   bool // a new pod should run; a pod that is there may stay
	old, new       *corev1.Pod
	oldOK, newOK   bool // available
	finished, more []*corev1.Pod
	going          bool // a pod is being deleted
}

type planner struct {
	Input
	Decision
	places  []*place
	strays  []*corev1.Pod // on nodes that are not there
	creates []*place
	deletes []*corev1.Pod
}

// Plan compares the set with its nodes and pods.
func Plan(in Input) Decision {
	p := &planner{Input: in}
	p.observe()
	if in.Set.DeletionTimestamp == nil {
		p.manage()
		if in.Set.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType {
			p.update()
		}
		p.emit()
	}
	p.status()
	return p.Decision
}

// Target is the node that a pod is meant for: the one it is on, or the one its affinity names.
func Target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" || p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil || p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return p.Spec.NodeName
	}
	for _, t := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

func (p *planner) observe() {
	byNode := map[string][]*corev1.Pod{}
	for _, pod := range p.Pods {
		byNode[Target(pod)] = append(byNode[Target(pod)], pod)
	}
	fit := fitter(p.Set)
	nodes := slices.Clone(p.Nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		pl := &place{node: n}
		pl.wanted, pl.stay = fit(n)
		p.fill(pl, byNode[n.Name])
		p.places = append(p.places, pl)
		delete(byNode, n.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(byNode)) {
		p.strays = append(p.strays, byNode[name]...)
	}
}

// fill sorts a node's pods: the oldest of the current revision, the oldest of another, and what is too much.
func (p *planner) fill(pl *place, list []*corev1.Pod) {
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	for _, pod := range list {
		switch {
		case pod.DeletionTimestamp != nil:
			pl.going = true
		case pods.Finished(pod):
			pl.finished = append(pl.finished, pod)
		case p.current(pod) && pl.new == nil:
			pl.new, pl.newOK = pod, p.available(pod)
		case !p.current(pod) && pl.old == nil:
			pl.old, pl.oldOK = pod, p.available(pod)
		default:
			pl.more = append(pl.more, pod)
		}
	}
}

func (p *planner) current(pod *corev1.Pod) bool { return pod.Labels[revisions.HashLabel] == p.Hash }

func (p *planner) available(pod *corev1.Pod) bool {
	ok, wait := pods.Available(pod, p.Set.Spec.MinReadySeconds, p.Now)
	p.again(wait)
	return ok
}

func (p *planner) again(d time.Duration) {
	if d > 0 && (p.Again == 0 || d < p.Again) {
		p.Again = d
	}
}

// manage sees to one pod on each wanted node and none on the others.
func (p *planner) manage() {
	surge, _ := p.limits()
	for _, pl := range p.places {
		if !pl.stay {
			p.remove(pl.old, pl.new)
			p.remove(pl.more...)
			p.remove(pl.finished...)
			continue
		}
		p.remove(pl.more...)
		p.replaceFinished(pl)
		if pl.old != nil && pl.new != nil && surge == 0 {
			// Two without a surge: the older stays.
			if pl.new.CreationTimestamp.Before(&pl.old.CreationTimestamp) {
				p.remove(pl.old)
			} else {
				p.remove(pl.new)
			}
		}
		if pl.wanted && pl.old == nil && pl.new == nil && len(pl.finished) == 0 && !pl.going {
			p.creates = append(p.creates, pl)
		}
	}
	p.remove(p.strays...)
}

func (p *planner) replaceFinished(pl *place) {
	for _, pod := range pl.finished {
		if pod.Status.Phase == corev1.PodSucceeded {
			p.Actions = append(p.Actions, plan.Normal(p.Set, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", pod.Namespace, pod.Name, pl.node.Name))
			p.remove(pod)
			continue
		}
		if wait := p.Retry(pl.node.Name); wait > 0 {
			p.again(wait)
			continue
		}
		p.Failed = append(p.Failed, pl.node.Name)
		p.Actions = append(p.Actions, plan.Warning(p.Set, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", pod.Namespace, pod.Name, pl.node.Name))
		p.remove(pod)
	}
}

// remove deletes what is not nil, being deleted, or on the list already.
func (p *planner) remove(list ...*corev1.Pod) {
	for _, pod := range list {
		if pod != nil && pod.DeletionTimestamp == nil && !slices.Contains(p.deletes, pod) {
			p.deletes = append(p.deletes, pod)
		}
	}
}

// limits resolves maxSurge and maxUnavailable over the wanted nodes.
func (p *planner) limits() (surge, unavailable int) {
	ru := p.Set.Spec.UpdateStrategy.RollingUpdate
	if p.Set.Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType || ru == nil {
		return 0, 1
	}
	wanted := 0
	for _, pl := range p.places {
		if pl.wanted {
			wanted++
		}
	}
	surge, _ = intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(ru.MaxSurge, intstr.FromInt32(0))), wanted, true)
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(ptr.To(ptr.Deref(ru.MaxUnavailable, intstr.FromInt32(1))), wanted, true)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// update replaces old pods as far as the limits allow; an old pod that is not available goes in any case.
func (p *planner) update() {
	surge, missing := p.limits()
	if surge > 0 {
		p.surge(surge, missing)
		return
	}
	var candidates []*corev1.Pod
	for _, pl := range p.places {
		switch {
		case !pl.wanted:
		case pl.oldOK && !slices.Contains(p.deletes, pl.old):
			candidates = append(candidates, pl.old)
		case pl.newOK && pl.old == nil:
		default:
			missing--
			p.remove(pl.old)
		}
	}
	p.remove(candidates[:min(max(missing, 0), len(candidates))]...)
}

// surge starts new pods beside old ones and ends an old pod once its successor is available.
func (p *planner) surge(surge, missing int) {
	var start []*place
	var replaceable []*corev1.Pod
	for _, pl := range p.places {
		switch {
		case !pl.wanted:
		case pl.old != nil && pl.new == nil && !pl.oldOK:
			// Not available anyway: its successor takes nothing from anybody.
			if missing > 0 {
				replaceable = append(replaceable, pl.old)
			}
			start = append(start, pl)
		case pl.old != nil && pl.new == nil:
			start = append(start, pl)
		case pl.old != nil && pl.newOK:
			p.remove(pl.old)
		case pl.old != nil:
			surge-- // its successor is on its way
		}
	}
	p.creates = append(p.creates, start[:min(max(surge, 0), len(start))]...)
	p.remove(replaceable[:min(max(missing, 0), len(replaceable))]...)
}

// emit turns the lists into actions: deletes first, within the burst.
func (p *planner) emit() {
	for _, pod := range p.deletes[:min(burst, len(p.deletes))] {
		p.Actions = append(p.Actions, plan.Delete{Obj: pod, Report: p.Set, Noun: "pod"})
	}
	for _, pl := range p.creates[:min(burst, len(p.creates))] {
		p.Actions = append(p.Actions, plan.Create{Obj: p.pod(pl.node.Name), Report: p.Set, Noun: "pod"})
	}
}

// pod makes the set's pod for one node.
func (p *planner) pod(node string) *corev1.Pod {
	t := Template(p.Set)
	pod := pods.FromTemplate(&t, p.Set, kind)
	pod.Labels = map[string]string{}
	maps.Copy(pod.Labels, p.Set.Spec.Template.Labels)
	pod.Labels[revisions.HashLabel] = p.Hash
	if g, ok := p.Set.Annotations[appsv1.DeprecatedTemplateGeneration]; ok {
		pod.Labels["pod-template-generation"] = g
	}
	pinTo(&pod.Spec, node)
	return pod
}

// pinTo replaces the required node affinity: the fit with the node was judged already, and the scheduler is to put the
// pod there or nowhere.
func pinTo(spec *corev1.PodSpec, node string) {
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}
}

// Template is the set's template with the tolerations that every daemon has: it stays on a node in trouble.
func Template(ds *appsv1.DaemonSet) corev1.PodTemplateSpec {
	t := *ds.Spec.Template.DeepCopy()
	add := func(key string, effect corev1.TaintEffect) {
		tol := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		if !slices.ContainsFunc(t.Spec.Tolerations, func(o corev1.Toleration) bool { return o.MatchToleration(&tol) }) {
			t.Spec.Tolerations = append(t.Spec.Tolerations, tol)
		}
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if t.Spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return t
}

// fitter judges nodes: whether a pod should start there, and whether one that is there may stay.
func fitter(ds *appsv1.DaemonSet) func(*corev1.Node) (wanted, stay bool) {
	t := Template(ds)
	affinity := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: t.Spec})
	return func(n *corev1.Node) (wanted, stay bool) {
		if t.Spec.NodeName != "" && t.Spec.NodeName != n.Name {
			return false, false
		}
		if ok, err := affinity.Match(n); !ok || err != nil {
			return false, false
		}
		stay = pods.ToleratesAll(t.Spec.Tolerations, n.Spec.Taints, corev1.TaintEffectNoExecute)
		return stay && pods.ToleratesAll(t.Spec.Tolerations, n.Spec.Taints, corev1.TaintEffectNoSchedule), stay
	}
}

func (p *planner) status() {
	s := *p.Set.Status.DeepCopy()
	s.ObservedGeneration = p.Set.Generation
	s.CurrentNumberScheduled, s.NumberMisscheduled, s.DesiredNumberScheduled, s.NumberReady = 0, 0, 0, 0
	s.UpdatedNumberScheduled, s.NumberAvailable = 0, 0
	for _, pl := range p.places {
		// The oldest pod speaks for the node; during a surge the new one, once it is ready.
		pod := pl.old
		if pod == nil || pl.new != nil && pods.Ready(pl.new) {
			pod = cmp.Or(pl.new, pl.old)
		}
		switch {
		case pl.wanted:
			s.DesiredNumberScheduled++
			if pod == nil {
				continue
			}
			s.CurrentNumberScheduled++
			if pods.Ready(pod) {
				s.NumberReady++
				if p.available(pod) {
					s.NumberAvailable++
				}
			}
			if p.current(pod) {
				s.UpdatedNumberScheduled++
			}
		case pod != nil || len(pl.more) > 0:
			s.NumberMisscheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	p.Status = s
}
