package etcd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skiff-sh/skiff/store"
	"github.com/skiff-sh/skiff/store/storetest"
)

// lossy is a connection that loses the next transaction, or its answer.
type lossy struct {
	clientv3.KV
	lose func(commit func() (*clientv3.TxnResponse, error)) error // of the next one; nil: nothing is lost
}

func (l *lossy) Txn(ctx context.Context) clientv3.Txn { return &lossyTxn{l.KV.Txn(ctx), l} }

type lossyTxn struct {
	clientv3.Txn
	l *lossy
}

func (x *lossyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { x.Txn = x.Txn.If(c...); return x }
func (x *lossyTxn) Then(o ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Then(o...); return x }
func (x *lossyTxn) Else(o ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Else(o...); return x }

func (x *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	if lose := x.l.lose; lose != nil {
		x.l.lose = nil
		return nil, lose(x.Txn.Commit)
	}
	return x.Txn.Commit()
}

// TestLostWrites loses a write, or its answer, while others write the same key or do not.
func TestLostWrites(t *testing.T) {
	ctx, s := t.Context(), open(t)
	l := &lossy{KV: s.client.KV}
	s.client.KV = l
	if err := s.Register(ctx, storetest.Prefix, storetest.Codec{}); err != nil {
		t.Fatal(err)
	}
	for n, c := range []struct {
		what                string
		done, other, again  bool // it happened; somebody else wrote then; and once more
		create, update, del string
	}{
		{"nothing happened", false, false, false, "ok", "ok", "ok"},
		{"only the answer is lost", true, false, false, "ok", "ok", "unknown"},
		{"another was faster", false, true, false, "exists", "conflict", "conflict"},
		{"another was faster, twice", false, true, true, "unknown", "unknown", "unknown"},
		{"another came after it", true, true, false, "unknown", "unknown", "unknown"},
	} {
		key := fmt.Sprintf("%sns/k%d", storetest.Prefix, n)
		lose := func(commit func() (*clientv3.TxnResponse, error)) error {
			if c.done {
				if r, err := commit(); err != nil || !r.Succeeded {
					t.Error(r, err)
				}
			}
			for i, there := range []bool{c.other, c.again} {
				if there {
					b, err := storetest.Codec{}.Encode(storetest.Object("ns", "k", fmt.Sprintf("other%d", i)))
					if err != nil {
						t.Error(err)
					}
					if _, err := l.KV.Put(ctx, key, string(b)); err != nil {
						t.Error(err)
					}
				}
			}
			return rpctypes.ErrTimeout
		}
		check := func(op, want string, e *store.Entry, err error) {
			t.Helper()
			var conflict *store.Conflict
			got := "ok"
			switch {
			case errors.Is(err, store.ErrUnknown):
				got = "unknown"
			case errors.Is(err, store.ErrExists):
				got = "exists"
			case errors.As(err, &conflict):
				got = "conflict"
			case err != nil:
				got = err.Error()
			}
			if got != want {
				t.Errorf("%s, %s: %s, want %s", c.what, op, got, want)
			}
			if got == "ok" && op != "delete" {
				if now, ok := s.Snapshot("").Get(key); !ok || now != e {
					t.Errorf("%s, %s: %v was written, %v is there", c.what, op, e, now)
				}
			}
		}
		remove := func() {
			if _, err := l.KV.Delete(ctx, key); err != nil {
				t.Fatal(err)
			}
		}
		l.lose = lose
		e, err := s.Create(ctx, key, storetest.Object("ns", "k", "mine"), 0)
		check("create", c.create, e, err)
		remove()
		for _, op := range []string{"update", "delete"} {
			base, err := s.Create(ctx, key, storetest.Object("ns", "k", "base"), 0)
			if err != nil {
				t.Fatal(err)
			}
			l.lose = lose
			if op == "update" {
				e, err = s.Update(ctx, key, base.Rev, storetest.Object("ns", "k", "mine"), 0)
				check(op, c.update, e, err)
			} else {
				e, err = s.Delete(ctx, key, base.Rev)
				check(op, c.del, e, err)
			}
			remove()
		}
	}
}

func TestFateOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want fate
	}{
		{rpctypes.ErrNoLeader, undone},
		{rpctypes.Error(status.Error(codes.Unknown, "raft proposal dropped")), undone},
		{rpctypes.ErrTooManyRequests, undone},
		{rpctypes.ErrTimeoutDueToLeaderFail, unknown},
		{rpctypes.ErrLeaderChanged, unknown},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), unknown},
		{context.DeadlineExceeded, unknown},
		{rpctypes.ErrNoSpace, refused},
		{rpctypes.ErrCompacted, refused},
		{errors.New("who knows"), refused},
	} {
		if got := fateOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
