package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/node/cgroup"
	"github.com/skiff-sh/skiff/node/cri"
	"github.com/skiff-sh/skiff/node/image"
	"github.com/skiff-sh/skiff/node/objects"
	"github.com/skiff-sh/skiff/node/probe"
	"github.com/skiff-sh/skiff/node/spec"
	"github.com/skiff-sh/skiff/node/status"
	"github.com/skiff-sh/skiff/node/volume"
	"github.com/skiff-sh/skiff/reconcile"
)

// Agent is one node's agent. Make it with New.
type Agent struct {
	cfg      Config
	events   reconcile.Recorder
	runtime  *cri.Client
	groups   *cgroup.Tree
	volumes  *volume.Manager
	puller   *image.Puller
	prober   *probe.Prober
	spec     *spec.Node
	pods     *client.Cache[*corev1.Pod]
	services *client.Cache[*corev1.Service]
	nodes    *client.Cache[*corev1.Node]
	admit    *admitter

	objects *objects.Set
	ctx     context.Context
	ready   atomic.Bool // the runtime and its network can take pods

	mu      sync.Mutex
	workers map[types.UID]*worker
	running sync.WaitGroup
}

// New checks the configuration; nothing is started before Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, events: cfg.Events, workers: map[types.UID]*worker{}}
	if a.events == nil {
		a.events = reconcile.NewRecorder(cfg.Client, "kubelet", cfg.Name, cfg.Clock)
	}
	var err error
	if a.runtime, err = cri.New(cfg.CRIEndpoint); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if a.groups, err = cgroup.New("/sys/fs/cgroup", cfg.CgroupRoot); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	a.volumes = &volume.Manager{Root: filepath.Join(cfg.RootDir, "pods"), Src: a.volumeSources()}
	a.puller = image.NewPuller(a.runtime.Images, cfg.MaxPulls, cfg.Clock.Now)
	a.prober = &probe.Prober{Runtime: a.runtime, Clock: cfg.Clock, Version: cfg.Version}
	a.spec = &spec.Node{Name: cfg.Name, PodLogDir: cfg.PodLogDir, SeccompDir: filepath.Join(cfg.RootDir, "seccomp"), ClusterDomain: cfg.ClusterDomain,
		Memory: status.Memory()}
	for _, ip := range cfg.ClusterDNS {
		a.spec.ClusterDNS = append(a.spec.ClusterDNS, ip.String())
	}
	if a.spec.HostDNS, err = hostDNS(cfg.ResolvConf); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	a.pods = client.CacheOf[*corev1.Pod](cfg.Caches, client.Fields("spec.nodeName="+cfg.Name))
	a.services = client.CacheOf[*corev1.Service](cfg.Caches)
	a.nodes = client.CacheOf[*corev1.Node](cfg.Caches, client.Fields("metadata.name="+cfg.Name))
	a.admit = newAdmitter(cfg.MaxPods)
	return a, nil
}

// Run works until ctx ends. Containers go on running after it.
func (a *Agent) Run(ctx context.Context) error {
	defer a.runtime.Close()
	g, ctx := errgroup.WithContext(ctx)
	a.ctx = ctx
	a.objects = objects.New(ctx, a.cfg.Client, func(uid string) { a.wake(types.UID(uid), wakeObjects) })
	g.Go(func() error { return a.keepNode(ctx) })
	g.Go(func() error { return a.runPods(ctx) })
	g.Go(func() error { return a.collectGarbage(ctx) })
	if a.cfg.ListenAddr != "-" {
		g.Go(func() error { return a.serve(ctx) })
	}
	err := g.Wait()
	a.running.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// runPods gives every pod of the node, and every pod that only the runtime knows, a worker.
func (a *Agent) runPods(ctx context.Context) error {
	if err := a.cfg.Caches.Sync(ctx); err != nil {
		return err
	}
	// The node object comes first, so that pods find its labels and the API finds the node of their status.
	if err := a.waitRegistered(ctx); err != nil {
		return err
	}
	cancel := a.pods.Subscribe(func(e client.Event[*corev1.Pod]) {
		if e.New != nil {
			a.update(e.New)
		} else {
			a.remove(e.Old)
		}
	})
	defer cancel()
	for _, p := range a.pods.List("") {
		a.update(p)
	}
	if err := a.adopt(ctx); err != nil {
		return err
	}
	return a.runtime.Events(ctx, func(e cri.Event) {
		if e.UID != "" {
			a.wake(types.UID(e.UID), wakeRuntime)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, w := range a.workers {
			w.wake(wakeRuntime)
		}
	})
}

// adopt ends what is left of pods that the API does not know.
func (a *Agent) adopt(ctx context.Context) error {
	var known map[cri.PodID]bool
	for {
		var err error
		if known, err = a.runtime.Pods(ctx); err == nil {
			break
		}
		if !a.sleep(ctx, retryRuntime) {
			return ctx.Err()
		}
	}
	for id := range known {
		a.orphan(id)
	}
	left, err := a.volumes.Pods()
	if err != nil {
		return err
	}
	for _, uid := range append(left, a.groups.Pods()...) {
		a.orphan(cri.PodID{UID: uid})
	}
	return nil
}

func (a *Agent) orphan(id cri.PodID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.workers[types.UID(id.UID)] != nil {
		return
	}
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = id.Namespace, id.Name, types.UID(id.UID)
	a.startWorker(p, true)
}

func (a *Agent) update(p *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[p.UID]; w != nil {
		w.desire(p, false)
		return
	}
	a.startWorker(p, false)
}

func (a *Agent) remove(p *corev1.Pod) {
	a.admit.release(p.UID) // at once: a pod that takes its place may be the next event
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[p.UID]; w != nil {
		w.desire(p, true)
	}
}

// startWorker is called with mu held.
func (a *Agent) startWorker(p *corev1.Pod, gone bool) {
	if a.ctx.Err() != nil {
		return
	}
	w := newWorker(a, p, gone)
	a.workers[p.UID] = w
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		w.run(a.ctx)
		a.mu.Lock()
		delete(a.workers, p.UID)
		a.mu.Unlock()
	}()
}

func (a *Agent) wake(uid types.UID, why wakeup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.workers[uid]; w != nil {
		w.wake(why)
	}
}

func (a *Agent) worker(namespace, name string) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found *worker
	for _, w := range a.workers {
		if p, gone := w.desired(); p.Namespace == namespace && p.Name == name && (found == nil || !gone) {
			found = w
		}
	}
	return found
}
