// Package served knows the kinds that a cluster serves, for the controllers that work on objects of every kind: the
// built-in ones, custom resources, and those of aggregated API servers, which their discovery documents tell of.
//
// Invariant: a group-version that cannot be asked keeps the rows that it had; only the end of its APIService takes them
// away. Each object is reached through one row alone, that of its resource's preferred version. Only controllers/ may
// import served.
package served

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/customkinds"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	reread   = 30 * time.Second // nobody tells of a change in what an aggregated server has
	patience = 10 * time.Second // with a discovery document
)

// Kinds is all kinds of one cluster.
type Kinds struct {
	client      client.Interface
	caches      *client.Caches
	table       *api.Table
	services    *client.Cache[*apiregistrationv1.APIService]
	definitions *client.Cache[*apiextensionsv1.CustomResourceDefinition]

	mu         sync.Mutex
	aggregated map[string][]*api.Kind // by APIService's name
	changed    chan struct{}          // closed when aggregated changes; nil while nobody waits
}

// Of makes the Kinds of a cluster. The table holds the built-in kinds and the custom resources, which somebody else keeps.
// Nothing is known of aggregated servers before the Controller runs.
func Of(d reconcile.Deps, table *api.Table) *Kinds {
	return &Kinds{client: d.Client, caches: d.Caches, table: table, services: client.CacheOf[*apiregistrationv1.APIService](d.Caches),
		definitions: client.CacheOf[*apiextensionsv1.CustomResourceDefinition](d.Caches),
		aggregated:  map[string][]*api.Kind{}}
}

// Controller follows what the aggregated servers have. Its keys are names of APIServices.
func (s *Kinds) Controller() reconcile.Controller {
	return reconcile.Controller{Name: "aggregated-kinds", Workers: 2, Inputs: []reconcile.Input{reconcile.Own[*apiregistrationv1.APIService](s.caches)},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			svc, ok := s.services.Get("", key.Name)
			if !ok || svc.Spec.Service == nil {
				s.set(key.Name, nil)
				return reconcile.Result{}, nil
			}
			if rows, err := s.read(ctx, svc); err == nil {
				s.set(key.Name, rows)
			}
			return reconcile.Result{After: reread}, nil
		}}
}

