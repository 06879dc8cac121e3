package status

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestExtendedResourcesStay: what others say the node has is not the agent's to take away.
func TestExtendedResourcesStay(t *testing.T) {
	five := resource.MustParse("5")
	old := corev1.NodeStatus{Capacity: corev1.ResourceList{"example.com/dongle": five, corev1.ResourceCPU: five}}
	got := Node(Input{Host: Host{CPUs: 2}, Old: &old})
	for what, l := range map[string]corev1.ResourceList{"capacity": got.Capacity, "allocatable": got.Allocatable} {
		if n := l["example.com/dongle"]; n.Cmp(five) != 0 {
			t.Errorf("%s has %s dongles, want 5", what, n.String())
		}
		if n := l.Cpu(); n.Value() != 2 {
			t.Errorf("%s has %s cpus, want the machine's 2", what, n)
		}
	}
}
