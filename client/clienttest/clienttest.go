// Package clienttest is a small API server in memory, for tests of what uses client.Interface.
//
// It keeps resourceVersions, conflicts, generations, the status subresource, finalizers and graceful deletion, label
// and field selectors, watches and bookmarks as the real server does, but neither authorizes nor admits nor validates.
// Only tests import it. Everything works inside a testing/synctest bubble.
package clienttest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/client"
)

// Call is one call that reached the API.
type Call struct {
	Verb            string // get, list, watch, create, update, patch, delete, deletecollection, action
	Kind            *api.Kind
	Namespace, Name string
	Subresource     string
	Body            runtime.Object // of create, update and action: as the caller gave it
	Patch           []byte
}

func (c Call) String() string {
	s := c.Verb + " " + c.Kind.Plural
	if c.Subresource != "" {
		s += "/" + c.Subresource
	}
	return s + " " + strings.TrimPrefix(c.Namespace+"/"+c.Name, "/")
}

// API is an API server in memory. It implements client.Interface.
type API struct {
	// Fail, if set before use, is asked before every call; an error that it returns is the call's answer.
	Fail func(Call) error
	// Act, if set before use, answers actions that the API does not know itself (all but binding and eviction).
	Act func(c Call, parent api.Object) (runtime.Object, error)

	clock clock.PassiveClock

	mu      sync.Mutex
	rev     uint64
	uids    int
	tables  map[schema.GroupResource]map[types.NamespacedName]api.Object
	history []event
	oldest  uint64 // watches can start at this revision or later
	// changed is closed with every change and broken by Break. Both are made when a watcher first waits for them, so
	// that an API made outside a synctest bubble works inside one.
	changed, broken chan struct{}
	calls           []Call
}

var _ client.Interface = (*API)(nil)

type event struct {
	resource schema.GroupResource
	rev      uint64
	old, new api.Object // of a deletion, new is the last state with the deletion's revision
	deleted  bool
}

// New makes an API that holds the objects, which are copied and keep their status. A nil clk is the real clock.
func New(clk clock.PassiveClock, objects ...api.Object) *API {
	if clk == nil {
		clk = clock.RealClock{}
	}
	a := &API{clock: clk, rev: 1, oldest: 1, tables: map[schema.GroupResource]map[types.NamespacedName]api.Object{}}
	for _, o := range objects {
		a.Put(o)
	}
	return a
}

// Put creates or replaces a built-in kind's object as it is, status included, and returns the stored one.
func (a *API) Put(obj api.Object) api.Object {
	k, ok := builtin.Table().Of(obj)
	if !ok {
		panic(fmt.Sprintf("clienttest: %T is no built-in kind", obj))
	}
	obj = obj.DeepCopyObject().(api.Object)
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.tables[resource(k)][nameOf(obj)]
	a.complete(k, obj)
	if old != nil {
		obj.SetUID(old.GetUID())
	}
	return a.commit(resource(k), old, obj)
}

// Compact forgets all history: watches that start in the past get 410 Gone.
func (a *API) Compact() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.history, a.oldest = nil, a.rev
}

// Calls returns the calls so far that match (nil: all).
func (a *API) Calls(match func(Call) bool) []Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Call
	for _, c := range a.calls {
		if match == nil || match(c) {
			out = append(out, c)
		}
	}
	return out
}

// Writes returns the writing calls so far as text ("create pods default/web", "update deployments/status default/web").
func (a *API) Writes() []string {
	var out []string
	for _, c := range a.Calls(nil) {
		if c.Verb != "get" && c.Verb != "list" && c.Verb != "watch" {
			out = append(out, c.String())
		}
	}
	return out
}

func (a *API) called(c Call) error {
	a.mu.Lock()
	a.calls = append(a.calls, c)
	a.mu.Unlock()
	if a.Fail != nil {
		return a.Fail(c)
	}
	return nil
}

func resource(k *api.Kind) schema.GroupResource { return k.Storage().GroupResource() }

