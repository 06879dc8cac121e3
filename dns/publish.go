package dns

import (
	"context"
	"net/netip"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-sh/skiff/client"
)

// ServiceName is the service in kube-system by which the cluster's name servers are found, as everywhere.
const ServiceName = "kube-dns"

// publish keeps the service, and this node's endpoint of it, until ctx ends.
func (s *Server) publish(ctx context.Context, addr netip.Addr) {
	const first = 50 * time.Millisecond
	delay := first
	for ctx.Err() == nil {
		err := s.ensureService(ctx)
		if err == nil {
			err = s.ensureSlice(ctx, addr)
		}
		var retry <-chan time.Time
		if err == nil {
			delay = first
		} else {
			s.cfg.Log.Warn("the name server's service cannot be written; it is tried again", "error", err)
			retry = time.After(delay)
			delay = min(2*delay, 30*time.Second)
		}
		select {
		case <-ctx.Done():
		case <-retry:
		case <-s.touched:
		}
	}
}

func (s *Server) sliceName() string { return ServiceName + "-" + s.cfg.NodeName }

func (s *Server) ensureService(ctx context.Context) error {
	if _, ok := s.svcs.Get(metav1.NamespaceSystem, ServiceName); ok {
		return nil
	}
	local := corev1.ServiceInternalTrafficPolicyCluster
	_, err := client.Create(ctx, s.cfg.Client, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: ServiceName, Labels: map[string]string{
			"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
		Spec: corev1.ServiceSpec{ClusterIP: s.cfg.ServiceIP.String(), InternalTrafficPolicy: &local, Ports: []corev1.ServicePort{
			{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
			{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: intstr.FromInt32(53)}}},
	})
	if apierrors.IsAlreadyExists(err) {
		return nil // another node was first
	}
	return err
}

func (s *Server) ensureSlice(ctx context.Context, addr netip.Addr) error {
	ready, port, udp, tcp := true, int32(53), corev1.ProtocolUDP, corev1.ProtocolTCP
	udpName, tcpName := "dns", "dns-tcp"
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: s.sliceName(), Labels: map[string]string{
			discoveryv1.LabelServiceName: ServiceName, discoveryv1.LabelManagedBy: "dns.skiff.dev"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr.String()}, NodeName: &s.cfg.NodeName,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready}}},
		Ports: []discoveryv1.EndpointPort{{Name: &udpName, Port: &port, Protocol: &udp}, {Name: &tcpName, Port: &port, Protocol: &tcp}},
	}
	if node, ok := s.nodes.Get("", s.cfg.NodeName); ok { // the endpoint goes with the node
		want.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	}
	have, ok := s.slices.Get(want.Namespace, want.Name)
	if !ok {
		_, err := client.Create(ctx, s.cfg.Client, want)
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		if have, err = client.Get[*discoveryv1.EndpointSlice](ctx, s.cfg.Client, want.Namespace, want.Name); err != nil {
			return err
		}
	}
	if reflect.DeepEqual(have.Endpoints, want.Endpoints) && reflect.DeepEqual(have.Ports, want.Ports) && reflect.DeepEqual(have.OwnerReferences, want.OwnerReferences) {
		return nil
	}
	next := have.DeepCopy()
	next.Endpoints, next.Ports, next.OwnerReferences = want.Endpoints, want.Ports, want.OwnerReferences
	_, err := client.Update(ctx, s.cfg.Client, next)
	return err
}
