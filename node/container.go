package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/node/env"
	"github.com/skiff-sh/skiff/node/lifecycle"
	"github.com/skiff-sh/skiff/node/objects"
	"github.com/skiff-sh/skiff/node/probe"
	"github.com/skiff-sh/skiff/node/spec"
)

// containerConfig gathers what a container is made from.
func (w *worker) containerConfig(ctx context.Context, pod *corev1.Pod, c *corev1.Container, act lifecycle.Action) (*runtimeapi.ContainerConfig, error) {
	a := w.a
	o, err := a.runtime.Observe(ctx, string(w.uid))
	if err != nil {
		return nil, err
	}
	ips := podIPs(pod, o, a.cfg.NodeIP.String())
	vars, err := a.environment(ctx, pod, c, ips)
	if err != nil {
		return nil, err
	}
	x := spec.Extra{Attempt: act.Attempt, Env: vars}
	if x.Image, err = a.puller.Present(ctx, c.Image); err != nil {
		return nil, err
	}
	if x.ImageUser, err = a.puller.User(ctx, x.Image); err != nil {
		return nil, err
	}
	if x.Mounts, err = w.mounts(ctx, pod, c, act, vars, ips); err != nil {
		return nil, err
	}
	for _, e := range pod.Spec.EphemeralContainers {
		if e.Name != c.Name || e.TargetContainerName == "" {
			continue
		}
		for _, oc := range o.Containers {
			if oc.Name == e.TargetContainerName && oc.State == lifecycle.Running {
				x.TargetID = oc.ID
			}
		}
		if x.TargetID == "" {
			return nil, fmt.Errorf("unable to find target container %q", e.TargetContainerName)
		}
	}
	return a.spec.Container(pod, c, x)
}

func podIPs(pod *corev1.Pod, o lifecycle.Observed, host string) []string {
	if pod.Spec.HostNetwork {
		return []string{host}
	}
	for _, s := range o.Sandboxes {
		if s.Ready {
			return s.IPs
		}
	}
	return nil
}

// environment makes a container's variables.
func (a *Agent) environment(ctx context.Context, pod *corev1.Pod, c *corev1.Container, ips []string) ([]env.Var, error) {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	src := a.envSources(ctx, pod, ips)
	src.Services = env.Services(pod.Namespace, a.services.List(""), links)
	vars, skipped, err := env.Of(pod, c, src)
	if err != nil {
		return nil, err
	}
	if len(skipped) > 0 {
		a.event(pod, c.Name, corev1.EventTypeWarning, "InvalidEnvironmentVariableNames",
			"Keys [%s] from the EnvFrom sources were skipped since they are considered invalid environment variable names.", strings.Join(skipped, ", "))
	}
	return vars, nil
}

func (a *Agent) envSources(ctx context.Context, pod *corev1.Pod, ips []string) env.Sources {
	src := env.Sources{
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			return getObject[*corev1.ConfigMap](ctx, a.objects, pod.Namespace, name)
		},
		Secret: func(name string) (*corev1.Secret, error) {
			return getObject[*corev1.Secret](ctx, a.objects, pod.Namespace, name)
		},
		File: func(volume, path, key string) (string, bool, error) {
			dir, err := a.volumes.Path(pod, volume)
			if err != nil {
				return "", false, err
			}
			return envFile(dir, path, key)
		},
		NotFound: apierrors.IsNotFound, HostIP: a.cfg.NodeIP.String(), HostIPs: []string{a.cfg.NodeIP.String()}, PodIPs: ips,
		Allocatable: a.allocatable(),
	}
	if len(ips) > 0 {
		src.PodIP = ips[0]
	}
	return src
}

// envFile reads one variable from a file of "NAME=value" lines. The path is not followed out of the volume.
func envFile(dir, path, key string) (string, bool, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", false, err
	}
	defer root.Close()
	f, err := root.Open(path)
	if os.IsNotExist(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	sc := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if k, v, ok := strings.Cut(line, "="); ok && k == key {
			if len(v) >= 2 && (v[0] == '\'' || v[0] == '"') && v[len(v)-1] == v[0] {
				v = v[1 : len(v)-1]
			}
			return v, true, nil
		}
	}
	return "", false, sc.Err()
}

func getObject[T api.Object](ctx context.Context, s *objects.Set, namespace, name string) (T, error) {
	o, err := s.Get(ctx, objects.Ref{Kind: client.KindOf[T](), Namespace: namespace, Name: name})
	if err != nil {
		var zero T
		return zero, err
	}
	return o.(T), nil
}

const hostsPath = "/etc/hosts"

