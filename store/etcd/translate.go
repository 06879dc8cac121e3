package etcd

import (
	"bytes"
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/storage/value"
)

// root is where the store's keys lie; with another prefix configured, etcd's keys lie there instead.
const root = "/registry"

// translate makes a client keep all keys of root under another prefix, and their values encrypted where transform says
// so. Everything above goes on speaking of root and of plain values. A value that cannot be read comes as it is: it is
// reported when it is decoded.
func translate(c *clientv3.Client, prefix string, transform func(key string) value.Transformer) {
	if transform == nil {
		transform = func(string) value.Transformer { return nil }
	}
	t := translated{KV: c.KV, prefix: []byte(prefix), transform: transform}
	c.KV = t
	c.Watcher = translatedWatch{c.Watcher, t}
}

// Stale asks etcd, where values are encrypted; elsewhere none is stale.
func (s *Store) Stale(ctx context.Context, key string) (bool, error) {
	t, ok := s.client.KV.(translated)
	if !ok {
		return false, nil
	}
	f := t.transform(key)
	if f == nil {
		return false, nil
	}
	theirs := t.key([]byte(key))
	resp, err := t.KV.Get(ctx, string(theirs))
	if err != nil || len(resp.Kvs) == 0 {
		return false, wrap(err)
	}
	_, stale, err := f.TransformFromStorage(ctx, resp.Kvs[0].Value, value.DefaultContext(theirs))
	return stale, err
}

type translated struct {
	clientv3.KV
	prefix    []byte
	transform func(key string) value.Transformer
}

// key is etcd's key for one of ours. Keys outside of root (the ends of open ranges) stay.
func (t translated) key(ours []byte) []byte {
	if rest, ok := bytes.CutPrefix(ours, []byte(root)); ok {
		return append(bytes.Clone(t.prefix), rest...)
	}
	return ours
}

// op is the operation on etcd's keys and values. The end of a range has root in front too: "/registry0".
func (t translated) op(ctx context.Context, o clientv3.Op) (clientv3.Op, error) {
	ours := string(o.KeyBytes())
	theirs := t.key(o.KeyBytes())
	if f := t.transform(ours); f != nil && o.IsPut() {
		sealed, err := f.TransformToStorage(ctx, o.ValueBytes(), value.DefaultContext(theirs))
		if err != nil {
			return o, fmt.Errorf("encrypting %s: %w", ours, err)
		}
		o.WithValueBytes(sealed)
	}
	o.WithKeyBytes(theirs)
	if end := o.RangeBytes(); len(end) > 0 {
		o.WithRangeBytes(t.key(end))
	}
	return o, nil
}

// read turns etcd's key and value into ours. What lies outside of the prefix gets a key that nothing of ours can have.
func (t translated) read(ctx context.Context, kv *mvccpb.KeyValue) {
	theirs := kv.Key
	rest, ok := bytes.CutPrefix(theirs, t.prefix)
	if !ok || len(rest) > 0 && rest[0] != '/' {
		kv.Key = append([]byte("foreign:"), theirs...)
		return
	}
	kv.Key = append([]byte(root), rest...)
	if len(kv.Value) == 0 {
		return // a deletion, or only the keys were asked for
	}
	if f := t.transform(string(kv.Key)); f != nil {
		if plain, _, err := f.TransformFromStorage(ctx, kv.Value, value.DefaultContext(theirs)); err == nil {
			kv.Value = plain
		}
	}
}

func (t translated) readAll(ctx context.Context, kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		t.read(ctx, kv)
	}
}

func (t translated) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	o, err := t.op(ctx, clientv3.OpGet(key, opts...))
	if err != nil {
		return nil, err
	}
	resp, err := t.KV.Do(ctx, o)
	if err != nil {
		return nil, err
	}
	got := resp.Get()
	t.readAll(ctx, got.Kvs)
	return got, nil
}

func (t translated) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	o, err := t.op(ctx, clientv3.OpPut(key, val, opts...))
	if err != nil {
		return nil, err
	}
	resp, err := t.KV.Do(ctx, o)
	return resp.Put(), err
}

func (t translated) Txn(ctx context.Context) clientv3.Txn {
	return &translatedTxn{Txn: t.KV.Txn(ctx), ctx: ctx, t: t}
}

type translatedTxn struct {
	clientv3.Txn
	ctx context.Context
	t   translated
	err error
}

func (x *translatedTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	for i := range cs {
		cs[i].WithKeyBytes(x.t.key(cs[i].KeyBytes()))
	}
	x.Txn = x.Txn.If(cs...)
	return x
}

func (x *translatedTxn) ops(in []clientv3.Op) []clientv3.Op {
	out := make([]clientv3.Op, len(in))
	for i, o := range in {
		var err error
		if out[i], err = x.t.op(x.ctx, o); err != nil {
			x.err = err
		}
	}
	return out
}

func (x *translatedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Then(x.ops(ops)...)
	return x
}

func (x *translatedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Else(x.ops(ops)...)
	return x
}

func (x *translatedTxn) Commit() (*clientv3.TxnResponse, error) {
	if x.err != nil {
		return nil, x.err
	}
	resp, err := x.Txn.Commit()
	if err != nil {
		return nil, err
	}
	for _, one := range resp.Responses {
		if got, ok := one.Response.(*pb.ResponseOp_ResponseRange); ok {
			x.t.readAll(x.ctx, got.ResponseRange.Kvs)
		}
	}
	return resp, nil
}

type translatedWatch struct {
	clientv3.Watcher
	t translated
}

// Watch follows whatever range it is asked for; a range from the first key on covers every prefix.
func (w translatedWatch) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	in := w.Watcher.Watch(ctx, string(w.t.key([]byte(key))), opts...)
	out := make(chan clientv3.WatchResponse)
	go func() {
		defer close(out)
		for resp := range in {
			for _, e := range resp.Events {
				w.t.read(ctx, e.Kv)
				if e.PrevKv != nil {
					w.t.read(ctx, e.PrevKv)
				}
			}
			select {
			case out <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
