package builtin_test

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/apitest"
	"github.com/skiff-sh/skiff/api/builtin"
)

// FuzzDecoded feeds every row whatever decodes, as JSON or protobuf: nothing panics, and defaults fill in only once.
func FuzzDecoded(f *testing.F) {
	src := apitest.New(7)
	kinds := builtin.Kinds()
	for i, k := range kinds {
		o := src.Object(k)
		b, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
		if m, ok := o.(interface{ Marshal() ([]byte, error) }); ok {
			if b, err = m.Marshal(); err == nil {
				f.Add(uint8(i), b)
			}
		}
		f.Add(uint8(i), []byte(`{"metadata":{"name":"a"},"spec":{},"status":{}}`))
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		k := kinds[int(kind)%len(kinds)]
		obj := k.New()
		if json.Unmarshal(body, obj) != nil {
			obj = k.New()
			m, ok := obj.(interface{ Unmarshal([]byte) error })
			if !ok || m.Unmarshal(body) != nil {
				return
			}
		}
		judge(k, obj)
		if k.Default == nil {
			return
		}
		k.Default(obj)
		once := obj.DeepCopyObject()
		k.Default(obj)
		if !equality.Semantic.DeepEqual(once, obj) {
			t.Errorf("%s: defaults are not idempotent", k)
		}
		judge(k, obj)
	})
}

func judge(k *api.Kind, obj api.Object) {
	old := obj.DeepCopyObject().(api.Object)
	hub := func(o api.Object) api.Object { // what a row with a hub judges is of the hub's type
		if k.Hub == nil {
			return o
		}
		h, err := k.ToHub(o)
		if err != nil {
			return k.Hub.New()
		}
		return h
	}
	for _, check := range []func(obj, old api.Object) int{
		func(o, _ api.Object) int {
			if k.Validate == nil {
				return 0
			}
			return len(k.Validate(hub(o)))
		},
		func(o, old api.Object) int {
			if k.ValidateUpdate == nil {
				return 0
			}
			return len(k.ValidateUpdate(hub(o), hub(old)))
		},
		func(o, old api.Object) int {
			if k.ValidateStatus == nil {
				return 0
			}
			return len(k.ValidateStatus(o, old))
		},
	} {
		check(obj, old)
		check(obj, k.New())
		check(k.New(), old)
	}
	if k.Warnings != nil {
		k.Warnings(obj, nil)
		k.Warnings(obj, old)
	}
}
