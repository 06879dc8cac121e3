package crd

import (
	"encoding/json"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "sigs.k8s.io/json"

	"github.com/skiff-sh/skiff/api"
	apicodec "github.com/skiff-sh/skiff/api/codec"
)

// Decode reads a stored object of any version into the storage version, pruned and with its defaults.
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
	if gv.Version != d.hub.Version {
		obj, err := d.convert(u, d.hub.Version)
		if err != nil {
			return nil, fmt.Errorf("decode stored %s: %w", d.hub, err)
		}
		u = obj.(*unstructured.Unstructured)
	}
	if rev != 0 {
		u.SetResourceVersion(strconv.FormatInt(rev, 10))
	}
	return u, nil
}

// Encode writes an object of the storage version.
func (d *definition) Encode(obj api.Object) ([]byte, error) { return apicodec.For(d.hub).Encode(obj) }

// mustJSON marshals what cannot fail: maps and slices of plain values.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
