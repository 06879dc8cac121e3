// Package statefulset keeps the numbered pods of StatefulSets, each with its own name and claims.
//
// Invariant: there is never more than one pod for an ordinal, and unless podManagementPolicy is Parallel a pod is
// started only after all lower ones are available, and stopped only after all higher ones are gone. Only controllers/
// may import statefulset.
package statefulset

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/controllers/revisions"
)

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

// Input is all that a plan depends on.
type Input struct {
	Set             *appsv1.StatefulSet
	Pods            []*corev1.Pod // those that the set owns
	Current, Update *appsv1.ControllerRevision
	Claim           func(name string) (*corev1.PersistentVolumeClaim, bool)
	Now             time.Time
}

// Decision is what to do for one set.
type Decision struct {
	Actions []plan.Action
	Status  appsv1.StatefulSetStatus
	Again   time.Duration // when a pod becomes available; 0: no need
}

type planner struct {
	Input
	Decision
	start, replicas int
	slots           []*corev1.Pod // by ordinal - start; nil: missing
	condemned       []*corev1.Pod // highest ordinal first
}

// Plan compares the set with its pods.
func Plan(in Input) Decision {
	p := &planner{Input: in, replicas: int(ptr.Deref(in.Set.Spec.Replicas, 1))}
	if in.Set.Spec.Ordinals != nil {
		p.start = int(in.Set.Spec.Ordinals.Start)
	}
	p.observe()
	p.status()
	if in.Set.DeletionTimestamp == nil {
		p.retention()
		if p.fill() && p.shrink() {
			p.update()
		}
	}
	return p.Decision
}

// Ordinal reads the pod's number out of its name; false if the name is not one of the set's.
func Ordinal(set *appsv1.StatefulSet, p *corev1.Pod) (int, bool) {
	s, ok := strings.CutPrefix(p.Name, set.Name+"-")
	n, err := strconv.Atoi(s)
	return n, ok && err == nil && n >= 0 && strconv.Itoa(n) == s
}

func (p *planner) observe() {
	p.slots = make([]*corev1.Pod, p.replicas)
	for _, pod := range p.Pods {
		n, ok := Ordinal(p.Set, pod)
		switch {
		case !ok:
		case n >= p.start && n < p.start+p.replicas:
			p.slots[n-p.start] = pod
		default:
			p.condemned = append(p.condemned, pod)
		}
	}
	slices.SortFunc(p.condemned, func(a, b *corev1.Pod) int {
		x, _ := Ordinal(p.Set, a)
		y, _ := Ordinal(p.Set, b)
		return cmp.Compare(y, x)
	})
}

func (p *planner) parallel() bool {
	return p.Set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
}

func (p *planner) available(pod *corev1.Pod) bool {
	ok, wait := pods.Available(pod, p.Set.Spec.MinReadySeconds, p.Now)
	if wait > 0 && (p.Again == 0 || wait < p.Again) {
		p.Again = wait
	}
	return ok && pod.Status.Phase == corev1.PodRunning
}

func (p *planner) healthy(pod *corev1.Pod) bool {
	return pod != nil && pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodRunning && pods.Ready(pod)
}

func (p *planner) unhealthy(pod *corev1.Pod) bool { return !p.healthy(pod) }

// fill starts missing pods, the lowest first. It reports whether every pod is there and, in order, available.
func (p *planner) fill() bool {
	for i, pod := range p.slots {
		switch {
		case pod == nil:
			p.create(p.start + i)
			if !p.parallel() {
				return false
			}
		case pods.Finished(pod) && pod.DeletionTimestamp == nil:
			p.event(corev1.EventTypeWarning, "RecreatingFailedPod", "StatefulSet %s/%s is recreating %s Pod %s", p.Set.Namespace, p.Set.Name, strings.ToLower(string(pod.Status.Phase)), pod.Name)
			p.delete(pod)
			if !p.parallel() {
				return false
			}
		default:
			p.repair(pod, p.start+i)
			if !p.parallel() && (pod.DeletionTimestamp != nil || !pods.Ready(pod) || !p.available(pod)) {
				return false
			}
		}
	}
	return true
}

// shrink stops pods that are too many, the highest first, but in order an unhealthy one only when all lower ones are
// healthy. It reports whether none is left.
func (p *planner) shrink() bool {
	for i, pod := range p.condemned {
		if pod.DeletionTimestamp != nil {
			if !p.parallel() {
				return false
			}
			continue
		}
		if !p.parallel() && !(p.healthy(pod) && p.available(pod)) && slices.ContainsFunc(p.condemned[i+1:], p.unhealthy) {
			return false
		}
		p.delete(pod)
		if !p.parallel() {
			return false
		}
	}
	return true
}

