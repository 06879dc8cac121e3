package controllers_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/daemonset"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// These tests drive the workload controllers through random histories: users edit, pods die, nodes vanish, and writes
// fail before or after they took effect. After every write of a controller the invariants are checked against the API
// itself, and in the end everything must come to what was asked for last.

var (
	histories = flag.Uint64("histories", 20, "how many random histories each workload controller is driven through")
	firstSeed = flag.Uint64("seed", 0, "the first history's seed")
)

// history is one random run.
type history struct {
	*cluster
	r     *rand.Rand
	calm  bool // nothing fails and nobody dies: the strict invariants hold
	check func(verb string, obj api.Object)
	// watching is the resource whose writes check is called for.
	watching string

	mu        sync.Mutex
	faults    *rand.Rand
	faulty    bool
	disturbed time.Time // when the world last changed under the controllers
}

// each runs f for every seed; every other history is calm. Check, which f may set, is called after every write to a pod
// (or what is being watched) by a controller, with the object as it was before a delete and after all else.
func each(t *testing.T, names []string, f func(h *history)) {
	for i := range *histories {
		seed := *firstSeed + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := &history{watching: "pods", r: rand.New(rand.NewPCG(seed, 1)), faults: rand.New(rand.NewPCG(seed, 2)), calm: seed%2 == 0, faulty: seed%2 == 1}
			inClusterOf(t, func(c *cluster) {
				h.cluster = c
				c.wrap = func(i client.Interface) client.Interface { return unreliable{i, h} }
				c.only = func(name string) bool { return slices.Contains(names, name) }
			}, func(*cluster) { f(h) })
		})
	}
}

// still ends the faults, so that the history can come to rest.
func (h *history) still() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faulty = false
}

// disturb notes that somebody else changes the world now.
func (h *history) disturb() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disturbed = time.Now()
}

// now is the controllers' time.
func (h *history) now() time.Time { return time.Now().Add(h.skew.ahead()) }

// jump sets the controllers' clock forward or back.
func (h *history) jump(d time.Duration) {
	h.disturb()
	h.skew.by.Add(int64(d))
}

// quiet reports whether the controllers have seen all that was done to the world.
func (h *history) quiet() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.disturbed) > 0
}

func (h *history) fault(k *api.Kind, name string) (before, after error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.faulty {
		return nil, nil
	}
	switch h.faults.IntN(30) {
	case 0:
		return apierrors.NewConflict(k.GroupResource(), name, errors.New("somebody was faster")), nil
	case 1:
		return apierrors.NewInternalError(errors.New("no luck")), nil
	case 2:
		return nil, errors.New("the connection was lost before the answer came")
	}
	return nil, nil
}

