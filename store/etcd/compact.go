package etcd

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skiff-sh/skiff/store"
)

// compactionKey is where upstream's servers agree on who compacts: its version counts the compactions, its value is the
// revision of the last.
const compactionKey = "compact_rev_key"

const (
	// defragmentFrom is the size in bytes from which an embedded member's file is written anew, when more than half of it
	// is free pages. It stands still meanwhile, about a second for a gigabyte.
	defragmentFrom = 64 << 20
	// However often writes are refused, space is looked for once in this time.
	reclaimAgain  = time.Second
	reclaimInVain = 10 * time.Second
)

// compaction is what one server knows of the agreement.
type compaction struct {
	store   *Store
	version int64 // of the key, as last seen
	rev     int64 // etcd's revision then: what the next compaction may drop history up to
}

// maintain drops old history from etcd and from the cache, and gives space back, until ctx ends.
func (s *Store) maintain(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	age := time.NewTicker(maxEventAge / 2)
	defer age.Stop()
	c := compaction{store: s}
	var next time.Time // no reclaiming before
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-age.C:
			s.age(now)
		case <-t.C:
			s.Forget()
			if err := c.step(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("etcd cannot be compacted", "err", err)
			}
			if s.member != nil {
				s.member.defragment(ctx, s)
			}
		case <-s.full:
			if s.member == nil || time.Now().Before(next) {
				continue
			}
			next = time.Now().Add(reclaimAgain)
			if err := s.reclaim(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("etcd is full and no space can be made: writes are refused until objects are deleted", "err", err)
				next = time.Now().Add(reclaimInVain)
			}
		}
	}
}

// age lets the cache forget the events that are too old.
func (s *Store) age(now time.Time) {
	for _, k := range s.state.Load().kinds {
		if k != nil {
			k.history.age(now)
		}
	}
}

// step compacts to the revision of one interval ago, unless another server has done so. Whoever writes the key first
// compacts; the others learn from it what it knows.
func (c *compaction) step(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, err := c.store.agreement.Txn(ctx).If(clientv3.Compare(clientv3.Version(compactionKey), "=", c.version)).
		Then(clientv3.OpPut(compactionKey, strconv.FormatInt(c.rev, 10))).Else(clientv3.OpGet(compactionKey)).Commit()
	switch err = wrap(err); {
	case errors.Is(err, store.ErrNoSpace): // the key cannot be written, but space is what compaction makes
		rev := c.rev
		c.rev = c.store.state.Load().rev
		return c.store.compactTo(ctx, rev)
	case err != nil:
		return err
	case !resp.Succeeded:
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			c.version = kvs[0].Version
		}
		c.rev = resp.Header.Revision
		return nil
	}
	rev := c.rev
	c.version, c.rev = c.version+1, resp.Header.Revision
	return c.store.compactTo(ctx, rev)
}

func (s *Store) compactTo(ctx context.Context, rev int64) error {
	if rev == 0 {
		return nil // the first interval
	}
	return s.Compact(ctx, rev)
}

// defragment writes the database file anew when most of it is free.
func (m *member) defragment(ctx context.Context, s *Store) {
	b := m.etcd.Server.Backend()
	if size, used := b.Size(), b.SizeInUse(); size < defragmentFrom || used > size/2 {
		return
	}
	if !m.alone {
		select {
		case <-time.After(rand.N(time.Second)): // so that members do not stand still at the same time
		case <-ctx.Done():
			return
		}
	}
	if err := b.Defrag(); err != nil {
		s.log.Warn("etcd cannot be defragmented", "err", err)
	}
}

// refused remembers that etcd had no space, so that maintain makes some.
func (s *Store) refused() {
	select {
	case s.full <- struct{}{}:
	default:
	}
}

// reclaim makes space in an embedded member that is full: all history goes, the file is written anew, and if that is
// enough, etcd takes writes again.
func (s *Store) reclaim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.Compact(ctx, s.state.Load().rev); err != nil {
		return err
	}
	b := s.member.etcd.Server.Backend()
	if err := b.Defrag(); err != nil {
		return err
	}
	if size := b.Size(); size > s.member.quota/10*9 {
		return errors.New("the database has " + strconv.FormatInt(size, 10) + " bytes of at most " + strconv.FormatInt(s.member.quota, 10))
	}
	alarms, err := s.client.AlarmList(ctx)
	if err != nil {
		return err
	}
	for _, a := range alarms.Alarms {
		if a.Alarm != pb.AlarmType_NOSPACE {
			continue
		}
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			return err
		}
		s.log.Info("etcd was full and has space again", "bytes", b.Size())
	}
	return nil
}
