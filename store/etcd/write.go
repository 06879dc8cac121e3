package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

func (s *Store) Create(ctx context.Context, key string, obj api.Object, ttl int64) (*store.Entry, error) {
	e, err := s.put(ctx, key, 0, obj, ttl)
	var conflict *store.Conflict
	if errors.As(err, &conflict) {
		return nil, fmt.Errorf("%s: %w", key, store.ErrExists)
	}
	return e, err
}

func (s *Store) Update(ctx context.Context, key string, rev int64, obj api.Object, ttl int64) (*store.Entry, error) {
	if rev <= 0 {
		return nil, fmt.Errorf("update %s: the revision is missing", key)
	}
	return s.put(ctx, key, rev, obj, ttl)
}

func (s *Store) put(ctx context.Context, key string, rev int64, obj api.Object, ttl int64) (*store.Entry, error) {
	k := s.state.Load().kind(key)
	if k == nil {
		return nil, fmt.Errorf("%s is under no registered prefix", key)
	}
	value, err := k.codec.Encode(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	var opts []clientv3.OpOption
	if ttl > 0 {
		id, err := s.leases.get(ctx, ttl)
		if err != nil {
			return nil, fmt.Errorf("lease for %s: %w", key, wrap(err))
		}
		opts = append(opts, clientv3.WithLease(id))
	}
	op := clientv3.OpPut(key, "", opts...)
	op.WithValueBytes(value) // which OpPut would copy
	done, err := s.swap(ctx, k, key, rev, op)
	if err != nil {
		return nil, err
	}
	e, err := s.written(ctx, k, key, done)
	if err != nil || e != nil {
		return e, err
	}
	// The event is no longer known: make the entry from what was written.
	if e, err = s.decode(k, &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: done}); err != nil {
		return nil, fmt.Errorf("%s was written, but cannot be read back: %w", key, err)
	}
	return e, nil
}

func (s *Store) Delete(ctx context.Context, key string, rev int64) (*store.Entry, error) {
	k := s.state.Load().kind(key)
	if k == nil {
		return nil, fmt.Errorf("%s is under no registered prefix", key)
	}
	before, _ := s.state.Load().Get(key)
	done, err := s.swap(ctx, k, key, rev, clientv3.OpDelete(key))
	if err != nil {
		return nil, err
	}
	e, err := s.written(ctx, k, key, done)
	if err != nil || e != nil {
		return e, err
	}
	if before == nil || before.Rev != rev {
		return nil, fmt.Errorf("%s was deleted, but its last state is not known", key)
	}
	return &store.Entry{Key: key, Rev: done, Object: withRevision(before.Object, done)}, nil
}

// swap does op if the key is at rev (0: does not exist) and returns its revision, else a *Conflict.
func (s *Store) swap(ctx context.Context, k *kind, key string, rev int64, op clientv3.Op) (int64, error) {
	start := time.Now()
	done, found, err := s.compareAndSwap(ctx, key, rev, op)
	what := opUpdate
	switch {
	case op.IsDelete():
		what = opDelete
	case rev == 0:
		what = opCreate
	}
	k.timing.observe(what, start, err)
	if err = wrap(err); err != nil {
		if errors.Is(err, store.ErrNoSpace) {
			s.refused()
		}
		return 0, fmt.Errorf("write %s: %w", key, err)
	}
	if found == nil {
		return done, nil
	}
	conflict := &store.Conflict{Key: key, Want: rev}
	since := found.Header.Revision
	if len(found.Kvs) > 0 {
		if conflict.Current = s.known(k, found.Kvs[0]); conflict.Current != nil {
			since = conflict.Current.Rev
		}
	}
	// Whoever reads after a conflict sees what it was with.
	if err := s.WaitFor(ctx, since); err != nil {
		return 0, err
	}
	return 0, conflict
}

// known is the cache's entry for a key-value pair, or a decoded one; nil if it cannot be read.
func (s *Store) known(k *kind, kv *mvccpb.KeyValue) *store.Entry {
	if e, ok := s.state.Load().Get(string(kv.Key)); ok && e.Rev == kv.ModRevision {
		return e
	}
	e, _ := s.decode(k, kv) // which logs
	return e
}

// written waits until the cache has reached a write and returns its entry: the same that all readers see. It is nil if
// the history has already moved on.
func (s *Store) written(ctx context.Context, k *kind, key string, rev int64) (*store.Entry, error) {
	if err := s.WaitFor(ctx, rev); err != nil {
		return nil, fmt.Errorf("%s was written: %w", key, err)
	}
	if e := k.history.find(key, rev); e != nil {
		return e.Entry, nil
	}
	return nil, nil
}