// kill deletes a random pod as a user does, or lets it fail, or takes its node's word away.
func (h *history) kill() {
	list := list[*corev1.Pod](h.cluster)
	if len(list) == 0 {
		return
	}
	slices.SortFunc(list, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	p := list[h.r.IntN(len(list))].DeepCopy()
	h.disturb()
	switch h.r.IntN(3) {
	case 0:
		_ = h.API.Delete(h.ctx, client.KindOf[*corev1.Pod](), p.Namespace, p.Name, metav1.DeleteOptions{})
	case 1:
		_ = h.API.Delete(h.ctx, client.KindOf[*corev1.Pod](), p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	case 2:
		if p.Status.PodIP != "" && p.DeletionTimestamp == nil && !pods.Finished(p) {
			p.Status.Phase = corev1.PodFailed
			p.Status.Conditions = nil
			_, _ = client.UpdateStatus(h.ctx, h.API, p)
		}
	}
}

// unreliable is the API as controllers see it.
type unreliable struct {
	client.Interface
	h *history
}

func (u unreliable) do(k *api.Kind, name, verb string, before api.Object, f func() (api.Object, error)) (api.Object, error) {
	fail, lose := u.h.fault(k, name)
	if fail != nil {
		return nil, fail
	}
	made, err := f()
	if err != nil {
		return nil, err
	}
	if k.Plural == u.h.watching && u.h.check != nil {
		obj := made
		if before != nil {
			obj = before
		}
		u.h.check(verb, obj)
	}
	if lose != nil {
		return nil, lose
	}
	return made, nil
}

func (u unreliable) Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error) {
	return u.do(k, obj.GetName(), "create", nil, func() (api.Object, error) { return u.Interface.Create(ctx, k, obj, o) })
}

func (u unreliable) Update(ctx context.Context, k *api.Kind, obj api.Object, sub string, o metav1.UpdateOptions) (api.Object, error) {
	return u.do(k, obj.GetName(), "update", nil, func() (api.Object, error) { return u.Interface.Update(ctx, k, obj, sub, o) })
}

func (u unreliable) Patch(ctx context.Context, k *api.Kind, ns, name, sub string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error) {
	return u.do(k, name, "patch", nil, func() (api.Object, error) { return u.Interface.Patch(ctx, k, ns, name, sub, t, data, o) })
}

func (u unreliable) Delete(ctx context.Context, k *api.Kind, ns, name string, o metav1.DeleteOptions) error {
	var was api.Object
	if k.Plural == u.h.watching {
		was, _ = u.Interface.Get(ctx, k, ns, name, metav1.GetOptions{})
	}
	_, err := u.do(k, name, "delete", was, func() (api.Object, error) { return was, u.Interface.Delete(ctx, k, ns, name, o) })
	return err
}

func (u unreliable) Action(ctx context.Context, k *api.Kind, ns, name, sub string, body runtime.Object) (runtime.Object, error) {
	return u.Interface.Action(ctx, k, ns, name, sub, body)
}

// census counts pods: those that are there and not on their way out, and those of them that are ready.
func (h *history) census() (live, ready int) {
	for _, p := range list[*corev1.Pod](h.cluster) {
		if !pods.Active(p) {
			continue
		}
		live++
		if pods.Ready(p) {
			ready++
		}
	}
	return live, ready
}

func (h *history) someTime() { h.settle(time.Duration(h.r.IntN(3000)) * time.Millisecond) }

func image(t *corev1.PodTemplateSpec) *string { return &t.Spec.Containers[0].Image }

func TestDeploymentHistories(t *testing.T) {
	each(t, []string{"deployment-controller", "replicaset-controller"}, func(h *history) {
		surge, missing := h.r.Int32N(4), h.r.Int32N(4)
		if surge == 0 && missing == 0 {
			missing = 1
		}
		d := deployment(4, intstr.FromInt32(surge), intstr.FromInt32(missing))
		h.create(d)
		var mu sync.Mutex
		sizes := []int32{4} // what was asked for lately
		bounds := func() (least, most int32) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Min(sizes), slices.Max(sizes)
		}
		h.settle(20 * time.Second)
		h.check = func(verb string, obj api.Object) {
			least, most := bounds()
			live, ready := h.census()
			switch {
			case verb == "create" && h.calm && live > int(most+surge):
				h.t.Errorf("%d pods after a create, of %d and a surge of %d", live, most, surge)
			case verb == "delete" && h.calm && pods.Ready(obj.(*corev1.Pod)) && ready < int(least-missing):
				h.t.Errorf("%d pods are ready after a delete, of %d of which %d may be missing", ready, least, missing)
			}
		}
		want, size := "v1", int32(4)
		for range 20 {
			switch h.r.IntN(5) {
			case 0:
				size = h.r.Int32N(9)
				mu.Lock()
				sizes = append(sizes, size)
				mu.Unlock()
				change(h.cluster, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = &size })
			case 1, 2:
				want = fmt.Sprintf("v%d", h.r.IntN(4))
				change(h.cluster, "web", func(d *appsv1.Deployment) { *image(&d.Spec.Template) = want })
			case 3:
				change(h.cluster, "web", func(d *appsv1.Deployment) { d.Spec.Paused = !d.Spec.Paused })
			case 4:
				if !h.calm {
					h.kill()
				}
			}
			h.someTime()
		}
		h.still()
		change(h.cluster, "web", func(d *appsv1.Deployment) { d.Spec.Paused = false })
		h.settle(10 * time.Minute)
		got := map[string]int{}
		for _, p := range list[*corev1.Pod](h.cluster) {
			if pods.Active(p) {
				got[*image(&corev1.PodTemplateSpec{Spec: p.Spec})]++
			}
		}
		if len(got) > 1 || got[want] != int(size) {
			h.t.Errorf("pods %v, want %d of %s", got, size, want)
		}
		s := get[*appsv1.Deployment](h.cluster, "web").Status
		if s.Replicas != size || s.AvailableReplicas != size || s.UpdatedReplicas != size {
			h.t.Errorf("status %+v, want %d", s, size)
		}
	})
}

