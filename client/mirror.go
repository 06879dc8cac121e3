package client

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/internal/seal"
)

// mirror holds one kind's objects as a list and the watch after it tell them.
//
// Lock order: turn, then mu. turn is held while a change is applied and its subscribers are told, which keeps their
// events in order; mu only guards the maps, so subscribers can read the cache while they are told.
type mirror struct {
	client Interface
	kind   *api.Kind
	sel    Selector
	labels labels.Selector
	fields fields.Selector
	log    *slog.Logger
	stop   context.CancelFunc // set by Caches when the mirror runs
	forget func()             // takes it out of its Caches for good

	turn sync.Mutex

	mu          sync.RWMutex
	subscribers []*subscriber
	objects     map[string]map[string]api.Object // by namespace and name
	count       int
	indexes     map[string]*index
	filled      bool
	dropped     bool
	rev         uint64 // everything of this kind up to here is included, and subscribers have been told
	seals       seal.Set
	progress    chan struct{} // closed when rev, filled or dropped change; nil while nobody waits
}

type subscriber struct {
	tell     func(old, new api.Object)
	canceled atomic.Bool
}

// index finds objects by the values of a function.
type index struct {
	values  func(api.Object) []string
	objects map[string]map[types.NamespacedName]api.Object
}

// change is one object's step; old or new is nil for an addition or a deletion.
type change struct{ old, new api.Object }

func newMirror(c Interface, k *api.Kind, s Selector, log *slog.Logger) *mirror {
	ls, err := labels.Parse(s.labels)
	if err != nil {
		panic(fmt.Sprintf("client: cache of %s: %v", k, err))
	}
	return &mirror{client: c, kind: k, sel: s, labels: ls, fields: fields.ParseSelectorOrDie(s.fields),
		log: log.With("resource", k.Plural), objects: map[string]map[string]api.Object{}, indexes: map[string]*index{}}
}

