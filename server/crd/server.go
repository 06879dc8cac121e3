package crd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// Client is how the server writes to its own API.
type Client interface {
	Update(ctx context.Context, k *api.Kind, obj api.Object, sub string, o metav1.UpdateOptions) (api.Object, error)
	DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, lo metav1.ListOptions) error
}

// Config is what a Server needs; all of it is required but Gone and Metrics.
type Config struct {
	Store  store.Store
	Kinds  *api.Table // to which the custom resources' rows are added
	Client Client
	// Gone is told of rows that are no longer served, so that nobody keeps anything for them.
	Gone    func(*api.Kind)
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Server keeps the custom resources' part of one API server.
type Server struct {
	Config
	kind    *api.Kind // CustomResourceDefinition's row
	metrics *metrics

	mu        sync.Mutex
	installed map[string]*definition // by the definition's name
	rows      map[*api.Kind]*definition
	docs      *documents // nil: to be made
}

// gvk is the kind that the server follows.
var gvk = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}

// New makes a Server of a table that has CustomResourceDefinition's row.
func New(cfg Config) (*Server, error) {
	k, ok := cfg.Kinds.Kind(gvk)
	if !ok {
		return nil, fmt.Errorf("the table has no %s", gvk)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	return &Server{Config: cfg, kind: k, metrics: m, installed: map[string]*definition{}, rows: map[*api.Kind]*definition{}}, nil
}

// Types is what apply needs of a row that the server has made: its lists and maps, and how its versions convert.
func (s *Server) Types(k *api.Kind) (managedfields.TypeConverter, runtime.ObjectConvertor) {
	s.mu.Lock()
	d := s.rows[k]
	s.mu.Unlock()
	if d == nil {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	return d.types(), converter{d}
}

// TypesOf is the first half of Types.
func (s *Server) TypesOf(k *api.Kind) managedfields.TypeConverter {
	types, _ := s.Types(k)
	return types
}

// Current is the row that serves a row's resource now: the same one for what is built in. ok is false for a custom resource
// that is no longer served.
func (s *Server) Current(k *api.Kind) (row *api.Kind, ok bool) {
	if !k.CRD {
		return k, true
	}
	s.mu.Lock()
	d := s.rows[k]
	s.mu.Unlock()
	if d != nil {
		return k, true
	}
	return s.Kinds.Resource(k.GroupVersionResource())
}

// Load installs what was established before, so that a restart is not seen by clients.
func (s *Server) Load(ctx context.Context) error {
	if err := s.Store.WaitFor(ctx, 0); err != nil {
		return err
	}
	for _, crd := range s.all() {
		if is(crd, apiextensionsv1.Established) {
			if err := s.install(ctx, crd); err != nil {
				s.Log.Error("a custom resource is not served", "definition", crd.Name, "error", err)
			}
		}
	}
	return nil
}

func (s *Server) all() []*definitionCRD {
	var out []*definitionCRD
	for e := range s.Store.Snapshot(s.kind.Prefix("")).Scan(s.kind.Prefix(""), "") {
		if crd, ok := e.Object.(*definitionCRD); ok {
			out = append(out, crd)
		}
	}
	return out
}

// Run follows the definitions until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.follow(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrCompacted) {
			s.Log.Warn("following the custom resource definitions", "error", err)
			pause(ctx, time.Second)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// follow looks at every definition once, then at each that changes, and again at those that were not finished.
func (s *Server) follow(ctx context.Context) error {
	snap := s.Store.Snapshot(s.kind.Prefix(""))
	w, err := s.Store.Watch(ctx, s.kind.Prefix(""), snap.Revision())
	if err != nil {
		return err
	}
	defer w.Close()
	again := map[string]time.Duration{} // names to look at again, and after how long
	look := func(names ...string) {
		for _, name := range names {
			done, err := s.sync(ctx, name)
			if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
				s.Log.Warn("custom resource definition", "name", name, "error", err)
			}
			if done && err == nil {
				delete(again, name)
			} else {
				again[name] = min(max(2*again[name], 50*time.Millisecond), 5*time.Second)
			}
		}
	}
	s.forget(snap)
	for _, crd := range s.all() {
		look(crd.Name)
	}
	for {
		wait, cancel := ctx, context.CancelFunc(func() {})
		if len(again) > 0 {
			wait, cancel = context.WithTimeout(ctx, soonest(again))
		}
		events, _, err := w.Next(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			for name := range again {
				look(name)
			}
			continue
		case err != nil:
			return err
		}
		for _, e := range events {
			name := e.Entry.Object.GetName()
			look(name)
			if crd, ok := e.Entry.Object.(*definitionCRD); ok && (e.Type == store.Deleted || !is(crd, apiextensionsv1.NamesAccepted)) {
				look(s.rivals(crd)...) // a name may have become free
			}
		}
	}
}

func soonest(m map[string]time.Duration) time.Duration {
	least := time.Hour
	for _, d := range m {
		least = min(least, d)
	}
	return least
}

// rivals are the definitions of a group that have not got all their names.
func (s *Server) rivals(of *definitionCRD) []string {
	var out []string
	for _, crd := range s.all() {
		if crd.Name != of.Name && crd.Spec.Group == of.Spec.Group && !is(crd, apiextensionsv1.NamesAccepted) {
			out = append(out, crd.Name)
		}
	}
	return out
}

// forget removes what is installed of definitions that are no more.
func (s *Server) forget(snap store.Snapshot) {
	s.mu.Lock()
	var gone []string
	for name := range s.installed {
		if _, ok := snap.Get(s.kind.Key("", name)); !ok {
			gone = append(gone, name)
		}
	}
	s.mu.Unlock()
	for _, name := range gone {
		s.uninstall(name)
	}
}

// sync does what one definition needs. done is false if it must be looked at again without having changed.
func (s *Server) sync(ctx context.Context, name string) (done bool, err error) {
	e, ok := s.Store.Snapshot(s.kind.Prefix("")).Get(s.kind.Key("", name))
	if !ok {
		s.uninstall(name)
		return true, nil
	}
	old := e.Object.(*definitionCRD)
	crd := old.DeepCopy()
	now := metav1.Now().Rfc3339Copy()
	settle(crd, s.group(crd), now)
	if names := find(crd, apiextensionsv1.NamesAccepted); names.Status == apiextensionsv1.ConditionTrue || is(crd, apiextensionsv1.Established) {
		if err := s.install(ctx, crd); err != nil {
			return false, err
		}
		establish(crd, now)
	}
	if terminating(crd) && slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return s.finish(ctx, crd, old, now)
	}
	if apiequality.Semantic.DeepEqual(old.Status, crd.Status) {
		return true, nil
	}
	_, err = s.write(ctx, crd)
	return true, err
}