// update replaces pods of another revision, the highest first, down to the partition and as long as no more than
// maxUnavailable are missing.
func (p *planner) update() {
	if p.Set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	partition, budget := 0, 1
	if ru := p.Set.Spec.UpdateStrategy.RollingUpdate; ru != nil {
		partition = int(ptr.Deref(ru.Partition, 0))
		if ru.MaxUnavailable != nil {
			n, _ := intstr.GetScaledValueFromIntOrPercent(ptr.To(*ru.MaxUnavailable), p.replicas, true)
			budget = max(n, 1)
		}
	}
	for i := len(p.slots) - 1; i >= partition && budget > 0; i-- {
		pod := p.slots[i]
		if pod == nil {
			budget--
			continue
		}
		if revisionOf(pod) != p.Update.Name && pod.DeletionTimestamp == nil {
			p.delete(pod)
			budget--
			continue
		}
		if !p.healthy(pod) || !p.available(pod) {
			budget--
		}
	}
}

func revisionOf(p *corev1.Pod) string { return p.Labels[revisions.HashLabel] }

func (p *planner) event(typ, reason, format string, args ...any) {
	p.Actions = append(p.Actions, plan.Event{About: p.Set, Type: typ, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (p *planner) delete(pod *corev1.Pod) {
	p.Actions = append(p.Actions, plan.Delete{Obj: pod})
	p.event(corev1.EventTypeNormal, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", pod.Name, p.Set.Name)
}

// create makes the pod of an ordinal, after the claims that it lacks.
func (p *planner) create(ordinal int) {
	pod := p.pod(ordinal)
	p.claims(pod, ordinal)
	p.Actions = append(p.Actions, plan.Create{Obj: pod})
	p.event(corev1.EventTypeNormal, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", pod.Name, p.Set.Name)
}

func (p *planner) claims(pod *corev1.Pod, ordinal int) {
	for i := range p.Set.Spec.VolumeClaimTemplates {
		c := p.claim(&p.Set.Spec.VolumeClaimTemplates[i], ordinal)
		if _, ok := p.Claim(c.Name); ok {
			continue
		}
		p.Actions = append(p.Actions, plan.Create{Obj: c, IfMissing: true})
		p.event(corev1.EventTypeNormal, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", c.Name, pod.Name, p.Set.Name)
	}
}

func (p *planner) podName(ordinal int) string { return p.Set.Name + "-" + strconv.Itoa(ordinal) }

func claimName(template, pod string) string { return template + "-" + pod }

func (p *planner) claim(t *corev1.PersistentVolumeClaim, ordinal int) *corev1.PersistentVolumeClaim {
	c := t.DeepCopy()
	c.Name, c.Namespace = claimName(t.Name, p.podName(ordinal)), p.Set.Namespace
	c.Status = corev1.PersistentVolumeClaimStatus{}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, p.Set.Spec.Selector.MatchLabels)
	if whenDeleted(p.Set) == appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
		c.OwnerReferences = append(c.OwnerReferences, p.setRef())
	}
	return c
}

// pod makes the pod of an ordinal from the revision that it should have now.
func (p *planner) pod(ordinal int) *corev1.Pod {
	rev := p.revisionFor(ordinal)
	template, ok := revisions.Template(rev)
	if !ok {
		template, rev = p.Set.Spec.Template, p.Update
	}
	pod := pods.FromTemplate(&template, p.Set, kind)
	pod.GenerateName, pod.Name = "", p.podName(ordinal)
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[revisions.HashLabel] = rev.Name
	p.identify(pod, ordinal)
	return pod
}

// identify gives the pod what is its own: labels, host name and volumes.
func (p *planner) identify(pod *corev1.Pod, ordinal int) {
	pod.Labels[appsv1.StatefulSetPodNameLabel] = pod.Name
	pod.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, p.Set.Spec.ServiceName
	var volumes []corev1.Volume
	own := map[string]bool{}
	for i := range p.Set.Spec.VolumeClaimTemplates {
		name := p.Set.Spec.VolumeClaimTemplates[i].Name
		own[name] = true
		volumes = append(volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(name, pod.Name)}}})
	}
	for _, v := range pod.Spec.Volumes {
		if !own[v.Name] {
			volumes = append(volumes, v)
		}
	}
	pod.Spec.Volumes = volumes
}

// repair gives back to a pod the labels and claims that name it.
func (p *planner) repair(pod *corev1.Pod, ordinal int) {
	if pod.DeletionTimestamp != nil {
		return
	}
	if pod.Status.Phase == corev1.PodPending {
		p.claims(pod, ordinal)
	}
	index := strconv.Itoa(ordinal)
	if pod.Labels[appsv1.StatefulSetPodNameLabel] == pod.Name && pod.Labels[appsv1.PodIndexLabel] == index {
		return
	}
	pod = pod.DeepCopy()
	pod.Labels[appsv1.StatefulSetPodNameLabel], pod.Labels[appsv1.PodIndexLabel] = pod.Name, index
	p.Actions = append(p.Actions, plan.Update{Obj: pod})
}

// revisionFor is the revision that a new pod of the ordinal gets: below the partition, or where there is none and an
// update has not come down to it, the current one.
func (p *planner) revisionFor(ordinal int) *appsv1.ControllerRevision {
	if p.Set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return p.Update
	}
	below := int(p.Set.Status.CurrentReplicas)
	if ru := p.Set.Spec.UpdateStrategy.RollingUpdate; ru != nil {
		below = int(ptr.Deref(ru.Partition, 0))
	}
	if ordinal < p.start+below {
		return p.Current
	}
	return p.Update
}

