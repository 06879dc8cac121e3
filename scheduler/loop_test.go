package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/reconcile"
	"github.com/skiff-sh/skiff/scheduler/core"
)

// bench is a scheduler over an API in memory.
type bench struct {
	*clienttest.API
	t   *testing.T
	ctx context.Context
}

// run starts a scheduler and calls f when it rests. Time is the bubble's own.
func run(t *testing.T, cfg Config, f func(b *bench), objects ...api.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a := clienttest.New(nil, append([]api.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}}, objects...)...)
		cfg.Deps = reconcile.NewDeps("default-scheduler", a, client.NewCaches(a, nil), nil, nil)
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		f(&bench{a, t, ctx})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // the recorder's last events
	})
}

func node(name, cpu string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("10")}}}
}

func pod(name, cpu string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: corev1.PodSpec{SchedulerName: "default-scheduler",
		Containers: []corev1.Container{{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu)}}}}}}
	for _, f := range edit {
		f(p)
	}
	return p
}

func (b *bench) create(objects ...api.Object) {
	b.t.Helper()
	for _, o := range objects {
		k := kindOf(o)
		if _, err := b.API.Create(b.ctx, k, o, metav1.CreateOptions{}); err != nil {
			b.t.Fatal(err)
		}
	}
	synctest.Wait()
}

func kindOf(o api.Object) *api.Kind {
	for _, k := range kinds() {
		if fmt.Sprintf("%T", k.New()) == fmt.Sprintf("%T", o) {
			return k
		}
	}
	panic(fmt.Sprintf("%T is no kind of the scheduler's", o))
}

func (b *bench) pod(name string) *corev1.Pod {
	b.t.Helper()
	p, err := client.Get[*corev1.Pod](b.ctx, b.API, "ns", name)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// on says where a pod is, once everything rests.
func (b *bench) on(name, want string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.pod(name).Spec.NodeName; got != want {
		b.t.Errorf("%s is on %q, want %q; %s", name, got, want, b.message(name))
	}
}

func (b *bench) message(name string) string {
	for _, c := range b.pod(name).Status.Conditions {
		if c.Type == corev1.PodScheduled {
			return string(c.Reason) + ": " + c.Message
		}
	}
	return ""
}

func (b *bench) remove(o api.Object) {
	b.t.Helper()
	if err := b.API.Delete(b.ctx, kindOf(o), o.GetNamespace(), o.GetName(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) bindings() int {
	return len(b.Calls(func(c clienttest.Call) bool { return c.Subresource == "binding" }))
}

func TestPlacesAndSaysWhyNot(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.create(pod("fits", "1"), pod("big", "4"))
		b.on("fits", "a")
		b.on("big", "")
		want := "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
		if got := b.message("big"); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		tries := b.bindings()
		b.create(node("small", "1")) // does not help, so nothing is tried
		time.Sleep(time.Minute)
		b.create(node("large", "8"))
		b.on("big", "large")
		if n := b.bindings() - tries; n != 1 {
			t.Errorf("%d bindings", n)
		}
		time.Sleep(time.Second)
		var events []string
		list, _ := client.List[*corev1.Event](b.ctx, b.API, "ns", metav1.ListOptions{})
		for _, e := range list {
			events = append(events, e.InvolvedObject.Name+" "+e.Reason)
		}
		slices.Sort(events)
		if got := strings.Join(events, ", "); got != "big FailedScheduling, big Scheduled, fits Scheduled" {
			t.Error("events:", got)
		}
	}, node("a", "2"))
}

// A server that does not serve a kind, or not to the scheduler, does not keep it from scheduling.
func TestGoesOnWithoutKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := clienttest.New(nil, node("a", "2"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
		var nodes atomic.Bool
		a.Fail = func(c clienttest.Call) error {
			switch {
			case c.Verb == "list" && c.Kind.Plural == "resourceslices":
				return apierrors.NewNotFound(c.Kind.GroupResource(), "")
			case c.Verb == "list" && c.Kind.Plural == "persistentvolumes", c.Verb == "list" && c.Kind.Plural == "nodes" && !nodes.Load():
				return apierrors.NewForbidden(c.Kind.GroupResource(), "", errors.New("not you"))
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		s, err := New(Config{Deps: reconcile.NewDeps("default-scheduler", a, client.NewCaches(a, nil), nil, nil)})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		b := &bench{a, t, ctx}
		b.create(pod("p", "1"))
		time.Sleep(time.Minute)
		b.on("p", "") // nothing can be said before the nodes are known
		if got := b.message("p"); got != "" {
			t.Error(got)
		}
		nodes.Store(true)
		time.Sleep(time.Minute)
		b.on("p", "a")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // the recorder's last events
	})
}

func TestFirstNode(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.create(pod("early", "1"))
		if got := b.message("early"); got != "Unschedulable: no nodes available to schedule pods" {
			t.Error(got)
		}
		b.create(node("a", "2"))
		b.on("early", "a")
	})
}

