package etcd

import (
	"net/url"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// serveEtcd runs an etcd that listens on a socket, and returns its address.
func serveEtcd(t *testing.T) string {
	dir := t.TempDir()
	socket := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "etcd")
	c.ListenPeerUrls = nil
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{socket}, []url.URL{socket}
	c.ElectionMs = 500
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-t.Context().Done():
		t.Fatal("etcd is not ready")
	}
	return socket.String()
}

func TestExternalStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s, err := Open(t.Context(), Config{Endpoints: []string{serveEtcd(t)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