func whenDeleted(set *appsv1.StatefulSet) appsv1.PersistentVolumeClaimRetentionPolicyType {
	if r := set.Spec.PersistentVolumeClaimRetentionPolicy; r != nil && r.WhenDeleted != "" {
		return r.WhenDeleted
	}
	return appsv1.RetainPersistentVolumeClaimRetentionPolicyType
}

func whenScaled(set *appsv1.StatefulSet) appsv1.PersistentVolumeClaimRetentionPolicyType {
	if r := set.Spec.PersistentVolumeClaimRetentionPolicy; r != nil && r.WhenScaled != "" {
		return r.WhenScaled
	}
	return appsv1.RetainPersistentVolumeClaimRetentionPolicyType
}

func (p *planner) setRef() metav1.OwnerReference { return *metav1.NewControllerRef(p.Set, kind) }

// retention keeps the claims' owners true to the retention policy, so that the garbage collector does the rest: the
// set owns them where they go with it, and a condemned pod where they go with the scale.
func (p *planner) retention() {
	for i, pod := range p.slots {
		if pod != nil {
			p.own(p.start+i, whenDeleted(p.Set) == appsv1.DeletePersistentVolumeClaimRetentionPolicyType, nil)
		}
	}
	for _, pod := range p.condemned {
		n, _ := Ordinal(p.Set, pod)
		byScale := whenScaled(p.Set) == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
		bySet := whenDeleted(p.Set) == appsv1.DeletePersistentVolumeClaimRetentionPolicyType && !byScale
		if byScale {
			p.own(n, bySet, pod)
		} else {
			p.own(n, bySet, nil)
		}
	}
}

func (p *planner) own(ordinal int, bySet bool, byPod *corev1.Pod) {
	name := p.podName(ordinal)
	for i := range p.Set.Spec.VolumeClaimTemplates {
		c, ok := p.Claim(claimName(p.Set.Spec.VolumeClaimTemplates[i].Name, name))
		if !ok {
			continue
		}
		refs := slices.DeleteFunc(slices.Clone(c.OwnerReferences), func(r metav1.OwnerReference) bool {
			return r.UID == p.Set.UID || r.Kind == "Pod" && r.APIVersion == "v1" && r.Name == name
		})
		if bySet {
			refs = append(refs, p.setRef())
		}
		if byPod != nil {
			refs = append(refs, *metav1.NewControllerRef(byPod, corev1.SchemeGroupVersion.WithKind("Pod")))
		}
		same := func(a, b metav1.OwnerReference) bool { return a.UID == b.UID }
		if !slices.EqualFunc(refs, c.OwnerReferences, same) {
			c = c.DeepCopy()
			c.OwnerReferences = refs
			p.Actions = append(p.Actions, plan.Update{Obj: c})
		}
	}
}

func (p *planner) status() {
	s := *p.Set.Status.DeepCopy()
	s.ObservedGeneration = p.Set.Generation
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	s.CurrentRevision, s.UpdateRevision = p.Current.Name, p.Update.Name
	for _, pod := range p.Pods {
		if _, ok := Ordinal(p.Set, pod); !ok || pod.Status.Phase == "" {
			continue
		}
		s.Replicas++
		if pod.Status.Phase == corev1.PodRunning && pods.Ready(pod) {
			s.ReadyReplicas++
			if p.available(pod) {
				s.AvailableReplicas++
			}
		}
		if pod.DeletionTimestamp != nil || pods.Finished(pod) {
			continue
		}
		if revisionOf(pod) == p.Current.Name {
			s.CurrentReplicas++
		}
		if revisionOf(pod) == p.Update.Name {
			s.UpdatedReplicas++
		}
	}
	if p.Set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && int(s.UpdatedReplicas) == p.replicas &&
		s.Replicas == s.UpdatedReplicas && s.ReadyReplicas == s.Replicas {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	p.Status = s
}
