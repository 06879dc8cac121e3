package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// Register names the codec for all keys under prefix and reads what is there. If the prefix has a codec already, the entries
// are swapped at once and its watches end with ErrCompacted.
func (s *Store) Register(ctx context.Context, prefix string, c store.Codec) error {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	st := s.state.Load()
	before, again := st.prefixes[prefix]
	if _, ok := st.place(prefix); ok && !again || len(prefix) < 2 || prefix[len(prefix)-1] != '/' {
		return fmt.Errorf("the prefix %s does not end in a slash or is inside another", prefix)
	}
	k := &kind{prefix: prefix, codec: c, history: newHistory(st.rev), timing: s.metrics.timing(prefix, c)}
	var err error
	if k.work, err = s.load(ctx, k, st.rev); err != nil {
		return fmt.Errorf("read %s: %w", prefix, err)
	}
	next := *st
	if again {
		next.kinds, next.trees = slices.Clone(st.kinds), slices.Clone(st.trees)
		next.kinds[before], next.trees[before] = k, k.work.Clone()
		s.publish(&next)
		st.kinds[before].history.close(store.ErrCompacted)
		return nil
	}
	next.prefixes = make(map[string]int, len(st.prefixes)+1)
	for p, i := range st.prefixes {
		next.prefixes[p] = i
	}
	next.prefixes[prefix] = len(st.kinds)
	next.kinds = append(slices.Clone(st.kinds), k)
	next.trees = append(slices.Clone(st.trees), k.work.Clone())
	s.publish(&next)
	return nil
}

// Unregister forgets the entries under prefix and ends its watches with ErrCompacted.
func (s *Store) Unregister(prefix string) {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	st := s.state.Load()
	gone, ok := st.prefixes[prefix]
	if !ok {
		return
	}
	next := &state{rev: st.rev, prefixes: map[string]int{}}
	for i, k := range st.kinds {
		if i != gone {
			next.prefixes[k.prefix] = len(next.kinds)
			next.kinds = append(next.kinds, k)
			next.trees = append(next.trees, st.trees[i])
		}
	}
	s.publish(next)
	st.kinds[gone].history.close(store.ErrCompacted)
}

// load reads all entries of a kind at a revision.
func (s *Store) load(ctx context.Context, k *kind, rev int64) (*tree, error) {
	t := newTree()
	s.faults.forget(k.prefix)
	err := s.pages(ctx, k.prefix, k.prefix, rev, 0, func(resp *clientv3.GetResponse) {
		for _, e := range s.decodeAll(k, resp.Kvs, s.faults.note) {
			if e != nil {
				t.ReplaceOrInsert(e)
			}
		}
	})
	return t, err
}

