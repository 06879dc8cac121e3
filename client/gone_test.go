package client_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
)

// withdrawn is an API that no longer serves what it is asked for.
type withdrawn struct {
	client.Interface
	asked atomic.Int64
}

func (w *withdrawn) List(_ context.Context, k *api.Kind, _ string, _ metav1.ListOptions) ([]api.Object, metav1.ListMeta, error) {
	w.asked.Add(1)
	return nil, metav1.ListMeta{}, apierrors.NewNotFound(k.GroupResource(), "")
}

// The cache of a custom resource that is gone for good asks no more; whoever wants it again gets a new one.
func TestCacheOfWithdrawnKindEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &withdrawn{}
		cs := client.NewCaches(w, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- cs.Run(ctx) }()
		k := &api.Kind{Group: "example.com", Version: "v1", Kind: "Gadget", Plural: "gadgets", CRD: true}
		c := client.CacheOfKind(cs, k)
		time.Sleep(30 * time.Second)
		if c.Dropped() {
			t.Error("given up at once: the definition may be on its way")
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if !c.Dropped() {
			t.Error("still asking")
		}
		before := w.asked.Load()
		time.Sleep(time.Hour)
		if n := w.asked.Load() - before; n > 0 {
			t.Errorf("asked %d times more", n)
		}
		if again := client.CacheOfKind(cs, k); again.Dropped() {
			t.Error("asked for again, it is the old one")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
