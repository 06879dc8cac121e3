// Package cri is the node agent's client of the container runtime: CRI v1 over gRPC.
//
// Invariant: nothing is remembered here but the connection and what the runtime can no longer change (how a container
// that has exited ended), so a fresh client sees exactly what an old one sees.
//
// Only node and its packages import cri.
package cri

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/node/lifecycle"
)

// Labels and annotations that tie sandboxes and containers to pods; they are upstream's, tools read them.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainer     = "io.kubernetes.container.name"
	AnnotationHash     = "io.kubernetes.container.hash"
	AnnotationRestarts = "io.kubernetes.container.restartCount"
	AnnotationTermPath = "io.kubernetes.container.terminationMessagePath"
	AnnotationTermPol  = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationGrace    = "io.kubernetes.pod.terminationGracePeriod"
)

// Client is a connection to one runtime. It connects when first used and again by itself when the runtime restarts.
type Client struct {
	runtimeapi.RuntimeServiceClient
	Images runtimeapi.ImageServiceClient
	conn   *grpc.ClientConn

	mu    sync.Mutex
	ended map[string]lifecycle.Container // by ID
}

const maxMessage = 32 << 20

// New makes a client of the runtime's socket.
func New(endpoint string) (*Client, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "unix://" + endpoint
	}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second,
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second, Jitter: 0.1}}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	return NewOver(conn), nil
}

// NewOver makes a client over a connection that exists.
func NewOver(conn *grpc.ClientConn) *Client {
	return &Client{RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(conn), Images: runtimeapi.NewImageServiceClient(conn),
		conn: conn, ended: map[string]lifecycle.Container{}}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// PodID is a pod that the runtime knows.
type PodID struct{ Namespace, Name, UID string }

// Pods lists the pods of all sandboxes and containers, running or not.
func (c *Client) Pods(ctx context.Context) (map[PodID]bool, error) {
	out := map[PodID]bool{}
	sbs, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	add := func(l map[string]string) {
		if l[LabelPodUID] != "" {
			out[PodID{l[LabelPodNamespace], l[LabelPodName], l[LabelPodUID]}] = true
		}
	}
	for _, s := range sbs.Items {
		add(s.Labels)
	}
	cs, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	for _, s := range cs.Containers {
		add(s.Labels)
	}
	return out, nil
}

// Observe reads what the runtime has of one pod, newest first.
func (c *Client) Observe(ctx context.Context, uid string) (lifecycle.Observed, error) {
	var o lifecycle.Observed
	sel := map[string]string{LabelPodUID: uid}
	sbs, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: sel}})
	if err != nil {
		return o, err
	}
	for _, item := range sbs.Items {
		sb := lifecycle.Sandbox{ID: item.Id, Attempt: item.Metadata.GetAttempt(), CreatedAt: time.Unix(0, item.CreatedAt),
			Ready: item.State == runtimeapi.PodSandboxState_SANDBOX_READY}
		if sb.Ready {
			if err := c.network(ctx, &sb); err != nil && !notFound(err) {
				return o, err
			}
		}
		o.Sandboxes = append(o.Sandboxes, sb)
	}
	sort.Slice(o.Sandboxes, func(i, j int) bool { return o.Sandboxes[i].CreatedAt.After(o.Sandboxes[j].CreatedAt) })
	cs, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: sel}})
	if err != nil {
		return o, err
	}
	for _, item := range cs.Containers {
		ct, err := c.container(ctx, item)
		if notFound(err) {
			continue
		} else if err != nil {
			return o, err
		}
		o.Containers = append(o.Containers, ct)
	}
	sort.Slice(o.Containers, func(i, j int) bool { return o.Containers[i].CreatedAt.After(o.Containers[j].CreatedAt) })
	return o, nil
}

func (c *Client) network(ctx context.Context, sb *lifecycle.Sandbox) error {
	r, err := c.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sb.ID})
	if err != nil {
		return err
	}
	st := r.Status
	sb.HostNetwork = st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE
	if ip := st.GetNetwork().GetIp(); ip != "" {
		sb.IPs = append(sb.IPs, ip)
	}
	for _, ip := range st.GetNetwork().GetAdditionalIps() {
		sb.IPs = append(sb.IPs, ip.Ip)
	}
	return nil
}

// container reads one container, or remembers it if it ended before.
func (c *Client) container(ctx context.Context, item *runtimeapi.Container) (lifecycle.Container, error) {
	c.mu.Lock()
	ct, ok := c.ended[item.Id]
	c.mu.Unlock()
	if ok {
		return ct, nil
	}
	r, err := c.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: item.Id})
	if err != nil {
		return lifecycle.Container{}, err
	}
	ct = translate(r.Status)
	ct.SandboxID = item.PodSandboxId
	if ct.State == lifecycle.Exited {
		ct.Message = endMessage(r.Status)
		c.mu.Lock()
		c.ended[item.Id] = ct
		c.mu.Unlock()
	}
	return ct, nil
}

// Forget drops what was remembered of a removed container.
func (c *Client) Forget(id string) {
	c.mu.Lock()
	delete(c.ended, id)
	c.mu.Unlock()
}

func translate(st *runtimeapi.ContainerStatus) lifecycle.Container {
	at := func(ns int64) time.Time {
		if ns <= 0 {
			return time.Time{}
		}
		return time.Unix(0, ns)
	}
	ct := lifecycle.Container{ID: st.Id, Name: st.Labels[LabelContainer], Attempt: int(st.Metadata.GetAttempt()),
		CreatedAt: at(st.CreatedAt), StartedAt: at(st.StartedAt), FinishedAt: at(st.FinishedAt), ExitCode: st.ExitCode,
		Reason: st.Reason, Message: st.Message, Hash: st.Annotations[AnnotationHash], Image: st.Image.GetImage(), ImageID: st.ImageRef}
	if u := st.Image.GetUserSpecifiedImage(); u != "" {
		ct.Image = u
	}
	switch st.State {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		ct.State = lifecycle.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		ct.State = lifecycle.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		ct.State = lifecycle.Exited
	default:
		ct.State = lifecycle.Unknown
	}
	if n, err := strconv.Atoi(st.Annotations[AnnotationRestarts]); err == nil {
		ct.Attempt = n
	}
	if n, err := strconv.Atoi(st.Annotations[AnnotationGrace]); err == nil {
		ct.Grace = time.Duration(n) * time.Second
	}
	if l := st.GetResources().GetLinux(); l != nil {
		ct.Limits = &lifecycle.Limits{CPUShares: l.CpuShares, CPUQuota: max(l.CpuQuota, 0), Memory: max(l.MemoryLimitInBytes, 0)}
	}
	if u := st.GetUser().GetLinux(); u != nil {
		ct.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: u.Uid, GID: u.Gid, SupplementalGroups: u.SupplementalGroups}}
	}
	return ct
}

// Event is a change of something of a pod; UID is empty if all pods must be looked at again.
type Event struct{ UID, ContainerID string }

// Events calls f for every change until ctx ends. The stream is opened again when it breaks, and f is then told to
// look at everything, as changes may have been missed.
func (c *Client) Events(ctx context.Context, f func(Event)) error {
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		stream, err := c.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{}, grpc.WaitForReady(true))
		if err == nil {
			f(Event{})
			for {
				e, rerr := stream.Recv()
				if rerr != nil {
					err = rerr
					break
				}
				wait = 50 * time.Millisecond
				f(Event{UID: e.GetPodSandboxStatus().GetMetadata().GetUid(), ContainerID: e.ContainerId})
			}
			f(Event{})
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
	return fmt.Errorf("container events: %w", context.Cause(ctx))
}
