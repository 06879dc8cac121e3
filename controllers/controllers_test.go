package controllers_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/controllers"
	"github.com/skiff-sh/skiff/controllers/daemonset"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// cluster is all controllers over an API in memory, with a node that runs every pod.
type cluster struct {
	*clienttest.API
	t   *testing.T
	ctx context.Context
	mu  sync.Mutex // guards run and watch, and what they touch
	// run decides what becomes of a pod that was started; nil: it becomes ready.
	run func(p *corev1.Pod) corev1.PodStatus
	// closed refuses creates, as admission does in a namespace that is being deleted.
	closed atomic.Bool
	// watch is called after every change of a pod.
	watch func()
	// wrap stands between the controllers and the API; nil: nothing does.
	wrap func(client.Interface) client.Interface
	// read is wrap for the caches.
	read func(client.Interface) client.Interface
	only func(name string) bool // which controllers run; nil: all
	skew skewed                 // the controllers' clock
}

// skewed is a clock that can be set; timers do not notice, as the system's do not.
type skewed struct {
	clock.RealClock
	by atomic.Int64
}

func (s *skewed) ahead() time.Duration            { return time.Duration(s.by.Load()) }
func (s *skewed) Now() time.Time                  { return time.Now().Add(s.ahead()) }
func (s *skewed) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

func inCluster(t *testing.T, f func(c *cluster), objects ...api.Object) {
	t.Helper()
	inClusterOf(t, nil, f, objects...)
}

// inClusterOf is inCluster with something set before the controllers start.
func inClusterOf(t *testing.T, set func(c *cluster), f func(c *cluster), objects ...api.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		objects = append([]api.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}},
			node("n1"), node("n2"), node("n3"),
		}, objects...)
		c := &cluster{API: clienttest.New(clock.RealClock{}, objects...), t: t, ctx: ctx}
		c.Fail = func(call clienttest.Call) error {
			if call.Verb != "create" || !c.closed.Load() {
				return nil
			}
			err := apierrors.NewForbidden(call.Kind.GroupResource(), call.Name, errors.New("the namespace is being terminated"))
			err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: corev1.NamespaceTerminatingCause})
			return err
		}
		if set != nil {
			set(c)
		}
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		acting, reading := client.Interface(c.API), client.Interface(c.API)
		if c.read != nil {
			reading = c.read(reading)
		}
		caches := client.NewCaches(reading, log)
		if c.wrap != nil {
			acting = c.wrap(acting)
		}
		deps := func(name string) reconcile.Deps {
			return reconcile.NewDeps(name, acting, caches, &c.skew, log)
		}
		all := controllers.All(deps, controllers.Config{Only: c.only, RootCA: []byte("ca"), NodeGracePeriod: 1000 * time.Hour})
		done := make(chan error, 3)
		go func() { done <- caches.Run(ctx) }()
		go func() { done <- reconcile.Run(ctx, reconcile.Options{Log: log}, all...) }()
		go func() { done <- c.kubelet(caches) }()
		f(c)
		cancel()
		for range 3 {
			<-done
		}
	})
}

func (c *cluster) ends(run func(*corev1.Pod) corev1.PodStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = run
}

// endNamespace begins the namespace's deletion.
func (c *cluster) endNamespace() {
	ns, err := client.Get[*corev1.Namespace](c.ctx, c.API, "", "default")
	if err != nil {
		c.t.Fatal(err)
	}
	ns = ns.DeepCopy()
	ns.DeletionTimestamp = ptr.To(metav1.Now())
	ns.Finalizers = []string{"test/hold"} // the API in memory does not know spec.finalizers
	c.closed.Store(true)
	c.API.Put(ns)
}

func (c *cluster) watched(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = f
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
}

// kubelet gives pods a node and runs them, and ends those that are being deleted, each a second later.
func (c *cluster) kubelet(caches *client.Caches) error {
	due := make(chan *corev1.Pod, 10000)
	pods := client.CacheOf[*corev1.Pod](caches)
	cancel := pods.Subscribe(func(e client.Event[*corev1.Pod]) {
		c.mu.Lock()
		if c.watch != nil {
			c.watch()
		}
		c.mu.Unlock()
		if e.New != nil && (e.New.Status.PodIP == "" || e.New.DeletionTimestamp != nil) {
			due <- e.New
		}
	})
	defer cancel()
	n := 0
	for {
		select {
		case <-c.ctx.Done():
			return nil
		case p := <-due:
			n++
			go c.later(p.Namespace, p.Name, n)
		}
	}
}

