package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/node/cgroup"
	"github.com/skiff-sh/skiff/node/cri"
	"github.com/skiff-sh/skiff/node/image"
	"github.com/skiff-sh/skiff/node/lifecycle"
	"github.com/skiff-sh/skiff/node/spec"
)

// Reasons that a container's status shows.
const (
	reasonConfig    = "CreateContainerConfigError"
	reasonCreate    = "CreateContainerError"
	reasonRun       = "RunContainerError"
	reasonPostStart = "PostStartHookError"
)

// do carries out one action and returns what the loop has to remember of it.
func (w *worker) do(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) (result func()) {
	switch act.Do {
	case lifecycle.MountVolumes:
		return w.mount(ctx, pod)
	case lifecycle.CreateSandbox:
		return w.createSandbox(ctx, pod, act)
	case lifecycle.PullImage:
		return w.pull(ctx, pod, act)
	case lifecycle.StartContainer:
		return w.startContainer(ctx, pod, act)
	case lifecycle.StopContainer:
		return w.stopContainer(ctx, pod, act)
	case lifecycle.ResizePod:
		return w.resize(ctx, pod)
	}
	if err := w.small(ctx, pod, act); err != nil {
		if ctx.Err() == nil {
			w.a.cfg.Log.Warn("pod action failed", "pod", pod.Namespace+"/"+pod.Name, "action", act.String(), "error", err)
			w.a.sleep(ctx, time.Second) // the loop asks again
		}
		return nil
	}
	return func() {
		switch act.Do {
		case lifecycle.Cleanup:
			w.mem.Cleaned, w.mem.VolumesReady = true, false
		case lifecycle.DeletePod:
			w.mem.Deleted = true
		case lifecycle.Purge:
			w.mem.Purged = true
		}
	}
}

// small actions have no outcome but that they worked.
func (w *worker) small(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) error {
	rt := w.a.runtime
	switch act.Do {
	case lifecycle.RemoveContainer:
		_, err := rt.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: act.ID})
		if err == nil || cri.NotFound(err) {
			rt.Forget(act.ID)
			w.a.unlinkLog(act.ID)
			return nil
		}
		return err
	case lifecycle.StopSandbox:
		if _, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: act.ID}); err != nil && !cri.NotFound(err) {
			return err
		}
	case lifecycle.RemoveSandbox:
		if _, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: act.ID}); err != nil && !cri.NotFound(err) {
			return err
		}
		for _, c := range w.seenContainers(act.ID) {
			rt.Forget(c)
			w.a.unlinkLog(c)
		}
		if _, err := rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: act.ID}); err != nil && !cri.NotFound(err) {
			return err
		}
	case lifecycle.Cleanup:
		if err := w.a.volumes.Unmount(string(w.uid)); err != nil {
			return err
		}
		return w.a.groups.Remove(string(w.uid))
	case lifecycle.DeletePod:
		now := int64(0)
		err := w.a.cfg.Client.Delete(ctx, client.KindOf[*corev1.Pod](), pod.Namespace, pod.Name,
			metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	case lifecycle.Purge:
		if err := w.a.volumes.Purge(string(w.uid)); err != nil {
			return err
		}
		if pod.Name == "" {
			return nil
		}
		return os.RemoveAll(spec.LogDir(w.a.cfg.PodLogDir, pod.Namespace, pod.Name, string(w.uid)))
	}
	return nil
}

func (w *worker) seenContainers(sandbox string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, c := range w.seen.Containers {
		if c.SandboxID == sandbox {
			out = append(out, c.ID)
		}
	}
	return out
}

const (
	mountFirst, mountLimit     = 500 * time.Millisecond, 2 * time.Minute
	sandboxFirst, sandboxLimit = time.Second, time.Minute
	pullFirst, pullLimit       = 10 * time.Second, 5 * time.Minute
	configRetry                = 10 * time.Second
)

func (w *worker) mount(ctx context.Context, pod *corev1.Pod) func() {
	refresh, err := w.a.volumes.Mount(ctx, pod)
	if err != nil && ctx.Err() == nil {
		for _, e := range unjoin(err) {
			w.a.event(pod, "", corev1.EventTypeWarning, "FailedMount", "%s", e.Error())
		}
	}
	return func() {
		if err != nil {
			w.mem.VolumesTrouble = lifecycle.Again(w.mem.VolumesTrouble, w.a.cfg.Clock.Now(), "FailedMount", err.Error(), mountFirst, mountLimit)
			return
		}
		w.mem.VolumesReady, w.mem.VolumesTrouble, w.mem.VolumesRefresh = true, nil, refresh
	}
}

