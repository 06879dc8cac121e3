package node

import (
	"context"
	"encoding/json"
	"net"
	"runtime"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/node/status"
)

const (
	pollNotReady  = 50 * time.Millisecond // only until the runtime and its network are ready
	pollReady     = 10 * time.Second      // beside lease renewals
	reportAnyway  = 5 * time.Minute
	retryRegister = 200 * time.Millisecond
)

// keepNode registers the node, keeps its status true and its lease alive.
func (a *Agent) keepNode(ctx context.Context) error {
	node, err := a.register(ctx)
	if err != nil {
		return err
	}
	a.cfg.Log.Info("node registered", "node", a.cfg.Name)
	go a.keepLease(ctx, node.UID)
	a.nodeEvent(node, "Starting", "Starting kubelet.")
	var version *runtimeapi.VersionResponse
	var last time.Time
	var old *corev1.NodeStatus // as last written
	tries := 0
	for {
		in := a.nodeInput(ctx, &version)
		ready := status.NotReady(in.Runtime, in.RuntimeErr) == ""
		a.ready.Store(ready)
		cur, err := a.currentNode(ctx, node)
		if err == nil {
			in.Old = &cur.Status
			next := status.Node(in)
			if old == nil || !status.Same(&cur.Status, &next) || in.Now.Sub(last) >= reportAnyway {
				if node, err = a.patchNode(ctx, cur, &next); err == nil {
					last, old = in.Now, &next
				}
			}
		}
		if apierrors.IsNotFound(err) {
			if node, err = a.register(ctx); err != nil {
				return err
			}
			old = nil
		} else if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot report the node's status", "error", err)
		}
		wait := pollReady
		if !ready || old == nil {
			tries++
			wait = pollNotReady * time.Duration(1+min(tries/100, 39)) // 50 ms for five seconds, then ever slower up to 2 s
		} else {
			tries = 0
		}
		if !a.sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// currentNode is the newest of what was written and what the cache has.
func (a *Agent) currentNode(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	n, ok := a.nodes.Get("", a.cfg.Name)
	if !ok {
		if a.nodes.Synced() {
			return client.Get[*corev1.Node](ctx, a.cfg.Client, "", a.cfg.Name)
		}
		return node, nil
	}
	x, errA := strconv.ParseUint(n.ResourceVersion, 10, 64)
	y, errB := strconv.ParseUint(node.ResourceVersion, 10, 64)
	if errA == nil && errB == nil && x < y {
		return node, nil
	}
	return n, nil
}

func (a *Agent) nodeInput(ctx context.Context, version **runtimeapi.VersionResponse) status.Input {
	in := status.Input{Host: status.ReadHost(a.cfg.RootDir), Name: a.cfg.Name, IP: a.cfg.NodeIP.String(), MaxPods: a.cfg.MaxPods,
		Version: a.cfg.Version, Now: a.cfg.Clock.Now(), RuntimeName: "containerd", Port: a.port()}
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if *version == nil {
		if v, err := a.runtime.Version(call, &runtimeapi.VersionRequest{}); err == nil {
			*version = v
		}
	}
	if v := *version; v != nil {
		in.RuntimeName, in.RuntimeVer = v.RuntimeName, v.RuntimeVersion
	}
	in.Runtime, in.RuntimeErr = a.runtime.Status(call, &runtimeapi.StatusRequest{})
	if in.RuntimeErr == nil {
		if imgs, err := a.runtime.Images.ListImages(call, &runtimeapi.ListImagesRequest{}); err == nil {
			in.Images = imgs.Images
		}
	}
	return in
}

func (a *Agent) port() int32 {
	_, p, err := net.SplitHostPort(a.cfg.ListenAddr)
	if err != nil {
		return 10250
	}
	n, err := strconv.ParseInt(p, 10, 32)
	if err != nil || n == 0 {
		return 10250
	}
	return int32(n)
}

// register makes the node object, or brings the labels of the one that is there up to date.
func (a *Agent) register(ctx context.Context) (*corev1.Node, error) {
	for {
		n, err := client.Get[*corev1.Node](ctx, a.cfg.Client, "", a.cfg.Name)
		if apierrors.IsNotFound(err) {
			n, err = client.Create(ctx, a.cfg.Client, a.newNode())
		} else if err == nil {
			n, err = a.label(ctx, n)
		}
		if err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		a.cfg.Log.Warn("cannot register the node", "error", err)
		if !a.sleep(ctx, retryRegister) {
			return nil, ctx.Err()
		}
	}
}

func (a *Agent) labels() map[string]string {
	l := map[string]string{corev1.LabelHostname: a.cfg.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH}
	for k, v := range a.cfg.Labels {
		l[k] = v
	}
	return l
}

func (a *Agent) newNode() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.cfg.Name, Labels: a.labels(),
		Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
		Spec: corev1.NodeSpec{PodCIDR: a.cfg.PodCIDR, Taints: a.cfg.Taints}}
	if a.cfg.PodCIDR != "" {
		n.Spec.PodCIDRs = []string{a.cfg.PodCIDR}
	}
	host := status.ReadHost(a.cfg.RootDir)
	n.Status.Capacity, n.Status.Allocatable = status.Capacity(host, a.cfg.MaxPods), status.Allocatable(host, a.cfg.MaxPods)
	return n
}

