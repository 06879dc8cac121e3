package etcd

import (
	"strings"
	"sync"
	"sync/atomic"
)

// faults are the keys whose present values cannot be read (a lost encryption key, a damaged value), and why. There are
// hardly ever any. It is safe for concurrent use.
type faults struct {
	some atomic.Bool
	mu   sync.Mutex
	why  map[string]error
}

// note says why a key's value cannot be read; nil: it can, or is gone.
func (f *faults) note(key string, err error) {
	if err == nil && !f.some.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.why, key)
	} else {
		if f.why == nil {
			f.why = map[string]error{}
		}
		f.why[key] = err
	}
	f.some.Store(len(f.why) > 0)
}

// forget drops all that is known of keys under a prefix.
func (f *faults) forget(prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.why {
		if strings.HasPrefix(key, prefix) {
			delete(f.why, key)
		}
	}
	f.some.Store(len(f.why) > 0)
}

// at is the fault of a key, or of any key under a prefix with its final slash.
func (f *faults) at(place string) error {
	if !f.some.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, err := range f.why {
		if key == place || strings.HasSuffix(place, "/") && strings.HasPrefix(key, place) {
			return err
		}
	}
	return nil
}

// Unreadable implements store.Store.
func (s *Store) Unreadable(place string) error { return s.faults.at(place) }