func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func (w *worker) createSandbox(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) func() {
	err := w.a.createSandbox(ctx, pod, act.Attempt)
	if err != nil && ctx.Err() == nil {
		w.a.event(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: %v", err)
	}
	return func() {
		if err != nil {
			w.mem.SandboxTrouble = lifecycle.Again(w.mem.SandboxTrouble, w.a.cfg.Clock.Now(), "FailedCreatePodSandBox", err.Error(), sandboxFirst, sandboxLimit)
			return
		}
		w.mem.SandboxTrouble = nil
	}
}

func (a *Agent) createSandbox(ctx context.Context, pod *corev1.Pod, attempt int) error {
	for !a.ready.Load() && !pod.Spec.HostNetwork {
		if !a.sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
	cfg, handler, err := a.sandboxConfig(ctx, pod, attempt)
	if err != nil {
		return err
	}
	req, lim, mem := spec.PodResources(pod)
	if err := a.groups.Ensure(string(pod.UID), lifecycle.QOS(pod), cgroup.Limits{CPUShares: lifecycle.Shares(req), CPUQuota: lifecycle.Quota(lim), Memory: mem}); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.LogDirectory, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(a.volumes.PodDir(string(pod.UID)), 0o750); err != nil {
		return err
	}
	ctx, cancel := whole(ctx)
	defer cancel()
	_, err = a.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: cfg, RuntimeHandler: handler})
	return err
}

// startLimit bounds a call that starts a process, as upstream bounds calls of the runtime.
const startLimit = 2 * time.Minute

// whole is a context for a call that must not be broken off in the middle: the runtime then forgets a process that it has just
// started. It does not start one for a pod that is going already.
func whole(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), startLimit)
}

func (a *Agent) sandboxConfig(ctx context.Context, pod *corev1.Pod, attempt int) (*runtimeapi.PodSandboxConfig, string, error) {
	cfg, err := a.spec.Sandbox(pod, attempt, a.groups.Parent(string(pod.UID), lifecycle.QOS(pod)))
	if err != nil {
		return nil, "", err
	}
	if pod.Spec.RuntimeClassName == nil || *pod.Spec.RuntimeClassName == "" {
		return cfg, "", nil
	}
	rc, err := client.Get[*nodev1.RuntimeClass](ctx, a.cfg.Client, "", *pod.Spec.RuntimeClassName)
	if err != nil {
		return nil, "", fmt.Errorf("failed to get RuntimeClass: %w", err)
	}
	return cfg, rc.Handler, nil
}

func (w *worker) pull(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) func() {
	c, ok := lifecycle.Find(pod, act.Container)
	if !ok {
		return nil
	}
	ref, err := w.ensureImage(ctx, pod, c.Name, c.Image, c.ImagePullPolicy)
	if ctx.Err() != nil {
		return nil
	}
	return func() {
		m := w.mem.Container(act.Container)
		if err != nil {
			t := lifecycle.Again(m.ImageTrouble, w.a.cfg.Clock.Now(), "ErrImagePull", err.Error(), pullFirst, pullLimit)
			if e := (*image.Error)(nil); errors.As(err, &e) {
				t.Reason, t.Message = e.Reason, e.Message
			}
			m.ImageTrouble = t
			return
		}
		m.Image, m.ImageAttempt, m.ImageTrouble = ref, act.Attempt, nil
	}
}

func (w *worker) ensureImage(ctx context.Context, pod *corev1.Pod, container, name string, policy corev1.PullPolicy) (string, error) {
	sandbox, handler, err := w.a.sandboxConfig(ctx, pod, 0)
	if err != nil {
		return "", err
	}
	return w.a.puller.Ensure(ctx, name, policy, w.a.pullSecrets(ctx, pod), sandbox, handler, func(typ, reason, format string, args ...any) {
		w.a.event(pod, container, typ, reason, format, args...)
	})
}

func (w *worker) startContainer(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) func() {
	c, ok := lifecycle.Find(pod, act.Container)
	if !ok {
		return nil
	}
	t := w.create(ctx, pod, c, act)
	return func() {
		m := w.mem.Container(c.Name)
		m.StartTrouble = t
		if t == nil || t.Reason == reasonRun || t.Reason == reasonPostStart {
			m.Restart = act.Backoff
			m.Image = ""
		}
	}
}