func (c *cluster) later(namespace, name string, n int) {
	select {
	case <-c.ctx.Done():
	case <-time.After(time.Second):
		c.step(namespace, name, n)
	}
}

func (c *cluster) step(namespace, name string, n int) {
	p, err := client.Get[*corev1.Pod](c.ctx, c.API, namespace, name)
	if err != nil {
		return
	}
	if p.DeletionTimestamp != nil {
		if p.Spec.NodeName != "" && !pods.Finished(p) { // its containers were stopped
			next := p.DeepCopy()
			next.Status.Phase = corev1.PodFailed
			_, _ = client.UpdateStatus(c.ctx, c.API, next)
		}
		_ = c.API.Delete(c.ctx, client.KindOf[*corev1.Pod](), namespace, name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		return
	}
	if p.Status.PodIP != "" {
		return
	}
	p = p.DeepCopy()
	if p.Spec.NodeName == "" {
		p.Spec.NodeName = cmp.Or(daemonset.Target(p), fmt.Sprintf("n%d", n%3+1))
		if p, err = client.Update(c.ctx, c.API, p); err != nil {
			return
		}
		p = p.DeepCopy()
	}
	p.Status = ready(n)
	c.mu.Lock()
	if c.run != nil {
		p.Status = c.run(p)
		p.Status.PodIP = fmt.Sprintf("10.0.%d.%d", n/250, n%250+1)
	}
	c.mu.Unlock()
	if _, err := client.UpdateStatus(c.ctx, c.API, p); err != nil && !apierrors.IsNotFound(err) {
		go c.later(namespace, name, n)
	}
}

func ready(n int) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.%d.%d", n/250, n%250+1),
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}}
}

// settle lets the cluster work until it comes to rest.
func (c *cluster) settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (c *cluster) create(o api.Object) {
	c.t.Helper()
	k, ok := builtin.Table().Of(o)
	if !ok {
		c.t.Fatalf("%T is no kind", o)
	}
	if _, err := c.API.Create(c.ctx, k, o, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func list[T api.Object](c *cluster) []T {
	c.t.Helper()
	out, err := client.List[T](c.ctx, c.API, "", metav1.ListOptions{})
	if err != nil && c.ctx.Err() == nil {
		c.t.Fatal(err)
	}
	return out
}

func get[T api.Object](c *cluster, name string) T {
	c.t.Helper()
	o, err := client.Get[T](c.ctx, c.API, "default", name)
	if err != nil {
		c.t.Fatal(err)
	}
	return o
}

// change edits an object, again if somebody else was faster.
func change[T interface {
	api.Object
	DeepCopy() T
}](c *cluster, name string, f func(T)) {
	c.t.Helper()
	for {
		o := get[T](c, name).DeepCopy()
		f(o)
		if _, err := client.Update(c.ctx, c.API, o); err == nil {
			return
		} else if !apierrors.IsConflict(err) {
			c.t.Fatal(err)
		}
	}
}

func template(app, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}}
}

func deployment(replicas int32, surge, unavailable intstr.IntOrString) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: template("web", "v1"), RevisionHistoryLimit: ptr.To[int32](2), ProgressDeadlineSeconds: ptr.To[int32](600),
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable}}}}
}

func liveImages(c *cluster) map[string]int {
	out := map[string]int{}
	for _, p := range list[*corev1.Pod](c) {
		if p.DeletionTimestamp == nil {
			out[p.Spec.Containers[0].Image]++
		}
	}
	return out
}

