// Package store keeps the cluster's objects: reads from one cache of immutable objects at a revision, writes as
// single compare-and-put transactions, and watches that deliver every event once and in order.
//
// Invariants: an *Entry and all it holds never change after it was published. Every successful write returns
// after etcd has acknowledged it, and a read that starts afterwards sees it. A watch misses nothing between its
// start revision and ErrCompacted.
//
// Only server and daemon import store; only daemon imports store/etcd. storetest proves any Store.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/skiff-sh/skiff/api"
)

// Codec turns the stored bytes of the keys under one prefix into objects and back.
type Codec interface {
	// Decode makes an object, with its resourceVersion set to rev and its defaults filled in. value is not kept.
	Decode(value []byte, rev int64) (api.Object, error)
	// Encode makes the bytes to store; it leaves the resourceVersion out.
	Encode(obj api.Object) ([]byte, error)
}

// Store is the cluster's state. Keys are full etcd keys ("/registry/pods/default/web").
type Store interface {
	// Register names the codec for all keys under prefix (with its final slash). Keys under no registered prefix
	// are kept in etcd but not decoded. Registering while running (a new CRD) decodes what is there before it
	// returns. Registering a prefix again (a CRD whose schema changed) decodes all anew and ends its watches with
	// ErrCompacted. Unregister forgets the entries; etcd keeps its keys.
	Register(ctx context.Context, prefix string, c Codec) error
	Unregister(prefix string)

	// Revision is etcd's current revision, for a consistent read: WaitFor it, then take a Snapshot.
	Revision(ctx context.Context) (int64, error)
	// WaitFor returns when the cache has reached rev (0: when it has been filled first).
	WaitFor(ctx context.Context, rev int64) error
	// Snapshot is what the cache knows under a registered prefix, at one revision. It takes no lock and may be
	// kept for as long as needed.
	Snapshot(prefix string) Snapshot
	// At reads up to limit (0: all) entries under prefix from key on (inclusive, "" is the prefix itself) as they
	// were at an older revision, and how many more there are. ErrCompacted if etcd no longer has it.
	At(ctx context.Context, prefix, from string, rev int64, limit int) (entries []*Entry, remaining int64, err error)

	// Create stores a new object. ErrExists if the key is taken. ttl is in seconds, 0 is for ever (events have one).
	Create(ctx context.Context, key string, obj api.Object, ttl int64) (*Entry, error)
	// Update replaces the object if its revision is still rev, else returns a *Conflict with what is there now.
	Update(ctx context.Context, key string, rev int64, obj api.Object, ttl int64) (*Entry, error)
	// Delete removes the object if its revision is still rev, else returns a *Conflict. The entry returned
	// is the object's last state with the revision of its deletion.
	Delete(ctx context.Context, key string, rev int64) (*Entry, error)

	// Unreadable is why the value of a key, or of any key under a prefix with its final slash, cannot be read; nil where
	// all can. Snapshots show such a key as it was when it last could be, or not at all.
	Unreadable(place string) error
	// Stale reports whether an equal object would be kept differently if it were written now: its value is encrypted as
	// it is no longer asked for.
	Stale(ctx context.Context, key string) (bool, error)

	// Watch delivers all events under prefix after rev (0: from now on). ErrCompacted if they are no longer all known.
	// The watch ends with its context; a watcher that falls further behind than the event ring is cut off. With an Only, the
	// store may leave out the events of all other objects, so that they cost nothing.
	Watch(ctx context.Context, prefix string, rev int64, only ...Only) (Watch, error)

	// Compact drops history before rev from etcd; watches and At can no longer start there.
	Compact(ctx context.Context, rev int64) error
}

// Only narrows a watch to the objects that have a value, or had it before the change. Of is the same function for all
// of one prefix and Field.
type Only struct {
	Field, Value string
	Of           func(api.Object) string
}

// Snapshot is an immutable ordered view of the entries under one prefix.
type Snapshot interface {
	Revision() int64 // the cache's revision: all events up to it are included
	Len(prefix string) int
	Get(key string) (*Entry, bool)
	// Scan yields the entries whose key starts with prefix and is not less than from, in key order.
	Scan(prefix, from string) iter.Seq[*Entry]
}

// Watch is a stream of events in revision order.
type Watch interface {
	// Next waits for at least one event and returns all that are ready, and the revision up to which the stream is
	// complete. When ctx ends first, it returns ctx's error with that revision (progress, for bookmarks), and the watch
	// can go on. The slice is the caller's until the next call. ErrCompacted: the watcher was too slow.
	Next(ctx context.Context) (events []*Event, rev int64, err error)
	Close()
}

// Event is one change of one key. Events are shared by all watchers.
type Event struct {
	Type EventType
	// Entry is the state after the change; of a deletion, the last state, with the deletion's revision.
	Entry *Entry
	// Prev is the state before the change; nil for a creation.
	Prev *Entry
}

// EventType is what happened to a key.
type EventType int

const (
	Created EventType = iota
	Updated
	Deleted
)

// Entry is one object at one revision.
type Entry struct {
	Key    string
	Rev    int64      // revision of the last change, the object's resourceVersion
	Object api.Object // shared, read-only
	Value  []byte     // as stored in etcd; may be nil where it was not kept
	Budget *Budget    // of the bytes kept beside the object; nil: without bounds
	enc    encodings
	past   atomic.Bool // superseded
}

var (
	ErrExists    = errors.New("the key exists")
	ErrCompacted = errors.New("the revision has been compacted")
	// ErrFuture is for a revision that etcd has not reached.
	ErrFuture = errors.New("the revision is in the future")
	// ErrTooLarge is for an object of more than etcd's 1.5 MiB.
	ErrTooLarge = errors.New("the object is too large for etcd")
	// ErrUnknown: etcd could not be asked, or its answer was lost. The write may have happened, or may happen yet.
	ErrUnknown = errors.New("whether the write has happened is not known")
	// ErrNoSpace: etcd's quota is used up, and only deletions succeed until there is room again.
	ErrNoSpace = errors.New("etcd has no space left")
)

// Conflict says that a key was not at the expected revision. Current is what is there, nil if nothing.
type Conflict struct {
	Key     string
	Want    int64
	Current *Entry
}

func (c *Conflict) Error() string {
	if c.Current == nil {
		return fmt.Sprintf("%s: expected revision %d, but the key does not exist", c.Key, c.Want)
	}
	return fmt.Sprintf("%s: expected revision %d, found %d", c.Key, c.Want, c.Current.Rev)
}
