// Package objects reads the objects that a node's pods refer to, and tells when they change.
//
// Invariant: each object is watched by its name, and only while a pod refers to it: a node may see nothing else.
// Values are read consistently; what a watch brought is used for telling of changes, and when the API is out of reach.
//
// Only node imports objects.
package objects

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// Ref names one object.
type Ref struct {
	Kind            *api.Kind
	Namespace, Name string
}

// Set watches the objects that are held.
type Set struct {
	c       client.Interface
	changed func(holder string)

	mu      sync.Mutex
	ctx     context.Context
	holds   map[string][]Ref
	entries map[Ref]*entry
}

type entry struct {
	cancel  context.CancelFunc
	holders map[string]bool
	last    api.Object // nil: it does not exist, as far as is known
}

// New makes a set whose watches end with ctx. changed is called with each holder of an object that changed.
func New(ctx context.Context, c client.Interface, changed func(holder string)) *Set {
	return &Set{c: c, changed: changed, ctx: ctx, holds: map[string][]Ref{}, entries: map[Ref]*entry{}}
}

// Hold replaces what a holder refers to; nil lets go of everything.
func (s *Set) Hold(holder string, refs []Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.holds[holder]
	for _, r := range refs {
		e := s.entries[r]
		if e == nil {
			ctx, cancel := context.WithCancel(s.ctx)
			e = &entry{cancel: cancel, holders: map[string]bool{}}
			s.entries[r] = e
			go s.watch(ctx, r)
		}
		e.holders[holder] = true
	}
	keep := map[Ref]bool{}
	for _, r := range refs {
		keep[r] = true
	}
	for _, r := range old {
		if e := s.entries[r]; e != nil && !keep[r] {
			delete(e.holders, holder)
			if len(e.holders) == 0 {
				e.cancel()
				delete(s.entries, r)
			}
		}
	}
	if len(refs) == 0 {
		delete(s.holds, holder)
		return
	}
	s.holds[holder] = refs
}

// Get reads an object. If the API cannot be reached, what was last seen of a held object is given.
func (s *Set) Get(ctx context.Context, r Ref) (api.Object, error) {
	o, err := s.c.Get(ctx, r.Kind, r.Namespace, r.Name, metav1.GetOptions{})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return o, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[r]; e != nil && e.last != nil {
		return e.last, nil
	}
	return nil, err
}

// watch follows one object until ctx ends.
func (s *Set) watch(ctx context.Context, r Ref) {
	wait := 500 * time.Millisecond
	for ctx.Err() == nil {
		if s.follow(ctx, r) {
			wait = 500 * time.Millisecond
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 30*time.Second)
	}
}

// follow lists and watches once, and reports whether that went well for a while.
func (s *Set) follow(ctx context.Context, r Ref) bool {
	sel := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", r.Name).String()}
	objs, meta, err := s.c.List(ctx, r.Kind, r.Namespace, sel)
	if err != nil {
		return false
	}
	var now api.Object
	if len(objs) > 0 {
		now = objs[0]
	}
	s.seen(r, now)
	sel.ResourceVersion, sel.AllowWatchBookmarks = meta.ResourceVersion, true
	w, err := s.c.Watch(ctx, r.Kind, r.Namespace, sel)
	if err != nil {
		return false
	}
	defer w.Stop()
	good := false
	for {
		select {
		case <-ctx.Done():
			return true
		case e, ok := <-w.ResultChan():
			if !ok || e.Type == watch.Error {
				return good
			}
			good = true
			switch e.Type {
			case watch.Added, watch.Modified:
				if o, ok := e.Object.(api.Object); ok {
					s.seen(r, o)
				}
			case watch.Deleted:
				s.seen(r, nil)
			}
		}
	}
}

func (s *Set) seen(r Ref, o api.Object) {
	s.mu.Lock()
	e := s.entries[r]
	if e == nil {
		s.mu.Unlock()
		return
	}
	version := func(o api.Object) string {
		if o == nil {
			return ""
		}
		return o.GetResourceVersion()
	}
	same := version(e.last) == version(o)
	e.last = o
	var tell []string
	for h := range e.holders {
		tell = append(tell, h)
	}
	s.mu.Unlock()
	if same {
		return
	}
	for _, h := range tell {
		s.changed(h)
	}
}