func TestDeploymentRollsOutAndBack(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.create(deployment(3, intstr.FromInt32(1), intstr.FromInt32(0)))
		c.settle(30 * time.Second)
		d := get[*appsv1.Deployment](c, "web")
		if s := d.Status; s.AvailableReplicas != 3 || s.UpdatedReplicas != 3 || s.ObservedGeneration != d.Generation {
			t.Fatalf("after the first rollout: %+v", s)
		}
		if got := d.Annotations["deployment.kubernetes.io/revision"]; got != "1" {
			t.Fatalf("revision %q, want 1", got)
		}
		wantCondition(t, d, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable")
		wantCondition(t, d, appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable")

		for i := 2; i <= 5; i++ {
			change(c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = fmt.Sprintf("v%d", i) })
			c.settle(60 * time.Second)
		}
		if got := liveImages(c); !maps.Equal(got, map[string]int{"v5": 3}) {
			t.Fatalf("images %v, want three v5", got)
		}
		if n := len(list[*appsv1.ReplicaSet](c)); n != 3 {
			t.Errorf("%d replica sets are left, want the present one and two of history", n)
		}
		change(c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v4" })
		c.settle(60 * time.Second)
		d = get[*appsv1.Deployment](c, "web")
		if got := d.Annotations["deployment.kubernetes.io/revision"]; got != "6" {
			t.Errorf("revision after going back: %q, want 6", got)
		}
		if n := len(list[*appsv1.ReplicaSet](c)); n != 3 {
			t.Errorf("going back made a new replica set: %d", n)
		}
	})
}

func wantCondition(t *testing.T, d *appsv1.Deployment, typ appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason string) {
	t.Helper()
	for _, c := range d.Status.Conditions {
		if c.Type == typ {
			if c.Status != status || c.Reason != reason {
				t.Errorf("condition %s is %s %s, want %s %s", typ, c.Status, c.Reason, status, reason)
			}
			return
		}
	}
	t.Errorf("no condition %s in %+v", typ, d.Status.Conditions)
}

// A random history of changes keeps the surge and, once available, comes to what was asked for last.
func TestDeploymentRandomHistory(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			surge, missing := intstr.FromInt32(r.Int32N(3)), intstr.FromInt32(r.Int32N(2)+1)
			inCluster(t, func(c *cluster) {
				most := int32(0)
				c.create(deployment(4, surge, missing))
				image, replicas := "v1", int32(4)
				for range 25 {
					switch r.IntN(4) {
					case 0:
						replicas = r.Int32N(8)
						change(c, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = &replicas })
					case 1:
						image = fmt.Sprintf("v%d", r.IntN(4))
						change(c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = image })
					case 2:
						change(c, "web", func(d *appsv1.Deployment) { d.Spec.Paused = !d.Spec.Paused })
					case 3:
						if pods := list[*corev1.Pod](c); len(pods) > 0 {
							p := pods[r.IntN(len(pods))]
							_ = c.API.Delete(c.ctx, client.KindOf[*corev1.Pod](), p.Namespace, p.Name, metav1.DeleteOptions{})
						}
					}
					most = max(most, replicas)
					c.settle(time.Duration(r.IntN(3000)) * time.Millisecond)
					sum := int32(0)
					for _, rs := range list[*appsv1.ReplicaSet](c) {
						sum += *rs.Spec.Replicas
					}
					if limit := most + surge.IntVal; sum > limit {
						t.Fatalf("the sets want %d pods, more than %d", sum, limit)
					}
				}
				change(c, "web", func(d *appsv1.Deployment) { d.Spec.Paused = false })
				c.settle(3 * time.Minute)
				want := map[string]int{}
				if replicas > 0 {
					want[image] = int(replicas)
				}
				if got := liveImages(c); !maps.Equal(got, want) {
					t.Fatalf("pods %v, want %v", got, want)
				}
				if s := get[*appsv1.Deployment](c, "web").Status; s.Replicas != replicas || s.AvailableReplicas != replicas {
					t.Fatalf("status %+v, want %d", s, replicas)
				}
			})
		})
	}
}

