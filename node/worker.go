package node

import (
	"context"
	"maps"
	"reflect"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/node/lifecycle"
	"github.com/skiff-sh/skiff/node/probe"
)

// wakeup is why a worker should look at its pod again.
type wakeup uint

const (
	wakeDesired wakeup = 1 << iota // the API's pod changed
	wakeRuntime                    // the runtime has news
	wakeObjects                    // an object that the pod refers to changed
)

const (
	retryRuntime = 200 * time.Millisecond
	lookAgain    = 5 * time.Minute // without any event, should the runtime have lost one
	resizeRetry  = 5 * time.Second // while another pod's end may make room
)

// worker looks after one pod. One goroutine owns all fields below "loop"; actions run beside it and hand their
// results back as functions.
type worker struct {
	a   *Agent
	uid types.UID

	mu      sync.Mutex
	pod     *corev1.Pod // newest known
	gone    bool
	news    wakeup
	results []func()
	kick    chan struct{}
	latest  corev1.PodStatus   // for the node API
	seen    lifecycle.Observed // for the node API

	// loop
	mem      lifecycle.Memory
	observed lifecycle.Observed
	old      corev1.PodStatus
	busy     map[string]lifecycle.Action
	cancels  map[string]context.CancelFunc
	probes   map[probeKey]context.CancelFunc
	told     map[string]bool // events already sent, by their key
	refused  *lifecycle.Refusal
	pending  *lifecycle.Refusal // of a resize
	admitted bool
	acting   sync.WaitGroup
	report   reporter
	shown    *corev1.Pod // whose labels and annotations the volumes show
}

type probeKey struct {
	id   string
	kind lifecycle.ProbeKind
}

func newWorker(a *Agent, p *corev1.Pod, gone bool) *worker {
	return &worker{a: a, uid: p.UID, pod: p, gone: gone, news: wakeRuntime | wakeDesired, kick: make(chan struct{}, 1), old: *p.Status.DeepCopy(),
		busy: map[string]lifecycle.Action{}, cancels: map[string]context.CancelFunc{}, probes: map[probeKey]context.CancelFunc{}, told: map[string]bool{}}
}

// desire tells the worker of a newer pod, or that the API deleted it.
func (w *worker) desire(p *corev1.Pod, gone bool) {
	w.mu.Lock()
	if gone || newer(p, w.pod) {
		w.pod = p
	}
	w.gone = w.gone || gone
	w.mu.Unlock()
	w.wake(wakeDesired)
}

func (w *worker) desired() (*corev1.Pod, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod, w.gone
}

func newer(a, b *corev1.Pod) bool {
	x, errA := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errB := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errA != nil || errB != nil || x >= y
}

func (w *worker) wake(why wakeup) {
	w.mu.Lock()
	w.news |= why
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// tell hands a result to the loop.
func (w *worker) tell(f func()) {
	w.mu.Lock()
	w.results = append(w.results, f)
	w.mu.Unlock()
	w.wake(wakeRuntime)
}

// run is the loop: gather, decide, do. It returns when nothing is left of the pod.
func (w *worker) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer w.acting.Wait()
	defer cancel()
	defer w.a.objects.Hold(string(w.uid), nil)
	defer w.a.admit.release(w.uid)
	timer := w.a.cfg.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wake, done := w.step(ctx)
		if done {
			return
		}
		wait := lookAgain
		if !wake.IsZero() {
			wait = min(max(wake.Sub(w.a.cfg.Clock.Now()), time.Millisecond), wait)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		case <-timer.C():
			if wait == lookAgain {
				w.wake(wakeRuntime)
			}
		}
	}
}

