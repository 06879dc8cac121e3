package crd

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/internal/callout"
	"github.com/skiff-sh/skiff/store"
)

// definition is what one CustomResourceDefinition has become.
type definition struct {
	crd      *definitionCRD
	versions map[string]*version
	hub      *api.Kind   // the storage version's row, served or not
	rows     []*api.Kind // of the served versions
	prefix   string      // of its keys in the store
	types    func() managedfields.TypeConverter

	life      context.Context // until the definition is replaced or removed
	end       context.CancelFunc
	webhook   func() (*callout.Client, error)
	reviews   chan struct{} // holds one of reviewsAtOnce places while a review is under way
	converted memo[*promise]
	rewritten memo[struct{}] // objects that were stored in another version than they are kept in
	metrics   *metrics
}

// terminating reports whether the definition is about to go, so that no new objects are taken.
func terminating(crd *definitionCRD) bool { return crd.DeletionTimestamp != nil }

// newDefinition makes the rows of a definition. With a conversion webhook every row is a view of the stored objects, which
// may be of any version; else the storage version's row is the hub of the others.
func newDefinition(crd *definitionCRD, st store.Store, m *metrics) (*definition, error) {
	d := &definition{crd: crd, versions: map[string]*version{}, reviews: make(chan struct{}, reviewsAtOnce), metrics: m}
	d.life, d.end = context.WithCancel(context.Background())
	d.types = sync.OnceValue(d.typeConverter)
	d.webhook = sync.OnceValues(func() (*callout.Client, error) { return newWebhook(st, crd) })
	for i := range crd.Spec.Versions {
		v := newVersion(crd, &crd.Spec.Versions[i])
		d.versions[v.spec.Name] = v
		if v.spec.Storage {
			d.hub = d.row(v)
		}
	}
	if d.hub == nil {
		return nil, fmt.Errorf("%s has no storage version", crd.Name)
	}
	d.prefix = d.hub.Prefix("")
	for i := range crd.Spec.Versions {
		spec := &crd.Spec.Versions[i]
		switch {
		case !spec.Served:
		case spec.Storage && !d.byWebhook():
			d.rows = append(d.rows, d.hub)
		default:
			d.rows = append(d.rows, d.view(d.row(d.versions[spec.Name])))
		}
	}
	return d, nil
}

// view makes a row one of another version than the stored objects are of.
func (d *definition) view(k *api.Kind) *api.Kind {
	k.Hub = d.hub
	k.ToHub = func(o api.Object) (api.Object, error) { return d.as(o, d.hub.Version) }
	k.FromHub = func(o api.Object) (api.Object, error) { return d.as(o, k.Version) }
	if d.byWebhook() {
		k.Ready = func(ctx context.Context, stored []api.Object) error { return d.ready(ctx, stored, k.Version) }
	}
	return k
}

// outdated reports whether a stored object was written in another version than is written now.
func (d *definition) outdated(stored api.Object) bool {
	u, ok := stored.(*unstructured.Unstructured)
	if !ok {
		return false
	}
	_, rewritten := d.rewritten.get(u, "")
	return rewritten || u.GetAPIVersion() != d.apiVersion(d.hub.Version)
}

// close ends what the definition has under way.
func (d *definition) close() {
	d.end()
	if d.byWebhook() {
		if c, err := d.webhook(); err == nil {
			c.Close()
		}
	}
}