// A steady rolling update never has fewer ready pods than allowed, nor more pods than the surge.
func TestRollingUpdateKeepsAvailability(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.create(deployment(6, intstr.FromString("25%"), intstr.FromString("25%"))) // 2 up, 1 down
		c.settle(30 * time.Second)
		low, high := 100, 0
		c.watched(func() {
			n, all := 0, 0
			for _, p := range list[*corev1.Pod](c) {
				if p.DeletionTimestamp == nil {
					all++
					if p.Status.PodIP != "" {
						n++
					}
				}
			}
			low, high = min(low, n), max(high, all)
		})
		change(c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v2" })
		c.settle(2 * time.Minute)
		if got := liveImages(c); got["v2"] != 6 {
			t.Fatalf("images %v", got)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if low < 5 || high > 8 {
			t.Errorf("between %d ready and %d pods, want 5 to 8", low, high)
		}
	})
}

func TestRecreateEndsOldPodsFirst(t *testing.T) {
	inCluster(t, func(c *cluster) {
		d := deployment(3, intstr.FromInt32(0), intstr.FromInt32(0))
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		c.create(d)
		c.settle(30 * time.Second)
		mixed := false
		c.watched(func() {
			images := map[string]bool{}
			for _, p := range list[*corev1.Pod](c) {
				if !pods.Finished(p) { // one that has ended, and is not gone yet, runs nothing
					images[p.Spec.Containers[0].Image] = true
				}
			}
			mixed = mixed || len(images) > 1
		})
		change(c, "web", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "v2" })
		c.settle(time.Minute)
		c.mu.Lock()
		defer c.mu.Unlock()
		if got := liveImages(c); got["v2"] != 3 || mixed {
			t.Errorf("images %v, both at once: %v", got, mixed)
		}
	})
}

func TestDeletedDeploymentTakesItsSetsAndPodsAlong(t *testing.T) {
	for _, policy := range []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan} {
		t.Run(string(policy), func(t *testing.T) {
			inCluster(t, func(c *cluster) {
				c.create(deployment(3, intstr.FromInt32(1), intstr.FromInt32(0)))
				c.settle(30 * time.Second)
				if err := c.API.Delete(c.ctx, client.KindOf[*appsv1.Deployment](), "default", "web", metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
					t.Fatal(err)
				}
				c.settle(time.Minute)
				want := 0
				if policy == metav1.DeletePropagationOrphan {
					want = 3
				}
				if n := len(list[*appsv1.Deployment](c)); n != 0 {
					t.Errorf("the deployment is still there")
				}
				if n := len(list[*corev1.Pod](c)); n != want {
					t.Errorf("%d pods are left, want %d", n, want)
				}
				for _, rs := range list[*appsv1.ReplicaSet](c) {
					if want == 0 || len(rs.OwnerReferences) > 0 {
						t.Errorf("replica set %s is left with owners %v", rs.Name, rs.OwnerReferences)
					}
				}
			})
		})
	}
}

func TestDaemonSetRunsOnEveryNodeAndUpdates(t *testing.T) {
	inCluster(t, func(c *cluster) {
		ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}, Template: template("web", "v1"),
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: ptr.To(intstr.FromInt32(1))}}}}
		c.create(ds)
		c.settle(30 * time.Second)
		if s := get[*appsv1.DaemonSet](c, "web").Status; s.NumberAvailable != 3 || s.DesiredNumberScheduled != 3 || s.UpdatedNumberScheduled != 3 {
			t.Fatalf("status %+v", s)
		}
		c.API.Put(node("n4"))
		c.settle(30 * time.Second)
		change(c, "web", func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.Containers[0].Image = "v2" })
		c.settle(2 * time.Minute)
		if got := liveImages(c); !maps.Equal(got, map[string]int{"v2": 4}) {
			t.Errorf("images %v, want v2 on four nodes", got)
		}
		if n := len(list[*appsv1.ControllerRevision](c)); n != 2 {
			t.Errorf("%d revisions, want 2", n)
		}
	})
}

