package node

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestResultsComeBeforeThePod: the pod that a status write brings is the one that the next step looks at. Else the status
// would be compared with what the API had before, and a condition that was to go would stay for ever.
func TestResultsComeBeforeThePod(t *testing.T) {
	pod := func(rv string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", ResourceVersion: rv}}
	}
	w := newWorker(&Agent{}, pod("1"), false)
	w.take()
	w.tell(func() { w.desire(pod("2"), false) })
	news, got, _ := w.take()
	if got.ResourceVersion != "2" {
		t.Errorf("the pod is of revision %s", got.ResourceVersion)
	}
	if news&wakeRuntime == 0 || news&wakeDesired == 0 {
		t.Errorf("news %b", news)
	}
}