// create makes and starts a container, and says what went wrong.
func (w *worker) create(ctx context.Context, pod *corev1.Pod, c *corev1.Container, act lifecycle.Action) *lifecycle.Trouble {
	a := w.a
	trouble := func(reason, message string, retry time.Duration) *lifecycle.Trouble {
		now := a.cfg.Clock.Now()
		if ctx.Err() == nil {
			a.event(pod, c.Name, corev1.EventTypeWarning, "Failed", "Error: %s", message)
		}
		return &lifecycle.Trouble{Reason: reason, Message: message, At: now, Retry: now.Add(retry)}
	}
	cfg, err := w.containerConfig(ctx, pod, c, act)
	if err != nil {
		return trouble(reasonConfig, err.Error(), configRetry)
	}
	sandbox, _, err := a.sandboxConfig(ctx, pod, 0)
	if err != nil {
		return trouble(reasonConfig, err.Error(), configRetry)
	}
	if err := os.MkdirAll(filepath.Join(sandbox.LogDirectory, c.Name), 0o755); err != nil {
		return trouble(reasonCreate, err.Error(), configRetry)
	}
	made, err := a.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: act.SandboxID, Config: cfg, SandboxConfig: sandbox})
	if err != nil {
		return trouble(reasonCreate, cri.Message(err), configRetry)
	}
	a.event(pod, c.Name, corev1.EventTypeNormal, "Created", "Container created")
	sctx, cancel := whole(ctx)
	_, err = a.runtime.StartContainer(sctx, &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId})
	cancel()
	if err != nil {
		return trouble(reasonRun, cri.Message(err), 0)
	}
	a.event(pod, c.Name, corev1.EventTypeNormal, "Started", "Container started")
	a.linkLog(pod, c.Name, made.ContainerId, filepath.Join(sandbox.LogDirectory, cfg.LogPath))
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	if err := w.hook(ctx, pod, c, made.ContainerId, c.Lifecycle.PostStart); err != nil {
		a.event(pod, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
		act := lifecycle.Action{Do: lifecycle.StopContainer, Container: c.Name, ID: made.ContainerId, Grace: w.grace(pod), Reason: "FailedPostStartHook"}
		w.stopContainer(context.WithoutCancel(ctx), pod, act)
		return trouble(reasonPostStart, "PostStart hook failed: "+err.Error(), 0)
	}
	return nil
}

func (w *worker) grace(pod *corev1.Pod) time.Duration {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return time.Duration(*g) * time.Second
	}
	return corev1.DefaultTerminationGracePeriodSeconds * time.Second
}

// stopContainer runs the pre-stop hook, asks the container to stop, and kills it when its grace is over.
func (w *worker) stopContainer(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) func() {
	a := w.a
	a.event(pod, act.Container, corev1.EventTypeNormal, "Killing", "%s", act.Reason)
	left := act.Grace
	if c, ok := lifecycle.Find(pod, act.Container); ok && act.PreStop {
		began := a.cfg.Clock.Now()
		hctx, cancel := context.WithTimeout(ctx, act.Grace)
		if err := w.hook(hctx, pod, c, act.ID, c.Lifecycle.PreStop); err != nil && ctx.Err() == nil {
			a.event(pod, act.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		}
		cancel()
		left = max(left-a.cfg.Clock.Since(began), 2*time.Second)
	}
	if ctx.Err() != nil {
		return nil
	}
	seconds := int64((left + time.Second - 1) / time.Second)
	if _, err := a.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: act.ID, Timeout: seconds}); err != nil && !cri.NotFound(err) && ctx.Err() == nil {
		a.event(pod, act.Container, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: %s", cri.Message(err))
		a.sleep(ctx, time.Second)
	}
	return nil
}

// linkLog gives a container's log the name under which log collectors look for it.
func (a *Agent) linkLog(pod *corev1.Pod, container, id, log string) {
	if a.cfg.ContainerLogDir == "" {
		return
	}
	name := fmt.Sprintf("%s_%s_%s-%s.log", pod.Name, pod.Namespace, container, id)
	if len(name) > 255 {
		return
	}
	link := filepath.Join(a.cfg.ContainerLogDir, name)
	if err := os.Symlink(log, link); err != nil && !errors.Is(err, os.ErrExist) {
		a.cfg.Log.Warn("cannot link a container's log", "link", link, "error", err)
	}
}

func (a *Agent) unlinkLog(id string) {
	if a.cfg.ContainerLogDir == "" || strings.ContainsAny(id, "*?[\\/") {
		return
	}
	links, err := filepath.Glob(filepath.Join(a.cfg.ContainerLogDir, "*-"+id+".log"))
	if err != nil {
		return
	}
	for _, l := range links {
		if err := os.Remove(l); err != nil && !os.IsNotExist(err) {
			a.cfg.Log.Warn("cannot remove a log's link", "link", l, "error", err)
		}
	}
}