// At reads entries as they were at an older revision.
func (s *Store) At(ctx context.Context, prefix, from string, rev int64, limit int) (entries []*store.Entry, remaining int64, err error) {
	k := s.state.Load().kind(prefix)
	if k == nil {
		return nil, 0, fmt.Errorf("%s is under no registered prefix", prefix)
	}
	start := time.Now()
	defer func() { k.timing.observe(opList, start, err) }()
	err = s.pages(ctx, prefix, max(prefix, from), rev, limit, func(resp *clientv3.GetResponse) {
		for i, e := range s.decodeAll(k, resp.Kvs, func(string, error) {}) {
			if e == nil {
				continue
			}
			if known, ok := s.state.Load().Get(string(resp.Kvs[i].Key)); ok && known.Rev == e.Rev {
				e = known // it has its bytes already
			}
			entries = append(entries, e)
		}
		remaining = resp.Count - int64(len(resp.Kvs))
	})
	return entries, remaining, err
}

// Revision is etcd's current revision. A single member has applied it; one of several asks the others how far they are.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	switch {
	case s.member == nil:
		return s.reads.do(ctx, func(ctx context.Context) (rev int64, err error) {
			_, err = s.insist(ctx, func(ctx context.Context) error {
				resp, err := s.client.Get(ctx, "/registry/health", clientv3.WithCountOnly())
				if err == nil {
					rev = resp.Header.Revision
				}
				return err
			})
			return rev, wrap(err)
		})
	case !s.member.alone:
		if _, err := s.insist(ctx, s.member.etcd.Server.LinearizableReadNotify); err != nil {
			return 0, err
		}
	}
	return s.member.etcd.Server.KV().Rev(), nil
}

// Compact drops history before rev from etcd.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	_, err := s.client.Compact(ctx, rev)
	if err = wrap(err); err != nil && !errors.Is(err, store.ErrCompacted) {
		return fmt.Errorf("compact to revision %d: %w", rev, err)
	}
	return nil
}

// leases hands out leases that many keys share, because a lease costs etcd more than a key.
type leases struct {
	store *Store
	mu    sync.Mutex
	byTTL map[int64]*lease
}

type lease struct {
	id    clientv3.LeaseID
	until time.Time // no new keys after
	keys  int
}

// How many keys share a lease, and by how much they may outlive their TTL for it.
const (
	leaseKeys  = 1000
	leaseReuse = time.Minute
)

func (l *leases) get(ctx context.Context, ttl int64) (clientv3.LeaseID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.byTTL[ttl]; x != nil && x.keys < leaseKeys && time.Now().Before(x.until) {
		x.keys++
		return x.id, nil
	}
	reuse := min(leaseReuse, time.Duration(ttl)*time.Second/20) // short TTLs stay exact
	var resp *clientv3.LeaseGrantResponse
	_, err := l.store.insist(ctx, func(ctx context.Context) (err error) {
		resp, err = l.store.client.Grant(ctx, ttl+int64(reuse/time.Second))
		return err
	})
	if err != nil {
		return 0, err
	}
	if l.byTTL == nil {
		l.byTTL = map[int64]*lease{}
	}
	l.byTTL[ttl] = &lease{id: resp.ID, until: time.Now().Add(reuse), keys: 1}
	return resp.ID, nil
}

// flight shares one call among all who ask before it has begun.
type flight struct {
	mu      sync.Mutex
	running bool
	next    *landing // waits for the running call to end
}

type landing struct {
	done chan struct{}
	rev  int64
	err  error
}

// do returns the result of a call that began after do was called.
func (f *flight) do(ctx context.Context, call func(context.Context) (int64, error)) (int64, error) {
	f.mu.Lock()
	l := f.next
	if l == nil {
		l = &landing{done: make(chan struct{})}
		f.next = l
		if !f.running {
			f.running = true
			go f.fly(call)
		}
	}
	f.mu.Unlock()
	select {
	case <-l.done:
		return l.rev, l.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// fly calls until nobody waits for the next call.
func (f *flight) fly(call func(context.Context) (int64, error)) {
	for {
		f.mu.Lock()
		l := f.next
		f.next = nil
		f.running = l != nil
		f.mu.Unlock()
		if l == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		l.rev, l.err = call(ctx)
		cancel()
		close(l.done)
	}
}

// wrap turns etcd's errors into the store's.
func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: %w", store.ErrCompacted, err)
	case errors.Is(err, rpctypes.ErrFutureRev):
		return fmt.Errorf("%w: %w", store.ErrFuture, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %w", store.ErrNoSpace, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge):
		return fmt.Errorf("%w: %w", store.ErrTooLarge, err)
	}
	return err
}

func isCompacted(err error) bool { return errors.Is(err, store.ErrCompacted) }
