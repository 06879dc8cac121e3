package node

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestHostPortsAreTakenOnce(t *testing.T) {
	pod := func(uid, ip string, protocol corev1.Protocol, port int32) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}, Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Ports: []corev1.ContainerPort{{ContainerPort: 80, HostIP: ip, Protocol: protocol, HostPort: port}}}}}}
	}
	m := newAdmitter(10)
	m.ports["a"] = hostPortsOf(pod("a", "127.0.0.1", corev1.ProtocolTCP, 80))
	for _, test := range []struct {
		pod  *corev1.Pod
		want bool
	}{
		{pod("b", "127.0.0.1", corev1.ProtocolTCP, 80), true},
		{pod("b", "", "", 80), true},
		{pod("b", "127.0.0.2", corev1.ProtocolTCP, 80), false},
		{pod("b", "127.0.0.1", corev1.ProtocolUDP, 80), false},
		{pod("b", "127.0.0.1", corev1.ProtocolTCP, 81), false},
		{pod("b", "", corev1.ProtocolTCP, 0), false},
	} {
		if got := m.taken(hostPortsOf(test.pod)); got != test.want {
			t.Errorf("%v is taken: %v, want %v", test.pod.Spec.Containers[0].Ports, got, test.want)
		}
	}
	m.release("a")
	if m.taken(hostPortsOf(pod("b", "", "", 80))) {
		t.Error("still taken after the pod was counted out")
	}
}
