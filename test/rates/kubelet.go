package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
)

// kubelet stands for all nodes.
type kubelet struct {
	client.Interface
	pods  *client.Cache[*corev1.Pod]
	work  chan *corev1.Pod
	bound atomic.Int64 // pods that have got a node, ever
	gone  atomic.Int64
	ready atomic.Int64
	addr  atomic.Uint32
	rests sync.RWMutex // held for writing, no pod is looked after

	mu    sync.Mutex
	nodes []string
}

const kubeletWorkers = 24

func newKubelet(c client.Interface, cs *client.Caches) *kubelet {
	return &kubelet{Interface: c, pods: client.CacheOf[*corev1.Pod](cs), work: make(chan *corev1.Pod, 1<<16)}
}

// run serves pods until ctx ends.
func (k *kubelet) run(ctx context.Context) {
	defer k.pods.Subscribe(k.changed)()
	var wg sync.WaitGroup
	for range kubeletWorkers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case p := <-k.work:
					k.rests.RLock()
					k.rests.RUnlock()
					if err := k.serve(ctx, p); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
						fmt.Println("kubelet:", err)
					}
				}
			}
		})
	}
	wg.Go(func() { k.renew(ctx) })
	wg.Wait()
}

func (k *kubelet) changed(e client.Event[*corev1.Pod]) {
	old, p := e.Old, e.New
	if p == nil || p.Namespace != namespace {
		if p == nil && old.Namespace == namespace {
			k.gone.Add(1)
		}
		return
	}
	if p.Spec.NodeName == "" {
		return
	}
	if old == nil || old.Spec.NodeName == "" {
		k.bound.Add(1)
		k.work <- p
	} else if p.DeletionTimestamp != nil && old.DeletionTimestamp == nil {
		k.work <- p
	}
	if ready(p) && (old == nil || !ready(old)) {
		k.ready.Add(1)
	}
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (k *kubelet) serve(ctx context.Context, p *corev1.Pod) error {
	if p.DeletionTimestamp != nil {
		zero := int64(0)
		return k.Delete(ctx, client.KindOf[*corev1.Pod](), p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &p.UID}})
	}
	return k.status(ctx, p, true)
}

// status is one patch, as a kubelet's: the pod runs, and is ready or not.
func (k *kubelet) status(ctx context.Context, p *corev1.Pod, ready bool) error {
	now, truth := metav1.Now(), corev1.ConditionTrue
	if !ready {
		truth = corev1.ConditionFalse
	}
	ip := p.Status.PodIP
	if ip == "" {
		n := k.addr.Add(1)
		ip = fmt.Sprintf("10.%d.%d.%d", 64+n>>16&63, n>>8&255, n&255)
	}
	condition := func(t corev1.PodConditionType, s corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: t, Status: s, LastTransitionTime: now}
	}
	status := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, HostIP: "192.0.2.1",
		Conditions: []corev1.PodCondition{condition(corev1.PodReadyToStartContainers, corev1.ConditionTrue), condition(corev1.PodInitialized, corev1.ConditionTrue),
			condition(corev1.PodReady, truth), condition(corev1.ContainersReady, truth)}}
	for _, c := range p.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: "sha256:0", ContainerID: "containerd://" + string(p.UID),
			Ready: ready, Started: &ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}})
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = client.Patch[*corev1.Pod](ctx, k, p.Namespace, p.Name, "status", types.StrategicMergePatchType, patch)
	return err
}

// makeNodes makes nodes that are ready, or takes those that an earlier run has left.
func (k *kubelet) makeNodes(ctx context.Context, n int) error {
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("128Gi"), corev1.ResourcePods: resource.MustParse("110")}
	return each(n, func(i int) error {
		name := fmt.Sprintf("rates-%04d", i)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
		now := metav1.Now()
		node.Status = corev1.NodeStatus{Capacity: room, Allocatable: room, Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: now, LastTransitionTime: now}}}
		_, err := client.Create(ctx, k, node)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		patch, err := json.Marshal(map[string]any{"status": node.Status})
		if err == nil {
			_, err = client.Patch[*corev1.Node](ctx, k, "", name, "status", types.StrategicMergePatchType, patch)
		}
		if err == nil {
			err = k.beat(ctx, name)
		}
		k.mu.Lock()
		k.nodes = append(k.nodes, name)
		k.mu.Unlock()
		return err
	})
}

// renew renews each node's lease every 20 s.
func (k *kubelet) renew(ctx context.Context) {
	for i := 0; ; i++ {
		k.mu.Lock()
		n, name := len(k.nodes), ""
		if n > 0 {
			name = k.nodes[i%n]
		}
		k.mu.Unlock()
		if pause(ctx, 20*time.Second/time.Duration(max(n, 1))) != nil {
			return
		}
		if name != "" {
			if err := k.beat(ctx, name); err != nil && ctx.Err() == nil {
				fmt.Println("lease:", err)
			}
		}
	}
}

func (k *kubelet) beat(ctx context.Context, node string) error {
	now := metav1.NowMicro()
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"renewTime": now}})
	if err != nil {
		return err
	}
	_, err = client.Patch[*coordinationv1.Lease](ctx, k, corev1.NamespaceNodeLease, node, "", types.MergePatchType, patch)
	if apierrors.IsNotFound(err) {
		seconds := int32(40)
		_, err = client.Create(ctx, k, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds, RenewTime: &now}})
	}
	return err
}

// each calls f for 0 to n-1, 32 at a time, and returns the first error.
func each(n int, f func(int) error) error {
	var next atomic.Int64
	errs := make(chan error, 32)
	for range cap(errs) {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					errs <- nil
					return
				}
				if err := f(i); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var first error
	for range cap(errs) {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}
