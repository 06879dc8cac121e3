package callout

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/server/internal/memstore"
)

func TestServiceEndpoint(t *testing.T) {
	slice := func(name string, ready bool, ip string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Labels: map[string]string{"kubernetes.io/service-name": "s"}},
			Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("web"), Port: ptr.To[int32](8443)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}}
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 443}}}}
	st := memstore.New(svc, slice("s-1", false, "10.0.0.1"))
	for _, c := range []struct {
		name string
		port int32
		want string
	}{{"s", 443, `no endpoints available for service "s"`}, {"none", 443, `service "none" not found`}, {"s", 80, "no service port 80 found"}} {
		if _, err := Endpoint(st, "a", c.name, c.port); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:%d: %v", c.name, c.port, err)
		}
	}
	st.Put(slice("s-2", true, "10.0.0.2"))
	if a, err := Endpoint(st, "a", "s", 443); err != nil || a != "10.0.0.2:8443" {
		t.Errorf("got %s, %v", a, err)
	}
}
