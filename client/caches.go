package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
)

// Caches is a set of caches over one client, one for each kind and selector that anybody in the component asked for.
type Caches struct {
	client Interface
	log    *slog.Logger

	mu      sync.Mutex
	mirrors map[mirrorKey]*mirror
	running context.Context // of Run; nil while it is not running
	group   sync.WaitGroup  // the mirrors' goroutines
}

type mirrorKey struct {
	resource       schema.GroupVersionResource
	labels, fields string
}

// Selector narrows a cache to some objects of its kind.
type Selector struct{ labels, fields string }

// Labels selects by a label selector ("app=web,tier!=db").
func Labels(selector string) Selector { return Selector{labels: selector} }

// Fields selects by a field selector ("spec.nodeName=n1").
func Fields(selector string) Selector { return Selector{fields: selector} }

// NewCaches makes an empty set; nothing is read before Run. A nil log discards.
func NewCaches(c Interface, log *slog.Logger) *Caches {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Caches{client: c, log: log, mirrors: map[mirrorKey]*mirror{}}
}

// Run fills the caches and keeps them until ctx ends, which it returns as nil. Caches asked for later start then.
func (cs *Caches) Run(ctx context.Context) error {
	cs.mu.Lock()
	if cs.running != nil {
		cs.mu.Unlock()
		return errors.New("the caches are already running")
	}
	cs.running = ctx
	for _, m := range cs.mirrors {
		cs.start(m)
	}
	cs.mu.Unlock()

	<-ctx.Done()
	cs.mu.Lock()
	cs.running = nil
	cs.mu.Unlock()
	cs.group.Wait()
	return nil
}

func (cs *Caches) start(m *mirror) {
	ctx, cancel := context.WithCancel(cs.running)
	m.stop = cancel
	cs.group.Go(func() {
		defer cancel()
		m.run(ctx)
	})
}

// Sync waits until all caches that have been asked for so far are filled, but for those of custom and aggregated kinds: one
// whose webhook or server fails must not hold up the rest.
func (cs *Caches) Sync(ctx context.Context) error {
	for _, m := range cs.matching(func(m *mirror) bool { return !m.kind.CRD && !m.kind.Aggregated }) {
		if err := m.waitUntil(ctx, func() bool { return m.filled }); err != nil {
			return err
		}
	}
	return nil
}

// forget stops a mirror that nobody is to ask for any more.
func (cs *Caches) forget(key mirrorKey, m *mirror) {
	cs.mu.Lock()
	if cs.mirrors[key] == m {
		delete(cs.mirrors, key)
	}
	if m.stop != nil {
		m.stop()
	}
	cs.mu.Unlock()
	m.drop()
}

// WaitForWrite waits until every cache that shows the object of a successful write includes it. Caches of other kinds
// and selectors are not waited for.
func (cs *Caches) WaitForWrite(ctx context.Context, k *api.Kind, written api.Object) error {
	rev, err := parseRevision(written.GetResourceVersion())
	if err != nil {
		return err
	}
	for _, m := range cs.of(k) {
		if !m.shows(written) {
			continue
		}
		if err := m.waitUntil(ctx, func() bool { return m.rev >= rev }); err != nil {
			return err
		}
	}
	return nil
}

// WaitForDelete waits until no cache shows the object with the UID as if it had not been deleted: it is gone,
// replaced by another one, or has a deletion timestamp.
func (cs *Caches) WaitForDelete(ctx context.Context, k *api.Kind, namespace, name string, uid types.UID) error {
	for _, m := range cs.of(k) {
		err := m.waitUntil(ctx, func() bool {
			o, ok := m.objects[namespace][name]
			return !ok || o.GetUID() != uid || o.GetDeletionTimestamp() != nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// UIDs returns the UIDs under which the caches of a kind know an object: one, if they agree.
func (cs *Caches) UIDs(k *api.Kind, namespace, name string) []types.UID {
	var uids []types.UID
	for _, m := range cs.of(k) {
		if o, ok := m.get(namespace, name); ok && (len(uids) == 0 || uids[len(uids)-1] != o.GetUID()) {
			uids = append(uids, o.GetUID())
		}
	}
	return uids
}

// of finds all caches of what is stored as one kind, in whatever version they show it.
func (cs *Caches) of(k *api.Kind) []*mirror {
	r := k.Storage().GroupResource()
	return cs.matching(func(m *mirror) bool { return m.kind.Storage().GroupResource() == r })
}

func (cs *Caches) matching(f func(*mirror) bool) []*mirror {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var out []*mirror
	for _, m := range cs.mirrors {
		if f(m) {
			out = append(out, m)
		}
	}
	return out
}

// mirror finds or makes the mirror of a kind. A selector that does not parse is a programming error and panics.
func (cs *Caches) mirror(k *api.Kind, sel []Selector) *mirror {
	var s Selector
	for _, more := range sel {
		s.labels, s.fields = joined(s.labels, more.labels), joined(s.fields, more.fields)
	}
	key := mirrorKey{k.GroupVersionResource(), s.labels, s.fields}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	m, ok := cs.mirrors[key]
	if !ok {
		m = newMirror(cs.client, k, s, cs.log)
		m.forget = func() { cs.forget(key, m) }
		cs.mirrors[key] = m
		if cs.running != nil && cs.running.Err() == nil {
			cs.start(m)
		}
	}
	return m
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "," + b
}
