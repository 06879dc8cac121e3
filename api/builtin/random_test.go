package builtin_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/apitest"
	"github.com/skiff-sh/skiff/api/builtin"
)

// Rows are asked about whatever clients send: nothing in them may panic on any object.
func TestNothingPanics(t *testing.T) {
	src := apitest.New(4)
	now := time.Unix(1_700_000_000, 0)
	for _, k := range builtin.Kinds() {
		t.Run(k.String(), func(t *testing.T) {
			objs := []api.Object{k.New()}
			for range 20 {
				objs = append(objs, src.Object(k))
			}
			for i, obj := range objs {
				exercise(t, k, obj.DeepCopyObject().(api.Object), objs[(i+1)%len(objs)], now)
			}
		})
	}
}

func hubOf(t *testing.T, k *api.Kind, obj api.Object) api.Object {
	t.Helper()
	hub, err := k.ToHub(obj)
	if err != nil {
		t.Fatal(err)
	}
	return hub
}

func exercise(t *testing.T, k *api.Kind, obj, old api.Object, now time.Time) {
	t.Helper()
	for i := range k.Columns {
		v := k.Columns[i].Value(obj, now)
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("column %s: %v", k.Columns[i].Name, err)
		}
	}
	if k.Fields != nil {
		got := k.Fields(obj)
		for _, key := range k.FieldKeys {
			if _, ok := got[key]; !ok {
				t.Errorf("no value for the field %s", key)
			}
		}
		if len(got) != len(k.FieldKeys) {
			t.Errorf("%d fields, %d keys", len(got), len(k.FieldKeys))
		}
	}
	for _, s := range k.Subresources {
		if s.Scale != nil {
			s.Scale.Get(obj)
			s.Scale.Set(obj, 3)
			if spec, _, _ := s.Scale.Get(obj); spec != 3 {
				t.Errorf("scaled to 3, is %d", spec)
			}
		}
	}
	for range 2 { // raw objects, then defaulted ones
		judged, before := obj, old
		if k.Hub != nil { // a row with a hub judges objects of the hub's type
			judged, before = hubOf(t, k, obj), hubOf(t, k, old)
		}
		if k.Validate != nil {
			k.Validate(judged)
		}
		if k.ValidateUpdate != nil {
			k.ValidateUpdate(judged, before)
		}
		if k.ValidateStatus != nil {
			k.ValidateStatus(obj, old)
		}
		if k.Warnings != nil {
			k.Warnings(obj, nil)
			k.Warnings(obj, old)
		}
		if k.Default != nil {
			k.Default(obj)
		}
	}
	if k.PrepareUpdate != nil {
		k.PrepareUpdate(context.Background(), obj, old)
	}
	if k.PrepareCreate != nil {
		k.PrepareCreate(context.Background(), obj)
	}
	if k.GracefulDelete != nil {
		var o metav1.DeleteOptions
		if wait := k.GracefulDelete(obj, &o); wait != (*o.GracePeriodSeconds > 0) {
			t.Errorf("wait=%v with a grace period of %d s", wait, *o.GracePeriodSeconds)
		}
	}
}