func (a *Agent) label(ctx context.Context, n *corev1.Node) (*corev1.Node, error) {
	set := map[string]string{}
	for k, v := range a.labels() {
		if n.Labels[k] != v {
			set[k] = v
		}
	}
	if len(set) == 0 {
		return n, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": set}})
	if err != nil {
		return nil, err
	}
	return client.Patch[*corev1.Node](ctx, a.cfg.Client, "", n.Name, "", types.MergePatchType, patch)
}

func (a *Agent) patchNode(ctx context.Context, n *corev1.Node, st *corev1.NodeStatus) (*corev1.Node, error) {
	from, err := json.Marshal(corev1.Node{Status: n.Status})
	if err != nil {
		return n, err
	}
	to, err := json.Marshal(corev1.Node{Status: *st})
	if err != nil {
		return n, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(from, to, corev1.Node{})
	if err != nil {
		return n, err
	}
	after, err := client.Patch[*corev1.Node](ctx, a.cfg.Client, "", n.Name, "status", types.StrategicMergePatchType, patch)
	if err != nil {
		return n, err
	}
	return after, nil
}

// waitRegistered returns when the node's own object is in the cache.
func (a *Agent) waitRegistered(ctx context.Context) error {
	for {
		if _, ok := a.nodes.Get("", a.cfg.Name); ok {
			return nil
		}
		if !a.sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// keepLease renews the node's lease, which is how the cluster knows that the node lives.
func (a *Agent) keepLease(ctx context.Context, uid types.UID) {
	seconds := int32(a.cfg.LeaseDuration / time.Second)
	every := a.cfg.LeaseDuration / 4
	var last *coordinationv1.Lease
	for {
		now := metav1.NewMicroTime(a.cfg.Clock.Now())
		spec := coordinationv1.LeaseSpec{HolderIdentity: &a.cfg.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		var err error
		if last == nil {
			last, err = client.Get[*coordinationv1.Lease](ctx, a.cfg.Client, corev1.NamespaceNodeLease, a.cfg.Name)
		}
		switch {
		case apierrors.IsNotFound(err):
			last, err = client.Create(ctx, a.cfg.Client, &coordinationv1.Lease{Spec: spec, ObjectMeta: metav1.ObjectMeta{
				Name: a.cfg.Name, Namespace: corev1.NamespaceNodeLease,
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: a.cfg.Name, UID: uid}}}})
		case err == nil:
			l := last.DeepCopy()
			l.Spec = spec
			last, err = client.Update(ctx, a.cfg.Client, l)
		}
		wait := every
		if err != nil {
			last, wait = nil, time.Second
			if ctx.Err() == nil && !apierrors.IsConflict(err) {
				a.cfg.Log.Warn("cannot renew the node's lease", "error", err)
			}
		}
		if !a.sleep(ctx, wait) {
			return
		}
	}
}

func (a *Agent) nodeEvent(n *corev1.Node, reason, message string) {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}
	a.events.Eventf(ref, corev1.EventTypeNormal, reason, "%s", message)
}

// allocatable is what the node has for pods.
func (a *Agent) allocatable() corev1.ResourceList {
	return status.Allocatable(status.ReadHost(a.cfg.RootDir), a.cfg.MaxPods)
}