func ordinal(h *history, p *corev1.Pod) int {
	_, s, _ := strings.Cut(p.Name, "-")
	n, err := strconv.Atoi(s)
	if err != nil {
		h.t.Fatalf("a pod called %s", p.Name)
	}
	return n
}

func TestStatefulSetHistories(t *testing.T) {
	each(t, []string{"statefulset-controller"}, func(h *history) {
		start := h.r.Int32N(3)
		parallel := h.r.IntN(3) == 0
		missing := h.r.Int32N(3) + 1
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](3), ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Template: template("db", "v1"),
			Ordinals: &appsv1.StatefulSetOrdinals{Start: start}, PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType,
				RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: ptr.To(intstr.FromInt32(missing))}},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}}}
		if parallel {
			set.Spec.PodManagementPolicy = appsv1.ParallelPodManagement
		}
		h.create(set)
		h.check = func(verb string, obj api.Object) {
			p := obj.(*corev1.Pod)
			n := ordinal(h, p)
			if !h.quiet() || parallel {
				return
			}
			spec := get[*appsv1.StatefulSet](h.cluster, "db").Spec
			first, last := int(spec.Ordinals.Start), int(spec.Ordinals.Start+*spec.Replicas)-1
			byOrdinal := map[int]*corev1.Pod{}
			for _, q := range list[*corev1.Pod](h.cluster) {
				byOrdinal[ordinal(h, q)] = q
			}
			switch {
			case verb == "create":
				for i := first; i < n; i++ {
					if q := byOrdinal[i]; q == nil || !pods.Ready(q) || q.DeletionTimestamp != nil {
						h.t.Errorf("%s was created before db-%d was ready", p.Name, i)
					}
				}
			case verb == "delete" && n > last:
				for i := range byOrdinal {
					if i > n {
						h.t.Errorf("%s was deleted while db-%d is there", p.Name, i)
					}
				}
			case verb == "delete" && pods.Ready(p):
				gone := 0
				for i := first; i <= last; i++ {
					if q := byOrdinal[i]; q == nil || !pods.Ready(q) || q.DeletionTimestamp != nil {
						gone++
					}
				}
				if gone > int(missing) {
					h.t.Errorf("%s was deleted and %d are missing, more than %d", p.Name, gone, missing)
				}
			}
		}
		want, size, partition := "v1", int32(3), int32(0)
		for range 20 {
			h.disturb()
			switch h.r.IntN(5) {
			case 0:
				size = h.r.Int32N(6)
				change(h.cluster, "db", func(s *appsv1.StatefulSet) { s.Spec.Replicas = &size })
			case 1:
				want = fmt.Sprintf("v%d", h.r.IntN(4))
				change(h.cluster, "db", func(s *appsv1.StatefulSet) { *image(&s.Spec.Template) = want })
			case 2:
				partition = h.r.Int32N(4)
				change(h.cluster, "db", func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = &partition })
			case 3, 4:
				if !h.calm {
					h.kill()
				}
			}
			h.someTime()
		}
		h.still()
		h.disturb()
		change(h.cluster, "db", func(s *appsv1.StatefulSet) { s.Spec.UpdateStrategy.RollingUpdate.Partition = ptr.To[int32](0) })
		h.settle(10 * time.Minute)
		var got []int
		for _, p := range list[*corev1.Pod](h.cluster) {
			got = append(got, ordinal(h, p))
			if i := p.Spec.Containers[0].Image; i != want || !pods.Ready(p) || p.DeletionTimestamp != nil {
				h.t.Errorf("%s runs %s, ready %v, want %s", p.Name, i, pods.Ready(p), want)
			}
		}
		slices.Sort(got)
		for i := range got {
			if got[i] != i+int(start) {
				h.t.Errorf("ordinals %v from %d", got, start)
			}
		}
		s := get[*appsv1.StatefulSet](h.cluster, "db").Status
		if len(got) != int(size) || s.ReadyReplicas != size || s.AvailableReplicas != size || s.CurrentRevision != s.UpdateRevision || s.UpdatedReplicas != size {
			h.t.Errorf("%d pods, status %+v, want %d", len(got), s, size)
		}
	})
}

