package crd

import (
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "sigs.k8s.io/json"

	"github.com/skiff-sh/skiff/api"
	apicodec "github.com/skiff-sh/skiff/api/codec"
)

// GroupResource names what the codec is for, in metrics.
func (d *definition) GroupResource() schema.GroupResource { return d.hub.GroupResource() }

// Decode reads a stored object of any version, pruned and with that version's defaults. Where a webhook converts, the object
// keeps its version; else it comes in the storage version.
func (d *definition) Decode(value []byte, rev int64) (api.Object, error) {
	u := &unstructured.Unstructured{}
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(value, &u.Object); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", d.hub, err)
	}
	gv, err := schema.ParseGroupVersion(u.GetAPIVersion())
	if err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", d.hub, err)
	}
	if v := d.versions[gv.Version]; v != nil {
		if _, err := v.prune(u, false, true); err != nil {
			return nil, fmt.Errorf("decode stored %s: %w", d.hub, err)
		}
		v.fill(u)
	}
	if u.GetGeneration() == 0 {
		u.SetGeneration(1) // very old objects have none
	}
	if gv.Version != d.hub.Version && !d.byWebhook() {
		if u, err = d.renamed(u, d.hub.Version); err != nil {
			return nil, fmt.Errorf("decode stored %s: %w", d.hub, err)
		}
		d.rewritten.claim(u, "", func() struct{} { return struct{}{} })
	}
	if rev != 0 {
		u.SetResourceVersion(strconv.FormatInt(rev, 10))
	}
	return u, nil
}

// Encode writes an object of the storage version.
func (d *definition) Encode(obj api.Object) ([]byte, error) { return apicodec.For(d.hub).Encode(obj) }
