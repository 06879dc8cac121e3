package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
)

// Upstream's limits.
const (
	similarEvents   = 10               // messages that one reason may have, before they are combined,
	similarInterval = 10 * time.Minute // when each follows the other within this time
	spamBurst       = 25               // events about one object from one source, then
	spamInterval    = 5 * time.Minute  // one in this time
	remembered      = 4096             // objects and events kept in mind
	queuedEvents    = 8192             // events waiting for the server, under 10 MB; more are dropped. A burst of pods brings as many
	mostTries       = 5                // for one event while the server cannot be reached
	together        = 4                // events about different objects that are written side by side
)

// recorder writes events, those about one object one after the other. It has a goroutine only while events wait, and none while it waits for
// the server to come back.
type recorder struct {
	client          client.Interface
	component, host string
	clock           clock.WithTicker

	mu      sync.Mutex
	waiting []*corev1.Event
	writing bool  // or a timer is set to
	stamp   int64 // of the latest event's name, in nanoseconds since 1970: no two have the same

	// Used by the writing goroutine alone, of which there is one at a time.
	pending []*delivery // could not be delivered yet
	ahead   *delivery   // next, after one about the same object
	spam    *lru.Cache  // corev1.ObjectReference -> *rate.Limiter
	similar *lru.Cache  // similarEvent -> *similarity
	written *lru.Cache  // sameEvent -> writtenEvent
	down    bool        // the last event could not be delivered
}

// similarEvent is what combined events have in common.
type similarEvent struct {
	about             corev1.ObjectReference
	eventType, reason string
}

// sameEvent is what repeated events have in common.
type sameEvent struct {
	similarEvent
	fieldPath string
	message   string // empty for combined ones
}

// writtenEvent is where the server has an event, and how often it has happened.
type writtenEvent struct {
	namespace, name string
	count           int32
}

type similarity struct {
	messages map[string]struct{}
	last     time.Time
}

// NewRecorder makes a recorder whose events come from component on host ("" where that says nothing). Eventf never
// blocks: when the server cannot keep up, events are lost.
func NewRecorder(c client.Interface, component, host string, clk clock.WithTicker) Recorder {
	if clk == nil {
		clk = clock.RealClock{}
	}
	return &recorder{client: c, component: component, host: host, clock: clk,
		spam: lru.New(remembered), similar: lru.New(remembered), written: lru.New(remembered)}
}

func (r *recorder) Eventf(about runtime.Object, eventType, reason, format string, args ...any) {
	ref, ok := referenceTo(about)
	if !ok {
		return
	}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	message := format
	if len(args) > 0 {
		message = fmt.Sprintf(format, args...)
	}
	now := r.clock.Now()
	e := &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace},
		InvolvedObject:      ref,
		Type:                eventType,
		Reason:              reason,
		Message:             message,
		Source:              corev1.EventSource{Component: r.component, Host: r.host},
		FirstTimestamp:      metav1.NewTime(now),
		LastTimestamp:       metav1.NewTime(now),
		Count:               1,
		ReportingController: r.component,
		ReportingInstance:   r.host,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= queuedEvents {
		return
	}
	r.stamp = max(r.stamp+1, now.UnixNano())
	e.Name = fmt.Sprintf("%s.%x", ref.Name, r.stamp)
	r.waiting = append(r.waiting, e)
	if !r.writing {
		r.writing = true
		go r.write()
	}
}

// referenceTo names an object as events do. Objects without a known kind cannot be told about.
func referenceTo(o runtime.Object) (corev1.ObjectReference, bool) {
	switch o := o.(type) {
	case *corev1.ObjectReference:
		return *o, true
	case api.Object:
		gvk := o.GetObjectKind().GroupVersionKind()
		if k, ok := builtin.Table().Of(o); ok {
			gvk = k.GroupVersionKind()
		}
		if gvk.Kind == "" {
			return corev1.ObjectReference{}, false
		}
		return corev1.ObjectReference{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: o.GetNamespace(),
			Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion()}, true
	}
	return corev1.ObjectReference{}, false
}