func TestDaemonSetHistories(t *testing.T) {
	each(t, []string{"daemonset-controller", "pod-garbage-collector-controller"}, func(h *history) {
		surge, missing := h.r.IntN(2)*(1+h.r.IntN(2)), 1+h.r.IntN(2)
		ru := &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt(missing)), MaxSurge: ptr.To(intstr.FromInt(0))}
		if surge > 0 {
			ru = &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt(0)), MaxSurge: ptr.To(intstr.FromInt(surge))}
			missing = 0
		}
		h.create(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: template("web", "v1"),
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: ru}}})
		h.settle(20 * time.Second)
		h.check = func(verb string, obj api.Object) {
			if !h.calm || !h.quiet() {
				return
			}
			onNode, ready := map[string]int{}, map[string]bool{}
			for _, p := range list[*corev1.Pod](h.cluster) {
				if pods.Active(p) {
					onNode[daemonset.Target(p)]++
					ready[daemonset.Target(p)] = ready[daemonset.Target(p)] || pods.Ready(p)
				}
			}
			extra, lacking := 0, 0
			for _, n := range list[*corev1.Node](h.cluster) {
				extra += max(onNode[n.Name]-1, 0)
				if !ready[n.Name] {
					lacking++
				}
			}
			switch {
			case verb == "create" && extra > surge:
				h.t.Errorf("%d pods too many after a create, the surge is %d", extra, surge)
			case verb == "delete" && pods.Ready(obj.(*corev1.Pod)) && lacking > missing:
				h.t.Errorf("%d nodes lack a ready pod after a delete, %d may", lacking, missing)
			}
		}
		want, nodes := "v1", 3
		for range 20 {
			switch h.r.IntN(4) {
			case 0, 1:
				want = fmt.Sprintf("v%d", h.r.IntN(4))
				change(h.cluster, "web", func(d *appsv1.DaemonSet) { *image(&d.Spec.Template) = want })
			case 2:
				if !h.calm {
					h.kill()
				}
			case 3:
				if !h.calm {
					h.disturb()
					if nodes > 2 && h.r.IntN(2) == 0 {
						_ = h.API.Delete(h.ctx, client.KindOf[*corev1.Node](), "", fmt.Sprintf("n%d", nodes), metav1.DeleteOptions{})
						nodes--
					} else {
						nodes++
						h.API.Put(node(fmt.Sprintf("n%d", nodes)))
					}
				}
			}
			h.someTime()
		}
		h.still()
		h.settle(40 * time.Minute)
		got := map[string]int{}
		for _, p := range list[*corev1.Pod](h.cluster) {
			if p.Spec.Containers[0].Image != want || !pods.Ready(p) || p.DeletionTimestamp != nil {
				h.t.Errorf("%s on %s runs %s, ready %v, phase %s, want %s", p.Name, p.Spec.NodeName, p.Spec.Containers[0].Image, pods.Ready(p), p.Status.Phase, want)
			}
			got[daemonset.Target(p)]++
		}
		if len(got) != nodes {
			h.t.Errorf("pods on %v, want %d nodes", got, nodes)
		}
		for name, n := range got {
			if n != 1 {
				h.t.Errorf("%d pods on %s", n, name)
			}
		}
		s := get[*appsv1.DaemonSet](h.cluster, "web").Status
		if int(s.NumberAvailable) != nodes || int(s.UpdatedNumberScheduled) != nodes || int(s.DesiredNumberScheduled) != nodes {
			h.t.Errorf("status %+v, want %d", s, nodes)
		}
	})
}

