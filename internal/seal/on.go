//go:build sealed

package seal

import (
	"encoding/json"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
)

// Set holds the seals of some shared objects.
type Set struct {
	objects sync.Map // runtime.Object -> its JSON
}

// Add seals an object that is shared from now on.
func (s *Set) Add(o runtime.Object) { s.objects.Store(o, text(o)) }

// Check panics if a sealed object was changed.
func (s *Set) Check(o runtime.Object) {
	if before, ok := s.objects.Load(o); ok && before != text(o) {
		panic(fmt.Sprintf("somebody changed a shared object\nfrom %s\nto   %s", before, text(o)))
	}
}

// Remove checks an object for the last time.
func (s *Set) Remove(o runtime.Object) {
	s.Check(o)
	s.objects.Delete(o)
}

// CheckAll checks all objects that were not removed.
func (s *Set) CheckAll() {
	s.objects.Range(func(o, _ any) bool {
		s.Check(o.(runtime.Object))
		return true
	})
}

func text(o runtime.Object) string {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(b)
}
