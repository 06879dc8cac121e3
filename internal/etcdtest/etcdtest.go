// Package etcdtest runs an etcd for tests, as an external one would run.
//
// Invariant: it listens on a socket in the test's own folder, so tests share nothing, and it ends with its test. Only tests
// import etcdtest.
package etcdtest

import (
	"net/url"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Serve runs an etcd and returns its address when it is ready. It may lose what it was told when the machine fails.
func Serve(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	socket := url.URL{Scheme: "unix", Path: filepath.Join(dir, "s")}
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "etcd")
	c.ListenPeerUrls = nil
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{socket}, []url.URL{socket}
	c.ElectionMs, c.UnsafeNoFsync = 500, true
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