func TestStatefulSetKeepsOrder(t *testing.T) {
	inCluster(t, func(c *cluster) {
		set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db"}, Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To[int32](3), ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, Template: template("db", "v1"),
			PodManagementPolicy: appsv1.OrderedReadyPodManagement, UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}}}
		c.create(set)
		c.settle(time.Minute)
		var names []string
		for _, p := range list[*corev1.Pod](c) {
			names = append(names, p.Name+" "+p.Spec.Hostname+" "+p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName)
		}
		slices.Sort(names)
		if want := []string{"db-0 db-0 data-db-0", "db-1 db-1 data-db-1", "db-2 db-2 data-db-2"}; !slices.Equal(names, want) {
			t.Fatalf("pods %v, want %v", names, want)
		}
		change(c, "db", func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "v2" })
		c.settle(2 * time.Minute)
		if got := liveImages(c); !maps.Equal(got, map[string]int{"v2": 3}) {
			t.Errorf("images %v", got)
		}
		s := get[*appsv1.StatefulSet](c, "db").Status
		if s.CurrentRevision != s.UpdateRevision || s.UpdatedReplicas != 3 || s.CurrentReplicas != 3 {
			t.Errorf("status after the update %+v", s)
		}
		change(c, "db", func(s *appsv1.StatefulSet) { s.Spec.Replicas = ptr.To[int32](1) })
		c.settle(time.Minute)
		if pods := list[*corev1.Pod](c); len(pods) != 1 || pods[0].Name != "db-0" {
			t.Errorf("%d pods after scaling down", len(pods))
		}
		if n := len(list[*corev1.PersistentVolumeClaim](c)); n != 3 {
			t.Errorf("%d claims, want all three kept", n)
		}
	})
}

func job(name string, edit func(*batchv1.JobSpec)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: batchv1.JobSpec{
		Parallelism: ptr.To[int32](1), Completions: ptr.To[int32](1), BackoffLimit: ptr.To[int32](6),
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, "v1")}}
	j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	edit(&j.Spec)
	return j
}

func jobCondition(j *batchv1.Job, t batchv1.JobConditionType) string {
	for _, c := range j.Status.Conditions {
		if c.Type == t && c.Status == corev1.ConditionTrue {
			return c.Reason
		}
	}
	return ""
}

func TestJobCountsEveryCompletionOnce(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.ends(func(*corev1.Pod) corev1.PodStatus { return corev1.PodStatus{Phase: corev1.PodSucceeded} })
		c.create(job("plain", func(s *batchv1.JobSpec) { s.Completions, s.Parallelism = ptr.To[int32](7), ptr.To[int32](3) }))
		c.create(job("indexed", func(s *batchv1.JobSpec) {
			s.Completions, s.Parallelism, s.CompletionMode = ptr.To[int32](5), ptr.To[int32](2), ptr.To(batchv1.IndexedCompletion)
		}))
		c.settle(2 * time.Minute)
		j := get[*batchv1.Job](c, "plain")
		if j.Status.Succeeded != 7 || jobCondition(j, batchv1.JobComplete) != "CompletionsReached" || j.Status.CompletionTime == nil {
			t.Errorf("plain: %+v", j.Status)
		}
		j = get[*batchv1.Job](c, "indexed")
		if j.Status.CompletedIndexes != "0-4" || j.Status.Succeeded != 5 || jobCondition(j, batchv1.JobComplete) == "" {
			t.Errorf("indexed: %+v", j.Status)
		}
		for _, p := range list[*corev1.Pod](c) {
			if len(p.Finalizers) > 0 {
				t.Errorf("pod %s still has %v", p.Name, p.Finalizers)
			}
		}
	})
}

func TestJobFailsAtItsLimit(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.ends(func(*corev1.Pod) corev1.PodStatus { return corev1.PodStatus{Phase: corev1.PodFailed} })
		c.create(job("bad", func(s *batchv1.JobSpec) { s.BackoffLimit = ptr.To[int32](2) }))
		c.settle(10 * time.Minute)
		j := get[*batchv1.Job](c, "bad")
		if j.Status.Failed != 3 || jobCondition(j, batchv1.JobFailed) != "BackoffLimitExceeded" || len(list[*corev1.Pod](c)) != 3 {
			t.Errorf("%d pods, status %+v", len(list[*corev1.Pod](c)), j.Status)
		}
	})
}