func nameOf(o api.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// complete fills in what the server gives every new object.
func (a *API) complete(k *api.Kind, obj api.Object) {
	if obj.GetName() == "" && obj.GetGenerateName() != "" {
		obj.SetName(fmt.Sprintf("%s%05d", obj.GetGenerateName(), a.uids+1))
	}
	if obj.GetUID() == "" {
		a.uids++
		obj.SetUID(types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", a.uids)))
	}
	if t := obj.GetCreationTimestamp(); t.IsZero() {
		obj.SetCreationTimestamp(metav1.NewTime(a.clock.Now().Truncate(time.Second)))
	}
	if k.HasGeneration && obj.GetGeneration() == 0 {
		obj.SetGeneration(1)
	}
	if k.Default != nil {
		k.Default(obj)
	}
}

// commit stores a new state (obj) under the next revision and tells the watchers.
func (a *API) commit(r schema.GroupResource, old, obj api.Object) api.Object {
	a.rev++
	obj.SetResourceVersion(strconv.FormatUint(a.rev, 10))
	if a.tables[r] == nil {
		a.tables[r] = map[types.NamespacedName]api.Object{}
	}
	a.tables[r][nameOf(obj)] = obj
	a.tell(event{resource: r, rev: a.rev, old: old, new: obj})
	return obj
}

func (a *API) remove(r schema.GroupResource, old api.Object) {
	a.rev++
	last := old.DeepCopyObject().(api.Object)
	last.SetResourceVersion(strconv.FormatUint(a.rev, 10))
	delete(a.tables[r], nameOf(old))
	a.tell(event{resource: r, rev: a.rev, old: old, new: last, deleted: true})
}

func (a *API) tell(e event) {
	a.history = append(a.history, e)
	broadcast(&a.changed)
}

// out turns a stored object into the version that the row shows.
func out(k *api.Kind, o api.Object) (api.Object, error) {
	if k.Hub == nil {
		return o, nil
	}
	return k.FromHub(o)
}

// in makes the stored version of a caller's object, as a copy.
func in(k *api.Kind, o api.Object) (api.Object, error) {
	if k.Hub == nil {
		return o.DeepCopyObject().(api.Object), nil
	}
	return k.ToHub(o)
}

func (a *API) Get(ctx context.Context, k *api.Kind, namespace, name string, _ metav1.GetOptions) (api.Object, error) {
	if err := a.called(Call{Verb: "get", Kind: k, Namespace: namespace, Name: name}); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	o, err := a.find(k, namespace, name)
	if err != nil {
		return nil, err
	}
	return out(k, o)
}

func (a *API) find(k *api.Kind, namespace, name string) (api.Object, error) {
	o := a.tables[resource(k)][types.NamespacedName{Namespace: namespace, Name: name}]
	if o == nil {
		return nil, apierrors.NewNotFound(k.GroupResource(), name)
	}
	return o, nil
}

func (a *API) List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) ([]api.Object, metav1.ListMeta, error) {
	if err := a.called(Call{Verb: "list", Kind: k, Namespace: namespace}); err != nil {
		return nil, metav1.ListMeta{}, err
	}
	match, err := selector(k, namespace, o)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	objs, err := a.matching(k, match)
	return objs, metav1.ListMeta{ResourceVersion: strconv.FormatUint(a.rev, 10)}, err
}

// matching lists objects in the order of their names.
func (a *API) matching(k *api.Kind, match func(api.Object) bool) ([]api.Object, error) {
	var objs []api.Object
	for _, o := range a.tables[resource(k)] {
		v, err := out(k, o)
		if err != nil {
			return nil, err
		}
		if match(v) {
			objs = append(objs, v)
		}
	}
	slices.SortFunc(objs, func(x, y api.Object) int {
		return strings.Compare(x.GetNamespace()+"/"+x.GetName(), y.GetNamespace()+"/"+y.GetName())
	})
	return objs, nil
}

func (a *API) Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error) {
	if err := a.called(Call{Verb: "create", Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName(), Body: obj}); err != nil {
		return nil, err
	}
	stored, err := in(k, obj)
	if err != nil {
		return nil, err
	}
	if k.Namespaced && stored.GetNamespace() == "" {
		return nil, apierrors.NewBadRequest("namespace is required")
	}
	if stored.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	hub := k.Storage()
	if hub.Default != nil {
		hub.Default(stored)
	}
	if hub.PrepareCreate != nil {
		hub.PrepareCreate(ctx, stored)
	}
	a.complete(hub, stored)
	if a.tables[resource(k)][nameOf(stored)] != nil {
		return nil, apierrors.NewAlreadyExists(k.GroupResource(), stored.GetName())
	}
	if len(o.DryRun) > 0 {
		return out(k, stored)
	}
	return out(k, a.commit(resource(k), nil, stored))
}

func (a *API) Action(ctx context.Context, k *api.Kind, namespace, name, subresource string, body runtime.Object) (runtime.Object, error) {
	c := Call{Verb: "action", Kind: k, Namespace: namespace, Name: name, Subresource: subresource, Body: body}
	if err := a.called(c); err != nil {
		return nil, err
	}
	var parent api.Object
	if name != "" {
		a.mu.Lock()
		defer a.mu.Unlock()
		var err error
		if parent, err = a.find(k, namespace, name); err != nil {
			return nil, err
		}
	}
	switch {
	case subresource == "binding":
		return a.bind(k, parent, body)
	case subresource == "eviction":
		return success, a.delete(k, parent, metav1.DeleteOptions{})
	case a.Act != nil:
		return a.Act(c, parent)
	}
	return nil, apierrors.NewNotFound(k.GroupResource(), name+"/"+subresource)
}

var success = &metav1.Status{Status: metav1.StatusSuccess, Code: 201}

// checkRevision reports whether a watch can start at rv.
func checkRevision(oldest uint64, rv string) error {
	rev, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		return apierrors.NewBadRequest("resourceVersion: " + err.Error())
	}
	if rev < oldest {
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", rev, oldest))
	}
	return nil
}

// Break ends all watches as a lost connection would.
func (a *API) Break() {
	a.mu.Lock()
	defer a.mu.Unlock()
	broadcast(&a.broken)
}

func await(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

func broadcast(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}
