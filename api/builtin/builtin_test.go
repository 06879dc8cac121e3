package builtin

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
)

// The counts are those of upstream's api/discovery for the GA versions of v1.36.
func TestCounts(t *testing.T) {
	gvs := map[schema.GroupVersion]bool{}
	resources, subresources := 0, 0
	for _, k := range Kinds() {
		gvs[k.GroupVersion()] = true
		resources++
		subresources += len(k.Subresources)
	}
	if len(gvs) != 22 || resources != 68 || subresources != 45 {
		t.Errorf("%d group-versions, %d resources, %d subresources; want 22, 68, 45", len(gvs), resources, subresources)
	}
}

func TestRows(t *testing.T) {
	stored := map[string]*api.Kind{}
	for _, k := range Kinds() {
		if k.New == nil {
			t.Fatalf("%s makes no objects", k)
		}
		if _, ok := Table().Of(k.New()); !ok {
			t.Errorf("%s is not found by its Go type", k)
		}
		if !slices.IsSorted(k.AllVerbs()) {
			t.Errorf("%s: verbs are not sorted", k)
		}
		if k.StoragePath != "" && k.Hub == nil {
			if other := stored[k.StoragePath]; other != nil {
				t.Errorf("%s and %s are stored in the same place", k, other)
			}
			stored[k.StoragePath] = k
			if k.NewList == nil {
				t.Errorf("%s makes no lists", k)
			}
		}
		if (k.Hub == nil) != (k.ToHub == nil) || (k.Hub == nil) != (k.FromHub == nil) {
			t.Errorf("%s: Hub without conversions", k)
		}
		if (k.FieldKeys == nil) != (k.Fields == nil) {
			t.Errorf("%s: FieldKeys without Fields", k)
		}
		if !slices.IsSortedFunc(k.Subresources, func(a, b api.Subresource) int {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}) {
			t.Errorf("%s: subresources are not sorted", k)
		}
		for _, s := range k.Subresources {
			if (s.Type == api.ScaleSub) != (s.Scale != nil) || (s.Type == api.ActionSub) != (s.New != nil) {
				t.Errorf("%s/%s: mapping or body is missing", k, s.Name)
			}
		}
	}
}