// group are the other definitions of a definition's group.
func (s *Server) group(of *definitionCRD) []*definitionCRD {
	return slices.DeleteFunc(s.all(), func(crd *definitionCRD) bool {
		return crd.Name == of.Name || crd.Spec.Group != of.Spec.Group
	})
}

func (s *Server) write(ctx context.Context, crd *definitionCRD) (api.Object, error) {
	obj, err := s.Client.Update(ctx, s.kind, crd, "status", metav1.UpdateOptions{FieldManager: "kube-apiserver"})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return obj, err
}

// finish deletes the objects of a definition that is being deleted, and when they are gone lets it go.
func (s *Server) finish(ctx context.Context, crd, old *definitionCRD, now metav1.Time) (done bool, err error) {
	s.mu.Lock()
	d := s.installed[crd.Name]
	s.mu.Unlock()
	c := condition{Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionFalse, Reason: "InstanceDeletionCompleted", Message: "removed all instances"}
	switch {
	case d == nil:
		c.Reason, c.Message = "NeverEstablished", "resource was never established"
	case s.Store.Snapshot(d.prefix).Len(d.prefix) > 0:
		c = condition{Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionInProgress", Message: "CustomResource deletion is in progress"}
		set(crd, c, now)
		if !apiequality.Semantic.DeepEqual(old.Status, crd.Status) {
			if _, err := s.write(ctx, crd); err != nil {
				return false, err
			}
		}
		return false, s.Client.DeleteCollection(ctx, d.hub, "", metav1.DeleteOptions{}, metav1.ListOptions{})
	}
	set(crd, c, now)
	crd.Finalizers = slices.DeleteFunc(slices.Clone(crd.Finalizers), func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
	_, err = s.write(ctx, crd)
	return err == nil, err
}

// install serves a definition, or serves it anew after a change.
func (s *Server) install(ctx context.Context, crd *definitionCRD) error {
	s.mu.Lock()
	before := s.installed[crd.Name]
	s.mu.Unlock()
	if before != nil && sameService(before.crd, crd) {
		return nil
	}
	if before != nil && before.crd.UID != crd.UID {
		s.uninstall(crd.Name)
	}
	d, err := newDefinition(crd, s.Store, s.metrics)
	if err != nil {
		return err
	}
	for _, k := range d.rows {
		if other, ok := s.Kinds.Resource(k.GroupVersionResource()); ok && !other.CRD {
			return fmt.Errorf("%s is a built-in resource", k)
		}
	}
	// Registered again, the objects are decoded by the new schema, and watches start anew.
	if err := s.Store.Register(ctx, d.prefix, d); err != nil {
		return err
	}
	return s.replace(crd.Name, d)
}

func (s *Server) uninstall(name string) {
	s.mu.Lock()
	before := s.installed[name]
	s.mu.Unlock()
	if before == nil {
		return
	}
	if err := s.replace(name, nil); err != nil {
		s.Log.Error("removing a custom resource", "definition", name, "error", err)
	}
	s.Store.Unregister(before.prefix)
}

// replace swaps the rows of a definition; d is nil for none.
func (s *Server) replace(name string, d *definition) error {
	s.mu.Lock()
	before := s.installed[name]
	var old, rows []*api.Kind
	if before != nil {
		old = before.rows
	}
	if d != nil {
		rows = d.rows
	}
	err := s.Kinds.Replace(func(k *api.Kind) bool { return slices.Contains(old, k) }, rows...)
	if err == nil {
		s.swap(name, before, d)
	}
	s.mu.Unlock()
	if err != nil || before == nil {
		return err
	}
	before.close()
	if s.Gone != nil {
		for _, k := range append(slices.Clone(old), before.hub) {
			s.Gone(k)
		}
	}
	return nil
}

// swap keeps d in place of before. The caller has the lock.
func (s *Server) swap(name string, before, d *definition) {
	if before != nil {
		for _, k := range append(slices.Clone(before.rows), before.hub) {
			delete(s.rows, k)
		}
	}
	delete(s.installed, name)
	if d != nil {
		s.installed[name] = d
		for _, k := range append(slices.Clone(d.rows), d.hub) {
			s.rows[k] = d
		}
	}
	s.docs = nil
}