// mounts are the container's volumes, hosts file and termination message.
func (w *worker) mounts(ctx context.Context, pod *corev1.Pod, c *corev1.Container, act lifecycle.Action, vars []env.Var, ips []string) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	hosts := len(ips) > 0
	for i, vm := range c.VolumeMounts {
		m, err := w.volumeMount(ctx, pod, c, i, vars)
		if err != nil {
			return nil, err
		}
		hosts = hosts && filepath.Clean(vm.MountPath) != hostsPath
		out = append(out, m)
	}
	dir := w.a.volumes.PodDir(string(w.uid))
	if hosts {
		var node []byte
		if pod.Spec.HostNetwork {
			b, err := os.ReadFile(hostsPath)
			if err != nil {
				return nil, err
			}
			node = b
		}
		f := filepath.Join(dir, "etc-hosts")
		if err := os.WriteFile(f, spec.Hosts(pod, ips, w.a.cfg.ClusterDomain, node), 0o644); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: hostsPath, HostPath: f})
	}
	if c.TerminationMessagePath != "" {
		f := filepath.Join(dir, "containers", c.Name, strconv.Itoa(act.Attempt))
		if err := os.MkdirAll(filepath.Dir(f), 0o750); err != nil {
			return nil, err
		}
		if err := os.WriteFile(f, nil, 0o666); err != nil {
			return nil, err
		}
		if err := os.Chmod(f, 0o666); err != nil { // the umask does not count
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: f})
	}
	return out, nil
}

func (w *worker) volumeMount(ctx context.Context, pod *corev1.Pod, c *corev1.Container, i int, vars []env.Var) (*runtimeapi.Mount, error) {
	vm := &c.VolumeMounts[i]
	m := &runtimeapi.Mount{ContainerPath: vm.MountPath, Readonly: vm.ReadOnly, Propagation: spec.Propagation(vm.MountPropagation)}
	if !filepath.IsAbs(m.ContainerPath) {
		m.ContainerPath = "/" + m.ContainerPath
	}
	if vm.RecursiveReadOnly != nil && *vm.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled && vm.ReadOnly {
		m.RecursiveReadOnly = true
	}
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var missing error
		sub = env.Expand(vm.SubPathExpr, func(name string) (string, bool) {
			v, ok := env.Lookup(vars)(name)
			if !ok {
				missing = fmt.Errorf("missing value for %q", name)
			}
			return v, ok
		})
		if missing != nil {
			return nil, fmt.Errorf("failed to expand subPathExpr %q: %w", vm.SubPathExpr, missing)
		}
	}
	for j := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[j]; v.Name == vm.Name && v.Image != nil {
			ref, err := w.ensureImage(ctx, pod, c.Name, v.Image.Reference, v.Image.PullPolicy)
			if err != nil {
				return nil, err
			}
			m.Image, m.ImageSubPath, m.Readonly = &runtimeapi.ImageSpec{Image: ref}, sub, true
			return m, nil
		}
	}
	path, err := w.a.volumes.Path(pod, vm.Name)
	if err != nil {
		return nil, err
	}
	m.HostPath = path
	if sub != "" {
		if m.HostPath, err = w.a.volumes.SubPath(string(w.uid), path, vm.Name, c.Name, i, sub); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// hook runs a lifecycle handler against a container.
func (w *worker) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		r, err := w.a.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Exec.Command})
		if err != nil {
			return err
		}
		if r.ExitCode != 0 {
			return fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), r.ExitCode, append(r.Stdout, r.Stderr...))
		}
		return nil
	case h.Sleep != nil:
		t := time.Duration(h.Sleep.Seconds) * time.Second
		if !w.a.sleep(ctx, t) {
			return ctx.Err()
		}
		return nil
	}
	o, err := w.a.runtime.Observe(ctx, string(w.uid))
	if err != nil {
		return err
	}
	ips := podIPs(pod, o, w.a.cfg.NodeIP.String())
	if len(ips) == 0 {
		return errors.New("the pod has no address")
	}
	switch {
	case h.HTTPGet != nil:
		u, header, err := probe.HTTPRequest(h.HTTPGet, c, ips[0])
		if err != nil {
			return err
		}
		resp, err := probe.Get(ctx, u, header, "kube-lifecycle/"+majorMinor(w.a.cfg.Version))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("HTTP status %s", resp.Status)
		}
		return nil
	case h.TCPSocket != nil:
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(ips[0], h.TCPSocket.Port.String()))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return errors.New("handler of no known kind")
}

func majorMinor(version string) string {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	return strings.Join(parts[:min(2, len(parts))], ".")
}
