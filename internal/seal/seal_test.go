//go:build sealed

package seal_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/internal/seal"
)

func TestChangeIsFound(t *testing.T) {
	var s seal.Set
	good, bad := &corev1.Pod{}, &corev1.Pod{}
	s.Add(good)
	s.Add(bad)
	s.CheckAll()
	bad.Name = "changed"
	s.Remove(good)
	defer func() {
		if recover() == nil {
			t.Error("the change was not found")
		}
	}()
	s.CheckAll()
}
