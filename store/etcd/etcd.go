// Package etcd is the store over etcd, embedded in the process or an external cluster.
//
// Invariants: one goroutine (feed) changes the cache, in revision order, fed by one watch over all keys. It appends an
// event to the history of its prefix before it publishes the state that includes it, so whoever has seen revision r
// in a snapshot finds all events up to r in the histories. Published trees never change. A write returns when the
// cache has reached it.
//
// Only daemon imports etcd.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/skiff-sh/skiff/internal/seal"
	"github.com/skiff-sh/skiff/store"
)

// Config is what a store needs.
type Config struct {
	// DataDir is the embedded member's folder; it is made if missing. One process may use it at a time.
	DataDir string
	// Endpoints of an external cluster ("https://10.0.0.1:2379"). Empty: etcd is embedded.
	Endpoints []string
	TLS       *tls.Config // to the external cluster; nil is plain text
	// Prefix is where all keys lie, "/registry" if empty. Upstream's --etcd-prefix.
	Prefix string
	// Transform says how the values of one of the store's keys are encrypted. Nil, or returning nil: they are not.
	Transform func(key string) value.Transformer
	// Peers makes the embedded member one of several. Nil: it is alone, and listens nowhere.
	Peers *Peers
	Log   *slog.Logger

	// CompactEvery is the time between compactions; history before the previous one is dropped. Zero is 5 minutes,
	// upstream's; negative is never.
	CompactEvery time.Duration
	// Quota bounds the embedded member's database, in bytes; 0 is 8 GiB. A full one refuses all writes but deletions.
	Quota int64
}

func (c *Config) validate() error {
	if len(c.Endpoints) == 0 && c.DataDir == "" {
		return errors.New("etcd: neither a data folder nor endpoints are given")
	}
	if c.Prefix == "" {
		c.Prefix = root
	}
	if c.Prefix[0] != '/' || c.Prefix[len(c.Prefix)-1] == '/' {
		return fmt.Errorf("etcd: the prefix %q does not look like %q", c.Prefix, root)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.CompactEvery == 0 {
		c.CompactEvery = 5 * time.Minute
	}
	return nil
}

// maxKept bounds the bytes that are kept beside the objects of a store.
const maxKept = 32 << 20

// Store is the store over etcd. It implements store.Store.
type Store struct {
	log    *slog.Logger
	client *clientv3.Client
	member *member // nil with an external cluster
	// agreement is for the key that upstream's servers share, which no prefix is put before.
	agreement clientv3.KV
	full      chan struct{} // writes are refused for lack of space
	leases    leases
	rounds    rounds
	reads     flight // of the current revision, with an external cluster

	stop    context.CancelFunc
	closing <-chan struct{} // closed by stop
	group   sync.WaitGroup

	// feeding is held while the cache changes: by the feed for each batch, and by Register.
	feeding sync.Mutex
	state   atomic.Pointer[state]
	waiters waiters

	kept     *store.Budget
	interner *interner
	metrics  metrics
	faults   faults
	seals    seal.Set
}

var _ store.Store = (*Store)(nil)

// Open starts etcd or reaches the cluster; ctx bounds only that. The store then works until Close.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Store{log: cfg.Log, kept: store.NewBudget(maxKept), interner: newInterner(), full: make(chan struct{}, 1), metrics: newMetrics()}
	var err error
	if len(cfg.Endpoints) == 0 {
		if s.member, err = startMember(ctx, cfg); err != nil {
			return nil, err
		}
		s.client = s.member.client
	} else {
		s.client, err = clientv3.New(clientv3.Config{Endpoints: cfg.Endpoints, TLS: cfg.TLS, DialTimeout: 10 * time.Second,
			DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second, Logger: zap.NewNop(),
			MaxCallSendMsgSize: 8 << 20})
		if err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
	}
	s.agreement = s.client.KV
	if cfg.Prefix != root || cfg.Transform != nil {
		translate(s.client, cfg.Prefix, cfg.Transform)
	}
	s.leases.store = s
	run, stop := context.WithCancel(context.Background())
	s.stop, s.closing = stop, run.Done()
	rev, err := s.Revision(ctx)
	if err != nil {
		stop()
		s.close()
		return nil, fmt.Errorf("etcd does not answer: %w", err)
	}
	s.state.Store(&state{rev: rev, prefixes: map[string]int{}})

	s.group.Go(func() { s.feed(run) })
	if cfg.CompactEvery > 0 {
		s.group.Go(func() { s.maintain(run, cfg.CompactEvery) })
	}
	return s, nil
}

// Close ends all watches and waits, then stops etcd if it is embedded.
func (s *Store) Close() error {
	s.stop()
	s.group.Wait()
	s.feeding.Lock()
	for _, p := range s.state.Load().kinds {
		if p != nil {
			p.history.close(errClosed)
		}
	}
	s.feeding.Unlock()
	s.waiters.close()
	s.seals.CheckAll()
	return s.close()
}

func (s *Store) close() error {
	err := s.client.Close()
	if s.member != nil {
		s.member.close()
		return nil // the in-process client has no connection to close
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

var errClosed = errors.New("the store is closed")

// Forget lets go of what is made again when somebody asks for it: the bytes kept beside the objects.
func (s *Store) Forget() { s.kept.Clear() }