func (s *Kinds) set(name string, rows []*api.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.aggregated[name]
	if slices.EqualFunc(old, rows, same) {
		return
	}
	for i, r := range rows { // watchers of a row that stays go on
		if j := slices.IndexFunc(old, func(o *api.Kind) bool { return same(o, r) }); j >= 0 {
			rows[i] = old[j]
		}
	}
	if s.aggregated[name] = rows; len(rows) == 0 {
		delete(s.aggregated, name)
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func same(a, b *api.Kind) bool {
	return a.GroupVersionResource() == b.GroupVersionResource() && a.Kind == b.Kind && a.Namespaced == b.Namespaced && slices.Equal(a.Verbs, b.Verbs)
}

// All returns one row for each stored resource that is known to be served.
func (s *Kinds) All() []*api.Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return once(s.table.Kinds(), s.inOrder(s.aggregated))
}

// Kind finds the row by which objects of a kind are reached: of that version, or of another one.
func (s *Kinds) Kind(gvk schema.GroupVersionKind) (*api.Kind, bool) {
	if k, ok := s.table.Kind(gvk); ok {
		return k, true
	}
	for _, k := range s.All() {
		if k.Group == gvk.Group && k.Kind == gvk.Kind {
			return k, true
		}
	}
	return nil, false
}

// once leaves out what is not stored, second versions, and resources that came before.
func once(lists ...[]*api.Kind) (out []*api.Kind) {
	seen := map[schema.GroupResource]bool{}
	for _, kinds := range lists {
		for _, k := range kinds {
			if k.StoragePath == "" || k.Hub != nil && !k.CRD || seen[k.GroupResource()] {
				continue
			}
			seen[k.GroupResource()] = true
			out = append(out, k)
		}
	}
	return out
}

// inOrder lists rows by group, the preferred version first.
func (s *Kinds) inOrder(aggregated map[string][]*api.Kind) (out []*api.Kind) {
	names := make([]string, 0, len(aggregated))
	for name := range aggregated {
		names = append(names, name)
	}
	priority := func(name string) (int32, string) {
		if svc, ok := s.services.Get("", name); ok {
			return svc.Spec.VersionPriority, svc.Spec.Version
		}
		return 0, ""
	}
	slices.SortFunc(names, func(a, b string) int {
		pa, va := priority(a)
		pb, vb := priority(b)
		return cmp.Or(cmp.Compare(pb, pa), version.CompareKubeAwareVersionStrings(vb, va), cmp.Compare(a, b))
	})
	for _, name := range names {
		out = append(out, aggregated[name]...)
	}
	return out
}

// Failed is the group-versions that could not be asked, and why. Its text is the one of discovery's clients.
type Failed map[schema.GroupVersion]error

func (f Failed) Error() string {
	var parts []string
	for gv, err := range f {
		parts = append(parts, fmt.Sprintf("%s: %v", gv, err))
	}
	slices.Sort(parts)
	return "unable to retrieve the complete list of server APIs: " + strings.Join(parts, ", ")
}

// Discover asks every aggregated server now what it has. What could be found out is returned beside what could not.
func (s *Kinds) Discover(ctx context.Context) ([]*api.Kind, Failed) {
	failed, fresh := Failed{}, map[string][]*api.Kind{}
	for _, svc := range s.services.List("") {
		if svc.Spec.Service == nil {
			continue
		}
		rows, err := s.read(ctx, svc)
		if err != nil {
			failed[schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}] = err
			continue
		}
		fresh[svc.Name] = rows
	}
	var custom []*api.Kind // the table may not have them yet
	for _, crd := range s.definitions.List("") {
		if k := customkinds.Row(crd); k != nil {
			custom = append(custom, k)
		}
	}
	return once(s.table.Kinds(), custom, s.inOrder(fresh)), failed
}

// read asks an aggregated server what it has in one group-version.
func (s *Kinds) read(ctx context.Context, svc *apiregistrationv1.APIService) ([]*api.Kind, error) {
	gv := schema.GroupVersion{Group: svc.Spec.Group, Version: svc.Spec.Version}
	for _, c := range svc.Status.Conditions {
		if c.Type == apiregistrationv1.Available && c.Status != apiregistrationv1.ConditionTrue {
			return nil, stale(gv)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b, err := client.Raw(ctx, s.client, "GET", "/apis/"+gv.String(), nil, nil)
	if err != nil {
		return nil, stale(gv)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("the discovery document of %s: %w", gv, err)
	}
	return Rows(gv, list.APIResources), nil
}

// stale is what discovery says of a group-version whose server cannot be reached, in the words of its clients.
func stale(gv schema.GroupVersion) error { return fmt.Errorf("stale GroupVersion discovery: %v", gv) }

// Rows makes rows of the resources in a discovery document. Subresources, and what has another group or version, are left
// out: they are served by somebody else.
func Rows(gv schema.GroupVersion, resources []metav1.APIResource) (rows []*api.Kind) {
	for _, r := range resources {
		if r.Name == "" || r.Kind == "" || strings.Contains(r.Name, "/") ||
			r.Group != "" && r.Group != gv.Group || r.Version != "" && r.Version != gv.Version {
			continue
		}
		k := &api.Kind{Group: gv.Group, Version: gv.Version, Kind: r.Kind, Plural: r.Name, Singular: r.SingularName, Namespaced: r.Namespaced,
			StoragePath: gv.Group + "/" + r.Name, Verbs: slices.Sorted(slices.Values(r.Verbs)), Aggregated: true}
		if k.Verbs == nil {
			k.Verbs = []string{}
		}
		k.New = func() api.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(k.GroupVersionKind())
			return u
		}
		k.NewList = func() runtime.Object {
			l := &unstructured.UnstructuredList{}
			l.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
			return l
		}
		rows = append(rows, k)
	}
	return rows
}

// channels are closed when what All returns may no longer be what it returned after they were taken.
func (s *Kinds) channels() (table, aggregated <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.table.Changed(), s.changed
}