func TestRoomIsTakenWhenItComes(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.create(pod("first", "2"))
		b.create(pod("second", "2"))
		b.on("second", "")
		b.remove(b.pod("first"))
		b.on("second", "a") // at once: nobody else needs the time of its back-off
	}, node("a", "2"))
}

func TestFailedBindingIsTriedAgain(t *testing.T) {
	var mu sync.Mutex
	failures := 2
	run(t, Config{}, func(b *bench) {
		mu.Lock()
		b.Fail = func(c clienttest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			if c.Subresource == "binding" && failures > 0 {
				failures--
				return apierrors.NewInternalError(errors.New("etcd is away"))
			}
			return nil
		}
		mu.Unlock()
		b.create(pod("p", "2"))
		b.on("p", "")
		time.Sleep(500 * time.Millisecond)
		b.on("p", "") // an error's back-off is never cut short
		time.Sleep(4 * time.Second)
		b.on("p", "a")
	}, node("a", "2"))
}

func TestPreemptsEndToEnd(t *testing.T) {
	important := func(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }
	run(t, Config{}, func(b *bench) {
		b.create(pod("low", "2", important(1)), pod("mid", "2", important(5)))
		b.on("low", "a")
		b.create(pod("high", "2", important(9)))
		b.on("high", "")
		victim := b.pod("low")
		if victim.DeletionTimestamp == nil || !slices.ContainsFunc(victim.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.DisruptionTarget && c.Reason == corev1.PodReasonPreemptionByScheduler
		}) || b.pod("high").Status.NominatedNodeName != "a" {
			t.Errorf("the victim: %+v; nominated to %q", victim.Status, b.pod("high").Status.NominatedNodeName)
		}
		b.create(pod("greedy", "2")) // may not take the room that is being made
		b.remove(victim)             // its grace is over
		b.on("high", "a")
		b.on("greedy", "")
		b.on("mid", "a")
	}, node("a", "4"))
}

func TestGatesAndNames(t *testing.T) {
	other := core.DefaultProfile()
	other.SchedulerName, other.Fit.Type = "packer", core.MostAllocated
	run(t, Config{Profiles: []*core.Profile{core.DefaultProfile(), other}}, func(b *bench) {
		named := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.SchedulerName = name } }
		b.create(pod("base", "1", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "a"} }))
		b.create(pod("spreads", "1"), pod("packs", "1", named("packer")), pod("strange", "1", named("nobody")))
		b.on("spreads", "b")
		b.on("strange", "")
		b.create(pod("gated", "1", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "wait"}} }))
		b.on("gated", "")
		p := b.pod("gated").DeepCopy()
		p.Spec.SchedulingGates = nil
		if _, err := client.Update(b.ctx, b.API, p); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b.pod("gated").Spec.NodeName == "" {
			t.Error("the gate is gone, the pod still waits")
		}
	}, node("a", "4"), node("b", "4"))
}