// take ends what has been done, and returns what has happened and the pod as it is now. The order matters: what was done
// may bring a newer pod, and a status patch that is made against an older one cannot take back what that did not have.
func (w *worker) take() (news wakeup, pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	results := w.results
	w.results = nil
	w.mu.Unlock()
	for _, f := range results {
		f()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	news, w.news = w.news, 0
	return news, w.pod, w.gone
}

func (w *worker) step(ctx context.Context) (wake time.Time, done bool) {
	news, pod, gone := w.take()
	now := w.a.cfg.Clock.Now()
	if news&wakeRuntime != 0 {
		o, err := w.a.runtime.Observe(ctx, string(w.uid))
		if err != nil {
			w.mu.Lock()
			w.news |= wakeRuntime
			w.mu.Unlock()
			return now.Add(retryRuntime), false
		}
		w.observed = o
	}
	if news&wakeDesired != 0 && !gone {
		w.a.objects.Hold(string(w.uid), references(pod))
		w.mem.ResizeTrouble = nil
	}
	if news&(wakeObjects|wakeDesired) != 0 {
		w.freshen(news, pod)
	}
	w.inheritProbes()
	if !w.admitted && !gone {
		w.admitted = true
		w.refused = w.a.admit.admit(pod, w.a, len(w.observed.Containers) > 0)
	}
	if (news&wakeDesired != 0 || w.pending != nil) && w.admitted && !gone && w.refused == nil {
		w.pending = w.a.admit.resize(pod, w.a.allocatable)
	}
	d := lifecycle.Step(lifecycle.Input{Pod: pod, Gone: gone, Observed: w.observed, Memory: &w.mem, Busy: w.busy, Old: &w.old,
		Refused: w.refused, ResizePending: w.pending, HostIPs: []string{w.a.cfg.NodeIP.String()}, Now: now})
	if d.Done {
		return time.Time{}, true
	}
	if d.Ending && w.mem.EndingSince.IsZero() {
		w.mem.EndingSince = now
	}
	w.apply(ctx, pod, gone, d)
	if again := now.Add(resizeRetry); w.pending != nil && w.pending.Reason == corev1.PodReasonDeferred && (d.Wake.IsZero() || again.Before(d.Wake)) {
		d.Wake = again
	}
	return d.Wake, false
}

// freshen forgets why things did not work where an object or the pod itself may have changed that.
func (w *worker) freshen(news wakeup, pod *corev1.Pod) {
	if news&wakeObjects != 0 || w.shown != nil && !(maps.Equal(w.shown.Labels, pod.Labels) && maps.Equal(w.shown.Annotations, pod.Annotations)) {
		w.mem.VolumesStale = true
	}
	w.shown = pod
	if news&wakeObjects == 0 {
		return
	}
	for _, c := range w.mem.Containers {
		if c.StartTrouble != nil && c.StartTrouble.Reason == reasonConfig {
			c.StartTrouble.Retry = time.Time{}
		}
	}
}

// inheritProbes takes over, for containers that were running before this agent did, what the API says of them.
func (w *worker) inheritProbes() {
	for i := range w.observed.Containers {
		c := &w.observed.Containers[i]
		m := w.mem.Container(c.Name)
		if c.State != lifecycle.Running || m.Probes.ID == c.ID || i > 0 && w.newestOf(c.Name) != c {
			continue
		}
		m.Probes = lifecycle.Probes{ID: c.ID}
		for _, st := range append(append([]corev1.ContainerStatus{}, w.old.ContainerStatuses...), w.old.InitContainerStatuses...) {
			if st.Name != c.Name || st.ContainerID != lifecycle.RuntimePrefix+c.ID {
				continue
			}
			if st.Ready {
				m.Probes.Readiness = lifecycle.Success
			}
			if st.Started != nil && *st.Started {
				m.Probes.Startup = lifecycle.Success
			}
		}
	}
}

func (w *worker) newestOf(name string) *lifecycle.Container {
	for i := range w.observed.Containers {
		if w.observed.Containers[i].Name == name {
			return &w.observed.Containers[i]
		}
	}
	return nil
}

// apply starts what was decided.
func (w *worker) apply(ctx context.Context, pod *corev1.Pod, gone bool, d lifecycle.Decision) {
	for _, key := range d.Cancel {
		if cancel := w.cancels[key]; cancel != nil {
			cancel()
		}
	}
	for _, e := range d.Events {
		if !w.told[e.Key] {
			w.told[e.Key] = true
			w.a.event(pod, e.Container, e.Type, e.Reason, "%s", e.Message)
		}
	}
	w.old = d.Status
	w.mu.Lock()
	w.latest, w.seen = d.Status, w.observed
	w.mu.Unlock()
	if !gone {
		if p := d.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
			w.a.admit.release(w.uid) // before the scheduler learns of it
		}
		before := w.mem.Reported
		w.mem.Reported = w.report.want(ctx, w, pod, d.Status)
		if !w.mem.Reported {
			d.Actions = dropDelete(d.Actions)
		} else if !before {
			w.wake(0) // what depends on the report is decided again
		}
	}
	w.runProbes(ctx, pod, d.Probes)
	for _, act := range d.Actions {
		w.start(ctx, pod, act)
	}
}