// However pods end and however often they are killed, a job comes to its completions, and the counters say so.
func TestJobRandomHistory(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			inCluster(t, func(c *cluster) {
				var succeeded atomic.Int32
				fate := rand.New(rand.NewPCG(seed, 3))
				c.ends(func(*corev1.Pod) corev1.PodStatus {
					if fate.IntN(4) == 0 {
						return corev1.PodStatus{Phase: corev1.PodFailed}
					}
					succeeded.Add(1)
					return corev1.PodStatus{Phase: corev1.PodSucceeded}
				})
				c.create(job("j", func(s *batchv1.JobSpec) {
					s.Completions, s.Parallelism, s.BackoffLimit = ptr.To[int32](6), ptr.To[int32](2), ptr.To[int32](100)
				}))
				for range 10 {
					c.settle(time.Duration(r.IntN(4000)) * time.Millisecond)
					j := get[*batchv1.Job](c, "j")
					if n := succeeded.Load(); j.Status.Succeeded > n {
						t.Fatalf("counted %d of %d successes", j.Status.Succeeded, n)
					}
					if pods := list[*corev1.Pod](c); len(pods) > 0 {
						p := pods[r.IntN(len(pods))]
						_ = c.API.Delete(c.ctx, client.KindOf[*corev1.Pod](), p.Namespace, p.Name, metav1.DeleteOptions{})
					}
				}
				c.settle(3 * time.Hour)
				j := get[*batchv1.Job](c, "j")
				if j.Status.Succeeded != 6 || jobCondition(j, batchv1.JobComplete) == "" {
					t.Errorf("status %+v", j.Status)
				}
			})
		})
	}
}

func TestServiceGetsSlicesAndEndpoints(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.create(deployment(3, intstr.FromInt32(1), intstr.FromInt32(0)))
		c.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}}}})
		c.settle(30 * time.Second)
		slices := list[*discoveryv1.EndpointSlice](c)
		if len(slices) != 1 || len(slices[0].Endpoints) != 3 || *slices[0].Ports[0].Port != 8080 {
			t.Fatalf("slices %+v", slices)
		}
		for _, e := range slices[0].Endpoints {
			if !*e.Conditions.Ready || e.TargetRef.Kind != "Pod" || *e.NodeName == "" {
				t.Errorf("endpoint %+v", e)
			}
		}
		if e := get[*corev1.Endpoints](c, "web"); len(e.Subsets) != 1 || len(e.Subsets[0].Addresses) != 3 || e.Subsets[0].Ports[0].Port != 8080 {
			t.Errorf("endpoints %+v", e.Subsets)
		}
		change(c, "web", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](0) })
		c.settle(30 * time.Second)
		if s := list[*discoveryv1.EndpointSlice](c); len(s) != 1 || len(s[0].Endpoints) != 0 {
			t.Errorf("slices without pods: %+v", s)
		}
	})
}

func TestNamespaceIsEmptiedAndGoes(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.create(deployment(3, intstr.FromInt32(1), intstr.FromInt32(0)))
		c.settle(30 * time.Second)
		if _, err := client.Get[*corev1.ServiceAccount](c.ctx, c.API, "default", "default"); err != nil {
			t.Errorf("no default service account: %v", err)
		}
		if cm := get[*corev1.ConfigMap](c, "kube-root-ca.crt"); cm.Data["ca.crt"] != "ca" {
			t.Errorf("root CA %v", cm.Data)
		}
		c.endNamespace()
		c.settle(2 * time.Minute)
		if w := c.Writes(); !slices.Contains(w, "update namespaces/finalize default") {
			t.Errorf("the namespace was not finalized")
		}
		if n := len(list[*corev1.Pod](c)) + len(list[*appsv1.Deployment](c)) + len(list[*appsv1.ReplicaSet](c)) + len(list[*corev1.ServiceAccount](c)); n != 0 {
			t.Errorf("%d objects are left in the namespace", n)
		}
	})
}

func TestNodesGetDistinctRanges(t *testing.T) {
	inCluster(t, func(c *cluster) {
		c.settle(10 * time.Second)
		seen := map[string]bool{}
		for _, n := range list[*corev1.Node](c) {
			if n.Spec.PodCIDR == "" || seen[n.Spec.PodCIDR] {
				t.Errorf("node %s has range %q", n.Name, n.Spec.PodCIDR)
			}
			seen[n.Spec.PodCIDR] = true
		}
	})
}
