package api

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Table finds rows by resource, by kind and by Go type. Readers never wait: a change (a CRD that comes or goes)
// publishes a new index. The zero value is an empty table.
type Table struct {
	mu      sync.Mutex
	index   atomic.Pointer[index]
	changed chan struct{} // closed when the next index is published; nil while nobody waits
}

type index struct {
	kinds      []*Kind
	byResource map[schema.GroupVersionResource]*Kind
	byKind     map[schema.GroupVersionKind]*Kind
	byType     map[reflect.Type]*Kind
}

// NewTable makes a table of the given rows. Rows that claim the same resource or kind panic: that is a
// programming error.
func NewTable(kinds ...*Kind) *Table {
	t := &Table{}
	if err := t.Add(kinds...); err != nil {
		panic(err)
	}
	return t
}

// Add adds rows and publishes them together.
func (t *Table) Add(kinds ...*Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.publish(append(slices.Clone(t.Kinds()), kinds...))
}

// Replace swaps all rows that match out for new ones, together: a CRD whose versions changed.
func (t *Table) Replace(match func(*Kind) bool, kinds ...*Kind) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.publish(append(slices.DeleteFunc(slices.Clone(t.Kinds()), match), kinds...))
}

func (t *Table) publish(kinds []*Kind) error {
	ix := &index{kinds: kinds, byResource: map[schema.GroupVersionResource]*Kind{},
		byKind: map[schema.GroupVersionKind]*Kind{}, byType: map[reflect.Type]*Kind{}}
	for _, k := range kinds {
		if _, ok := ix.byResource[k.GroupVersionResource()]; ok {
			return fmt.Errorf("two kinds claim the resource %s", k)
		}
		ix.byResource[k.GroupVersionResource()] = k
		ix.byKind[k.GroupVersionKind()] = k
		if k.New != nil && !k.CRD {
			ix.byType[reflect.TypeOf(k.New())] = k
		}
	}
	t.index.Store(ix)
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	return nil
}

// Changed returns a channel that is closed when the rows are no longer those that Kinds would return now.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// Kinds returns all rows in the order in which they were added. The caller must not change the slice.
func (t *Table) Kinds() []*Kind {
	if ix := t.index.Load(); ix != nil {
		return ix.kinds
	}
	return nil
}

// Resource finds the row that serves a resource.
func (t *Table) Resource(gvr schema.GroupVersionResource) (*Kind, bool) {
	ix := t.index.Load()
	if ix == nil {
		return nil, false
	}
	k, ok := ix.byResource[gvr]
	return k, ok
}

// Kind finds the row of a kind.
func (t *Table) Kind(gvk schema.GroupVersionKind) (*Kind, bool) {
	ix := t.index.Load()
	if ix == nil {
		return nil, false
	}
	k, ok := ix.byKind[gvk]
	return k, ok
}

// Of finds the row of an object by its Go type; custom resources are found by their apiVersion and kind.
func (t *Table) Of(obj Object) (*Kind, bool) {
	ix := t.index.Load()
	if ix == nil {
		return nil, false
	}
	if k, ok := ix.byType[reflect.TypeOf(obj)]; ok {
		return k, true
	}
	k, ok := ix.byKind[obj.GetObjectKind().GroupVersionKind()]
	return k, ok
}