func dropDelete(in []lifecycle.Action) []lifecycle.Action {
	var out []lifecycle.Action
	for _, a := range in {
		if a.Do != lifecycle.DeletePod {
			out = append(out, a)
		}
	}
	return out
}

// start runs an action beside the loop.
func (w *worker) start(ctx context.Context, pod *corev1.Pod, act lifecycle.Action) {
	key := act.Key()
	ctx, cancel := context.WithCancel(ctx)
	w.busy[key], w.cancels[key] = act, cancel
	if act.Do == lifecycle.MountVolumes {
		w.mem.VolumesStale = false
	}
	w.acting.Add(1)
	go func() {
		defer w.acting.Done()
		result := w.do(ctx, pod, act)
		cancel()
		w.tell(func() {
			delete(w.busy, key)
			delete(w.cancels, key)
			if result != nil {
				result()
			}
		})
	}()
}

// runProbes makes the running probes those that are wanted.
func (w *worker) runProbes(ctx context.Context, pod *corev1.Pod, want []lifecycle.Probe) {
	keep := map[probeKey]bool{}
	for _, p := range want {
		k := probeKey{p.ID, p.Kind}
		keep[k] = true
		if w.probes[k] != nil {
			continue
		}
		c, ok := lifecycle.Find(pod, p.Container)
		if !ok {
			continue
		}
		pctx, cancel := context.WithCancel(ctx)
		w.probes[k] = cancel
		w.acting.Add(1)
		go func() {
			defer w.acting.Done()
			w.a.prober.Run(pctx, probe.Target{Probe: p, Pod: pod, Spec: c},
				func(r lifecycle.Result) { w.tellProbe(p, r) },
				func(o probe.Outcome, message string) { w.a.probeEvent(pod, p, o, message) })
		}()
	}
	for k, cancel := range w.probes {
		if !keep[k] {
			cancel()
			delete(w.probes, k)
		}
	}
}

func (w *worker) tellProbe(p lifecycle.Probe, r lifecycle.Result) {
	w.mu.Lock()
	w.results = append(w.results, func() {
		m := w.mem.Container(p.Container)
		if m.Probes.ID != p.ID {
			m.Probes = lifecycle.Probes{ID: p.ID}
		}
		switch p.Kind {
		case lifecycle.Startup:
			m.Probes.Startup = r
		case lifecycle.Liveness:
			m.Probes.Liveness = r
		case lifecycle.Readiness:
			m.Probes.Readiness = r
		}
	})
	w.mu.Unlock()
	w.wake(0)
}

func (a *Agent) probeEvent(pod *corev1.Pod, p lifecycle.Probe, o probe.Outcome, message string) {
	switch o {
	case probe.Bad:
		a.event(pod, p.Container, corev1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", p.Kind, message)
	case probe.Warning:
		a.event(pod, p.Container, corev1.EventTypeWarning, "ProbeWarning", "%s probe warning: %s", p.Kind, message)
	case probe.Broken:
		a.event(pod, p.Container, corev1.EventTypeWarning, "Unhealthy", "%s probe errored and resulted in unknown state: %s", p.Kind, message)
	}
}

// event tells the user something about a pod, or about one container of it.
func (a *Agent) event(pod *corev1.Pod, container, typ, reason, format string, args ...any) {
	if len(pod.Spec.Containers) == 0 {
		return // an orphan: nobody would find it
	}
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	for _, l := range []struct {
		field string
		list  []corev1.Container
	}{{"containers", pod.Spec.Containers}, {"initContainers", pod.Spec.InitContainers}} {
		for _, c := range l.list {
			if container != "" && c.Name == container {
				ref.FieldPath = "spec." + l.field + "{" + c.Name + "}"
			}
		}
	}
	if container != "" && ref.FieldPath == "" {
		ref.FieldPath = "spec.ephemeralContainers{" + container + "}"
	}
	a.events.Eventf(ref, typ, reason, format, args...)
}

// sleep waits, or reports false if ctx ended first.
func (a *Agent) sleep(ctx context.Context, d time.Duration) bool {
	t := a.cfg.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C():
		return true
	}
}

func equalStatus(a, b *corev1.PodStatus) bool {
	return reflect.DeepEqual(a, b) || equality.Semantic.DeepEqual(a, b)
}
