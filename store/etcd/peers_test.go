package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// freeURL is an address on this machine that nobody listens on.
func freeURL(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return "https://" + ln.Addr().String()
}

// openMembers starts a cluster of embedded members, each with a store over it.
func openMembers(t *testing.T, n int) []*Store {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.Open(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(pki.Leaf{User: "etcd", Peer: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	peers := Peers{CertFile: file("member.crt", cert), KeyFile: file("member.key", key), CAFile: file("authority.crt", ca.PEM)}
	var out []*Store
	t.Cleanup(func() { // all at once: the last one would wait for the others
		var closing sync.WaitGroup
		for _, s := range out {
			closing.Go(func() { _ = s.Close() }) // one of them may be dead
		}
		closing.Wait()
	})
	for i := range n {
		p := peers
		p.Name, p.URL, p.ClientURL = fmt.Sprintf("m%d", i), freeURL(t), freeURL(t)
		s, err := Open(t.Context(), Config{DataDir: filepath.Join(dir, p.Name), Peers: &p, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
		peers.Join = append(peers.Join, p.ClientURL)
		if err := s.Register(t.Context(), storetest.Prefix, storetest.Codec{}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestLeaderDies kills the leader of three members while clients write and read through the other two: nobody gets an error,
// and everything that was written is there once.
func TestLeaderDies(t *testing.T) {
	members := openMembers(t, 3)
	var leader *Store
	var rest []*Store
	for _, s := range members {
		if m := s.member.etcd.Server; m.Leader() == m.MemberID() {
			leader = s
		} else {
			rest = append(rest, s)
		}
	}
	if leader == nil || len(rest) != 2 {
		t.Fatal("there is no leader")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const writes = 40
	done := make(chan error)
	half := make(chan struct{}, len(rest))
	for i, s := range rest {
		go func() { done <- countUp(ctx, s, fmt.Sprintf("k%d", i), writes, half) }()
	}
	for range rest {
		<-half
	}
	leader.member.etcd.Server.HardStop() // it does not hand over
	for range rest {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i := range rest {
		e, ok := rest[1-i].Snapshot("").Get(fmt.Sprintf("%sns/k%d", storetest.Prefix, i))
		if !ok || storetest.Said(e) != strconv.Itoa(writes) {
			t.Errorf("k%d: %v", i, e)
		}
	}
}

// countUp writes a key so many times, reads after each, and tells when half of them are done.
func countUp(ctx context.Context, s *Store, name string, writes int, half chan<- struct{}) error {
	var e *store.Entry
	var err error
	for n := 1; n <= writes; n++ {
		if obj := storetest.Object("ns", name, strconv.Itoa(n)); e == nil {
			e, err = s.Create(ctx, storetest.Prefix+"ns/"+name, obj, 0)
		} else {
			e, err = s.Update(ctx, e.Key, e.Rev, obj, 0)
		}
		if err != nil {
			return fmt.Errorf("write %d: %w", n, err)
		}
		rev, err := s.Revision(ctx)
		if err != nil || rev < e.Rev {
			return fmt.Errorf("a read at revision %d after the write of %d: %w", rev, e.Rev, err)
		}
		if n == writes/2 {
			half <- struct{}{}
		}
	}
	return nil
}
