package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/node/lifecycle"
	"github.com/skiff-sh/skiff/node/serve"
	"github.com/skiff-sh/skiff/node/spec"
)

// serve answers the node API until ctx ends.
func (a *Agent) serve(ctx context.Context) error {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	h := serve.Handler(serve.Config{Node: a.cfg.Name, Client: a.cfg.Client, Runtime: a.runtime, Pods: apiPods{a}, Metrics: reg, LogDir: "/var/log",
		Stats: &serve.Stats{Runtime: a.runtime, Node: a.cfg.Name, Dir: a.cfg.RootDir, Started: a.cfg.Clock.Now()}, Configz: a.configz(),
		Anonymous: a.cfg.Anonymous, Healthy: func() error { return nil }, Log: a.cfg.Log})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.cfg.ListenAddr)
	if err != nil {
		return fmt.Errorf("node API: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if a.cfg.TLS != nil {
		t := a.cfg.TLS.Clone()
		if a.cfg.ClientCAs != nil {
			t.ClientCAs, t.ClientAuth = a.cfg.ClientCAs, tls.VerifyClientCertIfGiven
		}
		srv.TLSConfig = t
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return ctx.Err()
	}
	return fmt.Errorf("node API: %w", err)
}

// configz shows the settings that matter to clients, under upstream's names.
func (a *Agent) configz() any {
	var dns []string
	for _, d := range a.cfg.ClusterDNS {
		dns = append(dns, d.String())
	}
	return map[string]any{"maxPods": a.cfg.MaxPods, "clusterDomain": a.cfg.ClusterDomain, "clusterDNS": dns, "containerLogMaxSize": strconv.FormatInt(a.cfg.LogMaxSize, 10),
		"containerLogMaxFiles": a.cfg.LogMaxFiles, "imageGCHighThresholdPercent": a.cfg.ImageGCHigh, "imageGCLowThresholdPercent": a.cfg.ImageGCLow,
		"nodeLeaseDurationSeconds": int(a.cfg.LeaseDuration / time.Second), "cgroupRoot": a.cfg.CgroupRoot, "cgroupDriver": "cgroupfs",
		"containerRuntimeEndpoint": a.cfg.CRIEndpoint, "podPidsLimit": -1, "maxParallelImagePulls": a.cfg.MaxPulls, "serializeImagePulls": a.cfg.MaxPulls == 1,
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
}

// apiPods shows the workers' pods to the node API.
type apiPods struct{ a *Agent }

func (p apiPods) List() []*corev1.Pod {
	p.a.mu.Lock()
	defer p.a.mu.Unlock()
	var out []*corev1.Pod
	for _, w := range p.a.workers {
		pod, gone := w.desired()
		if gone || len(pod.Spec.Containers) == 0 {
			continue
		}
		c := pod.DeepCopy()
		w.mu.Lock()
		if w.latest.Phase != "" {
			c.Status = *w.latest.DeepCopy()
		}
		w.mu.Unlock()
		out = append(out, c)
	}
	return out
}

func notFound(format string, args ...any) error {
	return &serve.Error{Code: http.StatusNotFound, Text: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &serve.Error{Code: http.StatusBadRequest, Text: fmt.Sprintf(format, args...)}
}

func (p apiPods) find(namespace, name, uid string) (*worker, error) {
	w := p.a.worker(namespace, name)
	if w == nil || uid != "" && string(w.uid) != uid {
		return nil, notFound("pod %q not found", name)
	}
	return w, nil
}

// containers gives what the runtime has under a container's name, newest first.
func (w *worker) containers(name string) []lifecycle.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []lifecycle.Container
	for _, c := range w.seen.Containers {
		if c.Name == name {
			out = append(out, c)
		}
	}
	return out
}

func (p apiPods) Container(namespace, pod, uid, container string) (string, error) {
	w, err := p.find(namespace, pod, uid)
	if err != nil {
		return "", err
	}
	for _, c := range w.containers(container) {
		if c.State == lifecycle.Running {
			return c.ID, nil
		}
	}
	return "", &serve.Error{Code: http.StatusInternalServerError, Text: fmt.Sprintf("unable to upgrade connection: container not found (%q)", container)}
}

func (p apiPods) Sandbox(namespace, pod, uid string) (string, error) {
	w, err := p.find(namespace, pod, uid)
	if err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.seen.Sandboxes {
		if s.Ready {
			return s.ID, nil
		}
	}
	return "", notFound("pod not found (%q)", pod)
}

func (a *Agent) logPath(pod *corev1.Pod, container string, attempt int) string {
	return filepath.Join(spec.LogDir(a.cfg.PodLogDir, pod.Namespace, pod.Name, string(pod.UID)), container, strconv.Itoa(attempt)+".log")
}

// Log finds which of a container's logs is meant, or says why there is none yet.
func (p apiPods) Log(ctx context.Context, namespace, name, container string, previous bool) (string, func() bool, error) {
	w, err := p.find(namespace, name, "")
	if err != nil {
		return "", nil, err
	}
	pod, _ := w.desired()
	if _, ok := lifecycle.Find(pod, container); !ok {
		return "", nil, badRequest("container %q not found in pod %q", container, name)
	}
	w.mu.Lock()
	st := w.latest
	w.mu.Unlock()
	all := w.containers(container)
	if previous {
		for _, cs := range append(append(append([]corev1.ContainerStatus{}, st.ContainerStatuses...), st.InitContainerStatuses...), st.EphemeralContainerStatuses...) {
			if t := cs.LastTerminationState.Terminated; cs.Name == container && t != nil {
				for _, c := range all {
					if lifecycle.RuntimePrefix+c.ID == t.ContainerID {
						return p.a.logPath(pod, container, c.Attempt), func() bool { return false }, nil
					}
				}
			}
		}
		return "", nil, badRequest("previous terminated container %q in pod %q not found", container, name)
	}
	if len(all) == 0 || all[0].State == lifecycle.Created {
		reason := "ContainerCreating"
		for _, cs := range append(append([]corev1.ContainerStatus{}, st.ContainerStatuses...), st.InitContainerStatuses...) {
			if cs.Name == container && cs.State.Waiting != nil {
				reason = cs.State.Waiting.Reason
			}
		}
		switch reason {
		case "ErrImagePull":
			reason = "image can't be pulled"
		case "ImagePullBackOff":
			reason = "trying and failing to pull image"
		}
		return "", nil, badRequest("container %q in pod %q is waiting to start: %v", container, name, reason)
	}
	id := all[0].ID
	return p.a.logPath(pod, container, all[0].Attempt), func() bool {
		for _, c := range w.containers(container) {
			if c.ID == id {
				return c.State == lifecycle.Running
			}
		}
		return false
	}, nil
}
