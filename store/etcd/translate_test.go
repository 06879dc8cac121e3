package etcd

import (
	"bytes"
	"context"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/api/codec"
	"github.com/skiff-sh/skiff/internal/etcdtest"
	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// bound is a transformer that marks a value with the key that it belongs to, and reads it with no other.
type bound struct{}

func (bound) TransformToStorage(_ context.Context, data []byte, at value.Context) ([]byte, error) {
	return append(append([]byte("sealed:"), at.AuthenticatedData()...), append([]byte{0}, data...)...), nil
}

func (bound) TransformFromStorage(_ context.Context, data []byte, at value.Context) ([]byte, bool, error) {
	plain, ok := bytes.CutPrefix(data, append(append([]byte("sealed:"), at.AuthenticatedData()...), 0))
	if !ok {
		return nil, false, errClosed
	}
	return plain, false, nil
}

// With another prefix and encrypted values the store is the same store, and etcd holds nothing in the clear.
func TestTranslatedStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		at := etcdtest.Serve(t)
		s, err := Open(t.Context(), Config{Endpoints: []string{at}, Prefix: "/elsewhere/deep",
			Transform: func(string) value.Transformer { return bound{} }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			plain, err := clientv3.New(clientv3.Config{Endpoints: []string{at}, Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			all, err := plain.Get(context.Background(), "\x00", clientv3.WithFromKey())
			if err != nil {
				t.Fatal(err)
			}
			for _, kv := range all.Kvs {
				if !strings.HasPrefix(string(kv.Key), "/elsewhere/deep/") || !bytes.HasPrefix(kv.Value, []byte("sealed:"+string(kv.Key))) {
					t.Errorf("etcd holds %s = %.40q", kv.Key, kv.Value)
				}
			}
		})
		return s
	})
}

func TestForeignKeysStayOutside(t *testing.T) {
	at := etcdtest.Serve(t)
	other, err := Open(t.Context(), Config{Endpoints: []string{at}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s, err := Open(t.Context(), Config{Endpoints: []string{at}, Prefix: "/mine"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := other.Presence("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Renew(t.Context(), 60); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Servers(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("servers of another cluster: %v, %v", got, err)
	}
	if got, err := other.Servers(t.Context()); err != nil || len(got) != 1 || got[0] != "192.0.2.1" {
		t.Errorf("servers: %v, %v", got, err)
	}
	if err := p.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Servers(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("servers after it was removed: %v, %v", got, err)
	}
}

// former reads what bound has written, and says that it should be written anew.
type former struct{ bound }

func (f former) TransformFromStorage(ctx context.Context, data []byte, at value.Context) ([]byte, bool, error) {
	plain, _, err := f.bound.TransformFromStorage(ctx, data, at)
	return plain, true, err
}

func TestStaleValues(t *testing.T) {
	rotated := false
	s, err := Open(t.Context(), Config{Endpoints: []string{etcdtest.Serve(t)}, Transform: func(key string) value.Transformer {
		switch {
		case strings.Contains(key, "/plain"):
			return nil
		case rotated:
			return former{}
		}
		return bound{}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	maps, _ := builtin.Table().Kind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	if err := s.Register(t.Context(), "/registry/configmaps/", codec.For(maps)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sealed", "plain"} {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		if _, err := s.Create(t.Context(), "/registry/configmaps/default/"+name, m, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name          string
		rotated, want bool
	}{{"sealed", false, false}, {"sealed", true, true}, {"plain", true, false}, {"missing", true, false}} {
		rotated = c.rotated
		if got, err := s.Stale(t.Context(), "/registry/configmaps/default/"+c.name); err != nil || got != c.want {
			t.Errorf("%s, rotated %v: %v, %v", c.name, c.rotated, got, err)
		}
	}
}
