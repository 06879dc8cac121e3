package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skiff-sh/skiff/store"
)

// This file is what the store does while etcd has no leader, or cannot be reached: it asks again, for as long as the caller
// waits. A proposal that was on its way to a leader that died is lost without a word, so a try does not wait for longer than
// an election takes.

const (
	firstTry   = 2500 * time.Millisecond // of one call to a cluster of several members; then twice as much
	firstPause = 20 * time.Millisecond   // between two tries; then twice as much
	maxPause   = time.Second
)

// fate is what is known of a call that failed.
type fate int

const (
	refused fate = iota // for good: another try would end the same
	undone              // nothing has happened
	unknown             // it may have happened, or happen yet
)

// fateOf looks at the error of a call whose caller still waits.
func fateOf(err error) fate {
	var said rpctypes.EtcdError
	switch {
	case errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrNotLeader), errors.Is(err, rpctypes.ErrTooManyRequests),
		rpctypes.ErrorDesc(err) == "raft proposal dropped": // which has no name of its own
		return undone
	case errors.As(err, &said) && said.Code() == codes.Unavailable,
		errors.Is(err, etcderrors.ErrTimeout), errors.Is(err, etcderrors.ErrLeaderChanged),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled): // of the try, not of the caller
		return unknown
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return unknown
	}
	return refused
}

// insist calls f until it is not for lack of a leader that it fails, or ctx ends. lost reports whether a try that failed may
// have had, or have yet, its effect.
func (s *Store) insist(ctx context.Context, f func(context.Context) error) (lost bool, err error) {
	limit, pause := firstTry, firstPause
	for {
		try, cancel := ctx, context.CancelFunc(func() {})
		if s.member == nil || !s.member.alone {
			try, cancel = context.WithTimeout(ctx, limit)
		}
		err = f(try)
		cancel()
		if err == nil {
			return lost, nil
		}
		what := fateOf(err)
		lost = lost || what == unknown
		if what == refused || ctx.Err() != nil || s.stopped() {
			return lost, err
		}
		select {
		case <-time.After(pause):
		case <-s.closing:
			return lost, err
		case <-ctx.Done():
			return lost, err
		}
		limit, pause = 2*limit, min(2*pause, maxPause)
	}
}

// stopped reports whether there is nobody to ask any more: the store is closed, or the embedded member has ended.
func (s *Store) stopped() bool {
	select {
	case <-s.closing:
		return true
	default:
	}
	if s.member == nil {
		return false
	}
	select {
	case <-s.member.etcd.Server.StopNotify():
		return true
	default:
		return false
	}
}

// compareAndSwap does op if the key is at rev (0: does not exist). It returns the revision of that; or what is there instead,
// nil for nothing, and the revision of the look. A try that was lost is told from others' writes by what it wrote.
func (s *Store) compareAndSwap(ctx context.Context, key string, rev int64, op clientv3.Op) (done int64, found *clientv3.GetResponse, err error) {
	var resp *clientv3.TxnResponse
	lost, err := s.insist(ctx, func(ctx context.Context) (err error) {
		s.rounds.enter(ctx)
		defer s.rounds.leave()
		resp, err = s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).Then(op).Else(clientv3.OpGet(key)).Commit()
		return err
	})
	switch {
	case err != nil && lost:
		return 0, nil, fmt.Errorf("%w: %w", store.ErrUnknown, err)
	case err != nil:
		return 0, nil, err
	case resp.Succeeded:
		return resp.Header.Revision, nil, nil
	}
	found = (*clientv3.GetResponse)(resp.Responses[0].GetResponseRange())
	found.Header = resp.Header
	if !lost {
		return 0, found, nil
	}
	if len(found.Kvs) > 0 {
		now := found.Kvs[0]
		if op.IsPut() && bytes.Equal(now.Value, op.ValueBytes()) {
			return now.ModRevision, nil, nil
		}
		before, err := s.client.Get(ctx, key, clientv3.WithRev(now.ModRevision-1))
		if err == nil && (rev == 0 && len(before.Kvs) == 0 || len(before.Kvs) > 0 && before.Kvs[0].ModRevision == rev) {
			return 0, found, nil // somebody else's write came right after what was expected: there was none in between
		}
	}
	return 0, nil, fmt.Errorf("%w: the key has changed since", store.ErrUnknown)
}