// The scheduler tells a provisioner which node a claim is for, and binds the pod when it has made the volume.
func TestWaitsForVolumes(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		b.create(pod("p", "1", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		}))
		b.on("p", "")
		claim, _ := client.Get[*corev1.PersistentVolumeClaim](b.ctx, b.API, "ns", "data")
		if claim.Annotations[selectedNode] != "a" {
			t.Fatal("annotations:", claim.Annotations)
		}
		// The provisioner gives up: the scheduler chooses again.
		claim = claim.DeepCopy()
		delete(claim.Annotations, selectedNode)
		if _, err := client.Update(b.ctx, b.API, claim); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		claim, _ = client.Get[*corev1.PersistentVolumeClaim](b.ctx, b.API, "ns", "data")
		claim = claim.DeepCopy()
		if claim.Annotations[selectedNode] != "a" {
			t.Fatal("not chosen again:", claim.Annotations, b.message("p"))
		}
		b.create(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "made"}})
		claim.Spec.VolumeName, claim.Annotations["pv.kubernetes.io/bind-completed"] = "made", "yes"
		if _, err := client.Update(b.ctx, b.API, claim); err != nil {
			t.Fatal(err)
		}
		b.on("p", "a")
	}, node("a", "4"), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "wait"}, Provisioner: "d", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data", Namespace: "ns"}, Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("wait")}})
}

func TestAllocatesDevices(t *testing.T) {
	claim := func(name string) *resourcev1.ResourceClaim {
		return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
			Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}}}
	}
	claims := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}}
		}
	}
	run(t, Config{}, func(b *bench) {
		b.create(claim("one"), claim("two"))
		b.create(pod("first", "1", claims("one")))
		b.on("first", "b")
		b.create(pod("friend", "1", claims("one")))
		b.on("friend", "b")
		got, _ := client.Get[*resourcev1.ResourceClaim](b.ctx, b.API, "ns", "one")
		if got.Status.Allocation == nil || len(got.Status.ReservedFor) != 2 || !slices.Contains(got.Finalizers, resourcev1.Finalizer) {
			t.Errorf("the claim is %+v", got.Status)
		}
		b.create(pod("early", "1", claims("three"))) // nothing is said: its claim is about to be made
		if got := b.message("early"); got != "" {
			t.Error(got)
		}
		b.create(pod("second", "1", claims("two")))
		b.on("second", "")
		if got := b.message("second"); !strings.Contains(got, "2 cannot allocate all claims") {
			t.Error(got)
		}
	}, node("a", "4"), node("b", "4"), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{Driver: "d", NodeName: ptr.To("b"),
			Pool: resourcev1.ResourcePool{Name: "b", ResourceSliceCount: 1}, Devices: []resourcev1.Device{{Name: "only"}}}})
}

// A device class stands for an extended resource: the claim is made with the binding, and goes when that fails.
func TestExtendedResourcesFromDevices(t *testing.T) {
	run(t, Config{}, func(b *bench) {
		var failed atomic.Bool
		b.Fail = func(c clienttest.Call) error {
			if c.Subresource == "binding" && !failed.Swap(true) {
				return apierrors.NewInternalError(errors.New("not now"))
			}
			return nil
		}
		b.create(pod("p", "1", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["example.com/gpu"] = resource.MustParse("1")
		}))
		b.on("p", "")
		time.Sleep(4 * time.Second)
		b.on("p", "a")
		claims, err := client.List[*resourcev1.ResourceClaim](b.ctx, b.API, "ns", metav1.ListOptions{})
		if err != nil || len(claims) != 1 {
			t.Fatalf("claims: %v, %v", claims, err)
		}
		c, s := claims[0], b.pod("p").Status.ExtendedResourceClaimStatus
		if c.Status.Allocation == nil || c.Status.ReservedFor[0].Name != "p" || c.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
			t.Errorf("the claim is %+v", c)
		}
		if s == nil || s.ResourceClaimName != c.Name || len(s.RequestMappings) != 1 || s.RequestMappings[0].RequestName != c.Spec.Devices.Requests[0].Name {
			t.Errorf("the pod's status says %+v", s)
		}
	}, node("a", "4"), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr.To("example.com/gpu")}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{Driver: "d", NodeName: ptr.To("a"),
			Pool: resourcev1.ResourcePool{Name: "a", ResourceSliceCount: 1}, Devices: []resourcev1.Device{{Name: "only"}}}})
}