// pages reads keys under prefix from one on, up to limit (0: all), in pages at one revision.
func (s *Store) pages(ctx context.Context, prefix, from string, rev int64, limit int, page func(*clientv3.GetResponse)) error {
	const (
		firstPage, largestPage = 500, 10_000
		fullPage               = 4 << 20 // bytes; etcd counts all that is left for every page, so few pages are better
	)
	end := clientv3.GetPrefixRangeEnd(prefix)
	for size := firstPage; ; {
		n := size
		if limit > 0 {
			n = min(n, limit)
		}
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(int64(n)))
		if err != nil {
			return wrap(err)
		}
		page(resp)
		bytes := 0
		for _, kv := range resp.Kvs {
			bytes += len(kv.Value)
		}
		if bytes < fullPage/2 {
			size = min(2*size, largestPage)
		} else if bytes > fullPage {
			size = max(size/2, 1)
		}
		if limit > 0 {
			if limit -= len(resp.Kvs); limit <= 0 {
				return nil
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// decodeAll decodes a page, on two goroutines if that is worth it. Values that cannot be read leave nil, and bad is told.
func (s *Store) decodeAll(k *kind, kvs []*mvccpb.KeyValue, bad func(key string, err error)) []*store.Entry {
	out := make([]*store.Entry, len(kvs))
	part := func(from, to int) {
		for i := from; i < to; i++ {
			var err error
			if out[i], err = s.decode(k, kvs[i]); err != nil {
				bad(string(kvs[i].Key), err)
			}
		}
	}
	if len(kvs) < 64 {
		part(0, len(kvs))
		return out
	}
	var wg sync.WaitGroup
	wg.Go(func() { part(0, len(kvs)/2) })
	part(len(kvs)/2, len(kvs))
	wg.Wait()
	return out
}

// decode makes an entry, or logs why it cannot.
func (s *Store) decode(k *kind, kv *mvccpb.KeyValue) (*store.Entry, error) {
	obj, err := k.codec.Decode(kv.Value, kv.ModRevision)
	if err != nil {
		s.log.Error("a stored object cannot be read: requests for it fail until it is mended or removed in etcd",
			"key", string(kv.Key), "revision", kv.ModRevision, "err", err)
		return nil, fmt.Errorf("unable to read the value of %s: %w", kv.Key, err)
	}
	s.interner.intern(obj)
	s.seals.Add(obj)
	return &store.Entry{Key: string(kv.Key), Rev: kv.ModRevision, Object: obj, Budget: s.kept}, nil
}

// feed follows etcd until ctx ends. A watch that breaks is taken up again where it was; if etcd has forgotten that, the
// cache is read anew.
func (s *Store) feed(ctx context.Context) {
	for backoff := 50 * time.Millisecond; ctx.Err() == nil; backoff = min(2*backoff, 5*time.Second) {
		started := time.Now()
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("the watch of etcd ended", "err", err)
		if time.Since(started) > time.Minute {
			backoff = 50 * time.Millisecond
		}
		if isCompacted(err) {
			if err := s.refill(ctx); err != nil {
				s.log.Error("etcd cannot be read", "err", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
	}
}

// follow watches all keys, not only ours: the cache then reaches every revision of etcd, whoever else writes there.
func (s *Store) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch := s.client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(s.state.Load().rev+1))
	for resp := range watch {
		if err := resp.Err(); err != nil {
			return wrap(err)
		}
		s.apply(resp.Events)
	}
	return ctx.Err()
}

// apply brings events, which are complete up to the last one's revision, into the cache.
func (s *Store) apply(events []*clientv3.Event) {
	if len(events) == 0 {
		return // progress: the header may be ahead of what other watchers' events still bring
	}
	rev := events[len(events)-1].Kv.ModRevision
	s.feeding.Lock()
	defer s.feeding.Unlock()
	st := s.state.Load()
	b := batch{store: s, state: st, now: time.Now()}
	for _, e := range events {
		p, ok := st.place(string(e.Kv.Key))
		if !ok {
			continue
		}
		if e.Type == clientv3.EventTypeDelete {
			s.faults.note(string(e.Kv.Key), nil)
			b.remove(p, string(e.Kv.Key), e.Kv.ModRevision)
			continue
		}
		// What can no longer be read is not gone: nobody is told so, and the cache goes on with what it knew.
		entry, err := s.decode(st.kinds[p], e.Kv)
		s.faults.note(string(e.Kv.Key), err)
		if err == nil {
			b.put(p, entry, len(e.Kv.Value))
		}
	}
	b.publish(rev)
}

// refill reads every registered prefix at etcd's revision. What happened since the last event nobody knows any more, so all
// watches end with ErrCompacted.
func (s *Store) refill(ctx context.Context) error {
	s.feeding.Lock()
	defer s.feeding.Unlock()
	rev, err := s.Revision(ctx)
	if err != nil {
		return err
	}
	st := s.state.Load()
	next := &state{rev: rev, prefixes: st.prefixes, kinds: make([]*kind, len(st.kinds)), trees: make([]*tree, len(st.kinds))}
	for p, old := range st.kinds {
		k := &kind{prefix: old.prefix, codec: old.codec, history: newHistory(rev), timing: old.timing}
		if k.work, err = s.load(ctx, k, rev); err != nil {
			return err
		}
		next.kinds[p], next.trees[p] = k, k.work.Clone()
	}
	s.publish(next)
	for _, old := range st.kinds {
		old.history.close(store.ErrCompacted)
	}
	return nil
}

// batch collects changes and publishes them together.
type batch struct {
	store   *Store
	state   *state
	now     time.Time
	changed map[int]*tree  // places whose tree changed
	events  []*store.Event // what to wake for
	places  []int
}

func (b *batch) put(p int, e *store.Entry, size int) {
	prev, existed := b.state.kinds[p].work.ReplaceOrInsert(e)
	ev := &store.Event{Type: store.Created, Entry: e}
	if existed {
		ev.Type, ev.Prev = store.Updated, prev
	}
	b.tell(p, ev, size)
}

func (b *batch) remove(p int, key string, rev int64) {
	prev, existed := b.state.kinds[p].work.Delete(&store.Entry{Key: key})
	if !existed {
		return // it could not be decoded before either
	}
	last := &store.Entry{Key: key, Rev: rev, Object: withRevision(prev.Object, rev)}
	b.tell(p, &store.Event{Type: store.Deleted, Entry: last, Prev: prev}, 256)
}

func (b *batch) tell(p int, e *store.Event, size int) {
	if b.changed == nil {
		b.changed = map[int]*tree{}
	}
	b.changed[p] = nil
	if e.Prev != nil {
		e.Prev.Forget()
		b.store.seals.Remove(e.Prev.Object)
	}
	b.events, b.places = append(b.events, e), append(b.places, p)
	b.state.kinds[p].history.add(e, size, b.now)
}

func (b *batch) publish(rev int64) {
	for p := range b.changed {
		b.changed[p] = b.state.kinds[p].work.Clone()
	}
	b.store.publish(b.state.with(max(rev, b.state.rev), b.changed))
	for i, e := range b.events {
		b.state.kinds[b.places[i]].history.wake(e.Entry.Key, e.Entry.Rev)
	}
	for p := range b.changed {
		b.state.kinds[p].history.allTold(rev)
	}
}

// withRevision returns the object with another resourceVersion. Everything but the metadata is shared with the original.
func withRevision(obj api.Object, rev int64) api.Object {
	rv := strconv.FormatInt(rev, 10)
	if u, ok := obj.(*unstructured.Unstructured); ok {
		top := make(map[string]any, len(u.Object))
		for k, v := range u.Object {
			top[k] = v
		}
		if old, ok := top["metadata"].(map[string]any); ok {
			meta := make(map[string]any, len(old))
			for k, v := range old {
				meta[k] = v
			}
			top["metadata"] = meta
		}
		next := &unstructured.Unstructured{Object: top}
		next.SetResourceVersion(rv)
		return next
	}
	v := reflect.New(reflect.TypeOf(obj).Elem())
	v.Elem().Set(reflect.ValueOf(obj).Elem())
	next := v.Interface().(api.Object)
	next.SetResourceVersion(rv)
	return next
}