// write delivers what waits, then ends. While the server cannot be reached it ends as well, and a timer goes on with it.
func (r *recorder) write() {
	for {
		batch := r.next()
		if len(batch) == 0 {
			return
		}
		down := r.down
		r.pending, r.down = nil, false
		for i, err := range r.tryAll(batch) {
			d := batch[i]
			var status apierrors.APIStatus
			lost := err != nil && !errors.As(err, &status) // neither written nor refused for good
			if d.tries++; lost && !down && d.tries < mostTries {
				r.pending = append(r.pending, d)
			}
			r.down = r.down || lost
		}
		if len(r.pending) > 0 {
			r.down = false
			time.AfterFunc(time.Second<<r.pending[0].tries, r.write)
			return
		}
	}
}

// tryAll delivers events about different objects side by side: writes that come together cost the server less.
func (r *recorder) tryAll(batch []*delivery) []error {
	errs := make([]error, len(batch))
	var group sync.WaitGroup
	for i, d := range batch[1:] {
		group.Go(func() { errs[i+1] = r.try(d.id, d.event) })
	}
	errs[0] = r.try(batch[0].id, batch[0].event)
	group.Wait()
	return errs
}

// delivery is an event on its way.
type delivery struct {
	id    sameEvent
	event *corev1.Event
	tries int
}

// next is the events to deliver, about different objects; none when none waits, and then nobody is writing any more.
func (r *recorder) next() (batch []*delivery) {
	if len(r.pending) > 0 {
		return r.pending
	}
	if r.ahead != nil {
		batch, r.ahead = append(batch, r.ahead), nil
	}
	for len(batch) < together {
		r.mu.Lock()
		if len(r.waiting) == 0 {
			if len(batch) == 0 {
				r.waiting, r.writing = nil, false
			}
			r.mu.Unlock()
			return batch
		}
		e := r.waiting[0]
		r.waiting = r.waiting[1:]
		r.mu.Unlock()
		id, ok := r.correlate(e)
		if !ok {
			continue
		}
		d := &delivery{id: id, event: e}
		if slices.ContainsFunc(batch, func(other *delivery) bool { return other.id.about == id.about }) {
			r.ahead = d
			return batch
		}
		batch = append(batch, d)
	}
	return batch
}

// correlate decides whether the event is spam and combines it with similar ones; id is what repetitions share.
func (r *recorder) correlate(e *corev1.Event) (id sameEvent, ok bool) {
	subject := e.InvolvedObject
	subject.ResourceVersion = ""
	subject.FieldPath = ""
	limiter, _ := r.spam.Get(subject)
	if limiter == nil {
		limiter = rate.NewLimiter(rate.Every(spamInterval), spamBurst)
		r.spam.Add(subject, limiter)
	}
	kin := similarEvent{e.InvolvedObject, e.Type, e.Reason}
	kin.about.ResourceVersion, kin.about.FieldPath = "", ""
	id = sameEvent{kin, e.InvolvedObject.FieldPath, e.Message}

	now := e.LastTimestamp.Time
	s, _ := r.similar.Get(kin)
	known, _ := s.(*similarity)
	if known == nil || now.Sub(known.last) > similarInterval {
		known = &similarity{messages: map[string]struct{}{}}
		r.similar.Add(kin, known)
	}
	known.last = now
	if _, repeated := known.messages[e.Message]; !repeated && len(known.messages) >= similarEvents {
		e.Message = "(combined from similar events): " + e.Message
		id.message = ""
	} else {
		known.messages[e.Message] = struct{}{}
	}
	return id, limiter.(*rate.Limiter).AllowN(now, 1)
}

// try creates the event, or counts it where it was written before.
func (r *recorder) try(id sameEvent, e *corev1.Event) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if before, ok := r.written.Get(id); ok {
		next := before.(writtenEvent)
		next.count++
		patch, err := json.Marshal(map[string]any{"count": next.count, "lastTimestamp": e.LastTimestamp, "message": e.Message})
		if err != nil {
			return err
		}
		_, err = client.Patch[*corev1.Event](ctx, r.client, next.namespace, next.name, "", types.StrategicMergePatchType, patch)
		if err == nil {
			r.written.Add(id, next)
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	if _, err := client.Create(ctx, r.client, e); err != nil {
		return err
	}
	r.written.Add(id, writtenEvent{e.Namespace, e.Name, e.Count})
	return nil
}