// run lists and watches until ctx ends. Every failure backs off; a watch that ends by itself goes on where it was.
func (m *mirror) run(ctx context.Context) {
	const least, most = 100 * time.Millisecond, 30 * time.Second
	backoff := least
	for ctx.Err() == nil {
		err := m.fill(ctx)
		for err == nil {
			var told bool
			if told, err = m.follow(ctx); told {
				backoff = least
			}
		}
		if ctx.Err() != nil {
			return
		}
		if !isExpired(err) {
			m.log.Warn("the cache cannot follow its kind", "err", err, "retry", backoff)
		}
		if !sleep(ctx, backoff/2+rand.N(backoff)) {
			return
		}
		backoff = min(2*backoff, most)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func isExpired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// fill lists everything and applies what differs from before.
func (m *mirror) fill(ctx context.Context) error {
	objs, meta, err := m.client.List(ctx, m.kind, "", metav1.ListOptions{LabelSelector: m.sel.labels, FieldSelector: m.sel.fields})
	if err != nil {
		return err
	}
	rev, err := parseRevision(meta.ResourceVersion)
	if err != nil {
		return err
	}
	m.turn.Lock()
	defer m.turn.Unlock()
	m.apply(m.difference(objs), rev)
	return nil
}

// difference is the changes that make the mirror's objects equal to a list.
func (m *mirror) difference(listed []api.Object) []change {
	m.mu.RLock()
	defer m.mu.RUnlock()
	seen := make(map[types.NamespacedName]struct{}, len(listed))
	changes := make([]change, 0, len(listed))
	for _, o := range listed {
		seen[nameOf(o)] = struct{}{}
		old := m.objects[o.GetNamespace()][o.GetName()]
		if old == nil || old.GetResourceVersion() != o.GetResourceVersion() || old.GetUID() != o.GetUID() {
			changes = append(changes, change{old, o})
		}
	}
	for _, objs := range m.objects {
		for _, o := range objs {
			if _, ok := seen[nameOf(o)]; !ok {
				changes = append(changes, change{o, nil})
			}
		}
	}
	return changes
}

// follow watches from the mirror's revision on until the watch ends (nil) or fails, and reports whether anything came.
func (m *mirror) follow(ctx context.Context) (told bool, err error) {
	m.mu.RLock()
	rev := m.rev
	m.mu.RUnlock()
	w, err := m.client.Watch(ctx, m.kind, "", metav1.ListOptions{LabelSelector: m.sel.labels, FieldSelector: m.sel.fields,
		ResourceVersion: strconv.FormatUint(rev, 10), AllowWatchBookmarks: true})
	if err != nil {
		return false, err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return told, ctx.Err()
		case e, ok := <-w.ResultChan():
			if !ok {
				if !told { // a server that closes at once must not be asked again in a tight loop
					return false, m.pause(ctx)
				}
				return told, nil
			}
			if err := m.event(e); err != nil {
				return told, err
			}
			told = true
		}
	}
}

func (m *mirror) pause(ctx context.Context) error {
	if !sleep(ctx, time.Second/2+rand.N(time.Second)) {
		return ctx.Err()
	}
	return nil
}

// event applies one event of the watch.
func (m *mirror) event(e watch.Event) error {
	if e.Type == watch.Error {
		return apierrors.FromObject(e.Object)
	}
	o, ok := e.Object.(api.Object)
	if !ok {
		return fmt.Errorf("watch event %s carries a %T", e.Type, e.Object)
	}
	rev, err := parseRevision(o.GetResourceVersion())
	if err != nil {
		return err
	}
	m.turn.Lock()
	defer m.turn.Unlock()
	old, _ := m.get(o.GetNamespace(), o.GetName())
	switch e.Type {
	case watch.Added, watch.Modified:
		m.apply([]change{{old, o}}, rev)
	case watch.Deleted:
		if old == nil {
			m.apply(nil, rev)
		} else {
			m.apply([]change{{old, nil}}, rev)
		}
	case watch.Bookmark:
		m.apply(nil, rev)
	}
	return nil
}

// apply makes the changes visible, tells the subscribers and then moves the revision. The caller has the turn.
func (m *mirror) apply(changes []change, rev uint64) {
	m.mu.Lock()
	for _, c := range changes {
		if c.old != nil {
			m.seals.Remove(c.old)
		}
		if c.new != nil {
			m.seals.Add(c.new)
		}
		m.put(c)
	}
	subs := m.subscribers
	m.mu.Unlock()
	for _, c := range changes {
		for _, s := range subs {
			if !s.canceled.Load() {
				s.tell(c.old, c.new)
			}
		}
	}
	m.mu.Lock()
	m.filled = true
	m.rev = max(m.rev, rev)
	m.wake()
	m.mu.Unlock()
}

func (m *mirror) put(c change) {
	o := c.new
	if o == nil {
		o = c.old
	}
	ns, name := o.GetNamespace(), o.GetName()
	switch objs := m.objects[ns]; {
	case c.new == nil:
		delete(objs, name)
		if len(objs) == 0 {
			delete(m.objects, ns)
		}
	case objs == nil:
		m.objects[ns] = map[string]api.Object{name: c.new}
	default:
		objs[name] = c.new
	}
	if c.old == nil {
		m.count++
	} else if c.new == nil {
		m.count--
	}
	for _, ix := range m.indexes {
		ix.put(c)
	}
}

func (ix *index) put(c change) {
	if c.old != nil {
		name := nameOf(c.old)
		for _, v := range ix.values(c.old) {
			delete(ix.objects[v], name)
			if len(ix.objects[v]) == 0 {
				delete(ix.objects, v)
			}
		}
	}
	if c.new != nil {
		name := nameOf(c.new)
		for _, v := range ix.values(c.new) {
			if ix.objects[v] == nil {
				ix.objects[v] = map[types.NamespacedName]api.Object{}
			}
			ix.objects[v][name] = c.new
		}
	}
}

func (m *mirror) addIndex(name string, values func(api.Object) []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.indexes[name] != nil {
		return
	}
	ix := &index{values: values, objects: map[string]map[types.NamespacedName]api.Object{}}
	for _, objs := range m.objects {
		for _, o := range objs {
			ix.put(change{nil, o})
		}
	}
	m.indexes[name] = ix
}

func (m *mirror) subscribe(tell func(old, new api.Object)) (cancel func()) {
	s := &subscriber{tell: tell}
	m.turn.Lock()
	defer m.turn.Unlock()
	m.mu.Lock()
	m.subscribers = append(slices.Clone(m.subscribers), s) // apply walks the old slice without the lock
	var there []api.Object
	for _, objs := range m.objects {
		there = slices.AppendSeq(there, maps.Values(objs))
	}
	m.mu.Unlock()
	for _, o := range there {
		tell(nil, o)
	}
	return func() {
		s.canceled.Store(true)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.subscribers = slices.DeleteFunc(slices.Clone(m.subscribers), func(x *subscriber) bool { return x == s })
	}
}

func (m *mirror) get(namespace, name string) (api.Object, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[namespace][name]
	return o, ok
}

// shows reports whether the object belongs into the mirror, or is in it.
func (m *mirror) shows(o api.Object) bool {
	if _, ok := m.get(o.GetNamespace(), o.GetName()); ok {
		return true
	}
	if !m.labels.Matches(labels.Set(o.GetLabels())) {
		return false
	}
	if m.fields.Empty() {
		return true
	}
	return m.fields.Matches(FieldSet(m.kind, o))
}

// FieldSet is what field selectors see of an object: its name, its namespace and the fields of its row.
func FieldSet(k *api.Kind, o api.Object) fields.Set {
	set := fields.Set{"metadata.name": o.GetName()}
	if k.Namespaced {
		set["metadata.namespace"] = o.GetNamespace()
	}
	if k.Fields != nil {
		maps.Copy(set, k.Fields(o))
	}
	return set
}

// waitUntil waits until cond holds, which is asked under the lock, or the mirror is dropped.
func (m *mirror) waitUntil(ctx context.Context, cond func() bool) error {
	for {
		m.mu.Lock()
		if m.dropped || cond() {
			m.mu.Unlock()
			return nil
		}
		if m.progress == nil {
			m.progress = make(chan struct{})
		}
		progress := m.progress
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the cache of %s: %w", m.kind.Plural, ctx.Err())
		case <-progress:
		}
	}
}

func (m *mirror) wake() {
	if m.progress != nil {
		close(m.progress)
		m.progress = nil
	}
}

func (m *mirror) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped = true
	m.wake()
}

func nameOf(o api.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func parseRevision(rv string) (uint64, error) {
	if rv == "" {
		return 0, nil
	}
	rev, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("resourceVersion %q is no number", rv)
	}
	return rev, nil
}
