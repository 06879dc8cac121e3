package crd

import (
	"runtime"
	"sync"
	"weak"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// memo keeps something beside objects of the store for as long as those live. Only objects that never change may be keys.
type memo[V any] struct {
	mu     sync.Mutex
	values map[memoKey]V
}

type memoKey struct {
	object  weak.Pointer[unstructured.Unstructured]
	version string
}

func (m *memo[V]) get(u *unstructured.Unstructured, version string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[memoKey{weak.Make(u), version}]
	return v, ok
}

// claim returns what is kept, or keeps what make returns; mine tells that it did.
func (m *memo[V]) claim(u *unstructured.Unstructured, version string, make func() V) (v V, mine bool) {
	key := memoKey{weak.Make(u), version}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.values[key]; ok {
		return v, false
	}
	if m.values == nil {
		m.values = map[memoKey]V{}
	}
	v = make()
	m.values[key] = v
	runtime.AddCleanup(u, m.forget, key)
	return v, true
}

func (m *memo[V]) drop(u *unstructured.Unstructured, version string) {
	m.forget(memoKey{weak.Make(u), version})
}

func (m *memo[V]) forget(key memoKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
}