func TestJobHistories(t *testing.T) {
	each(t, []string{"job-controller", "pod-garbage-collector-controller"}, func(h *history) {
		var mu sync.Mutex
		succeeded, failed := map[types.UID]string{}, map[types.UID]bool{}
		fate := rand.New(rand.NewPCG(h.r.Uint64(), 3))
		h.ends(func(p *corev1.Pod) corev1.PodStatus {
			mu.Lock()
			defer mu.Unlock()
			if fate.IntN(4) == 0 {
				failed[p.UID] = true
				return corev1.PodStatus{Phase: corev1.PodFailed}
			}
			succeeded[p.UID] = p.Annotations[batchv1.JobCompletionIndexAnnotation]
			return corev1.PodStatus{Phase: corev1.PodSucceeded}
		})
		indexed := h.r.IntN(2) == 0
		completions, parallelism := h.r.Int32N(8)+1, h.r.Int32N(4)+1
		replacing := h.r.IntN(2) == 0
		h.check = func(verb string, _ api.Object) {
			live, _ := h.census()
			if verb == "create" && h.calm && h.quiet() && live > int(parallelism) {
				h.t.Errorf("%d pods at once, %d may be", live, parallelism)
			}
		}
		h.create(job("j", func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.BackoffLimit = &completions, &parallelism, ptr.To[int32](1000)
			if indexed {
				s.CompletionMode = ptr.To(batchv1.IndexedCompletion)
			}
			if replacing {
				s.PodReplacementPolicy = ptr.To(batchv1.Failed)
			}
		}))
		truth := func() (n int) {
			mu.Lock()
			defer mu.Unlock()
			if !indexed {
				return len(succeeded)
			}
			seen := map[string]bool{}
			for _, i := range succeeded {
				seen[i] = true
			}
			return len(seen)
		}
		for range 12 {
			h.settle(time.Duration(h.r.IntN(4000)) * time.Millisecond)
			if j := get[*batchv1.Job](h.cluster, "j"); int(j.Status.Succeeded) > truth() {
				h.t.Fatalf("counted %d of %d successes", j.Status.Succeeded, truth())
			}
			switch h.r.IntN(3) {
			case 0:
				if !h.calm {
					h.kill()
				}
			case 1:
				h.disturb()
				change(h.cluster, "j", func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(!ptr.Deref(j.Spec.Suspend, false)) })
			}
		}
		h.still()
		h.disturb()
		change(h.cluster, "j", func(j *batchv1.Job) { j.Spec.Suspend = nil })
		h.settle(5 * time.Hour)
		j := get[*batchv1.Job](h.cluster, "j")
		if jobCondition(j, batchv1.JobComplete) == "" {
			h.t.Fatalf("not complete: %+v", j.Status)
		}
		// One that was let go by a suspension whose delete failed may succeed all the same, and does not count.
		if got := int(j.Status.Succeeded); got > truth() || h.calm && got != truth() || got < int(completions) {
			h.t.Errorf("counted %d successes, there were %d, of %d", got, truth(), completions)
		}
		if u := j.Status.UncountedTerminatedPods; u != nil && len(u.Succeeded)+len(u.Failed) > 0 {
			h.t.Errorf("left uncounted: %+v", u)
		}
		mu.Lock()
		defer mu.Unlock()
		if h.calm && int(j.Status.Failed) < len(failed) {
			h.t.Errorf("counted %d failures, there were at least %d", j.Status.Failed, len(failed))
		}
		for _, p := range list[*corev1.Pod](h.cluster) {
			if len(p.Finalizers) > 0 {
				h.t.Errorf("%s still has %v", p.Name, p.Finalizers)
			}
		}
	})
}