// Devices that do not get ready in time are given back, and others are tried.
func TestDevicesThatAreNotReady(t *testing.T) {
	slow := resourcev1.Device{Name: "slow", BindingConditions: []string{"Attached"}, BindingFailureConditions: []string{"Broken"}, BindsToNode: ptr.To(true)}
	run(t, Config{}, func(b *bench) {
		name := "one"
		b.create(&resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
			Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}}}}}})
		b.create(pod("p", "1", func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &name}}
		}))
		b.on("p", "")
		given := func() bool {
			claim, _ := client.Get[*resourcev1.ResourceClaim](b.ctx, b.API, "ns", name)
			return claim.Status.Allocation != nil
		}
		if !given() {
			t.Fatal("no devices; ", b.message("p"))
		}
		time.Sleep(10*time.Minute + time.Millisecond)
		synctest.Wait()
		if given() {
			t.Error("the devices were not given back")
		}
		time.Sleep(time.Minute) // it is tried again
		claim, _ := client.Get[*resourcev1.ResourceClaim](b.ctx, b.API, "ns", name)
		claim = claim.DeepCopy()
		if claim.Status.Allocation == nil {
			t.Fatal("not tried again; ", b.message("p"))
		}
		claim.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "d", Pool: "b", Device: "slow", Conditions: []metav1.Condition{{Type: "Attached", Status: metav1.ConditionTrue}}}}
		if _, err := client.UpdateStatus(b.ctx, b.API, claim); err != nil {
			t.Fatal(err)
		}
		b.on("p", "b")
	}, node("b", "4"), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{Driver: "d", NodeName: ptr.To("b"),
			Pool: resourcev1.ResourcePool{Name: "b", ResourceSliceCount: 1}, Devices: []resourcev1.Device{slow}}})
}

func TestQueue(t *testing.T) {
	q, now := newQueue(time.Second, 10*time.Second), time.Unix(1000, 0)
	named := func(name string, priority int32) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}}
	}
	var it *item
	take := func() string {
		if it, _ = q.next(now); it == nil {
			return ""
		}
		return it.pod.Name
	}
	q.put(named("low", 0), now)
	q.put(named("late", 0), now)
	q.put(named("high", 10), now)
	if got := take(); got != "high" {
		t.Fatal("first is", got)
	}
	q.drop("high")
	if got := take(); got != "low" {
		t.Fatal("second is", got)
	}
	fit := map[string]bool{core.NodeResourcesFit: true}
	q.park(it, fit, now)
	if got := take(); got != "late" {
		t.Fatal("third is", got)
	}
	q.drop("late")
	if it, wake := q.next(now); it != nil || !wake.Equal(now.Add(retryUnschedulable)) {
		t.Fatalf("a parked pod: %v, wake %v", it, wake)
	}
	q.change(now, "NodeAdd", []string{core.InterPodAffinity}, nil)
	q.change(now, "NodeAdd", []string{core.NodeResourcesFit}, func(*item) bool { return false })
	if got := take(); got != "" {
		t.Fatal("a change that does not help woke", got)
	}
	q.change(now, "NodeAdd", everyRule, nil)
	if got := take(); got != "low" {
		t.Fatal("with nothing else to do, the back-off is waited out before", got)
	}
	q.park(it, fit, now)
	q.put(named("busy", 5), now)
	q.change(now, "NodeAdd", everyRule, nil)
	if got := take(); got != "busy" {
		t.Fatal("one that is ready comes first, not", got)
	}
	q.drop("busy")
	it = q.items["low"]
	for range 10 {
		q.take(it)
		it.attempts++
		q.fail(it, now)
		none, wake := q.next(now)
		if none != nil || wake.Sub(now) > 10*time.Second {
			t.Fatal("back-off", wake.Sub(now))
		}
		if now = wake; take() != "low" {
			t.Fatal("not ready when its back-off was over")
		}
	}
	q.park(it, fit, now)
	now = now.Add(retryUnschedulable)
	if take() != "low" {
		t.Fatal("forgotten")
	}
	q.drop("low")
	if it, wake := q.next(now); it != nil || !wake.IsZero() || len(q.items)+len(q.by) > 0 {
		t.Fatalf("an empty queue gives %v, %v", it, wake)
	}
}
