package bootstrap

//lint:file-ignore SA1019 clients still read the Endpoints of the API server

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
)

// apiService is the name of the API server's own Service, in the namespace default.
const apiService = "kubernetes"

// ServiceCIDR makes sure of the ServiceCIDR "kubernetes", the range that the servers were started with.
func ServiceCIDR(ctx context.Context, c Client, cidrs ...netip.Prefix) error {
	o := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: apiService, Finalizers: []string{"networking.k8s.io/service-cidr-finalizer"}}}
	for _, p := range cidrs {
		o.Spec.CIDRs = append(o.Spec.CIDRs, p.String())
	}
	have, err := getOrCreate(ctx, c, o)
	if err != nil {
		return err
	}
	got := have.(*networkingv1.ServiceCIDR)
	for _, cond := range got.Status.Conditions {
		if cond.Type == networkingv1.ServiceCIDRConditionReady {
			return nil
		}
	}
	got = got.DeepCopy()
	got.Status.Conditions = append(got.Status.Conditions, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		Reason: "Ready", Message: "Kubernetes Service CIDR is ready", LastTransitionTime: metav1.Now()})
	return write(ctx, c, got, "status")
}

// KubernetesService makes sure of the Service, the Endpoints and the EndpointSlice "kubernetes" in the namespace
// default: clusterIP (port 443) leads to the API servers at addrs and port. Addresses of another family than the first
// one's are left out.
func KubernetesService(ctx context.Context, c Client, clusterIP netip.Addr, addrs []netip.Addr, port int) error {
	single, cluster, none := corev1.IPFamilyPolicySingleStack, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceAffinityNone
	family := corev1.IPv4Protocol
	if clusterIP.Is6() {
		family = corev1.IPv6Protocol
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: apiService,
			Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP.String(), ClusterIPs: []string{clusterIP.String()},
			IPFamilies: []corev1.IPFamily{family}, IPFamilyPolicy: &single, InternalTrafficPolicy: &cluster, SessionAffinity: none,
			Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(int32(port))}}}}
	have, err := getOrCreate(ctx, c, svc)
	if err != nil {
		return err
	}
	if got := have.(*corev1.Service); !equality.Semantic.DeepEqual(got.Spec.Ports, svc.Spec.Ports) {
		got = got.DeepCopy()
		got.Spec.Ports = svc.Spec.Ports
		if err := write(ctx, c, got, ""); err != nil {
			return err
		}
	}

	p, name, proto, ready := int32(port), "https", corev1.ProtocolTCP, true
	var addresses []corev1.EndpointAddress
	var endpoints []discoveryv1.Endpoint
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			addresses = append(addresses, corev1.EndpointAddress{IP: a.String()})
			endpoints = append(endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		}
	}
	ep := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: apiService,
			Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets: []corev1.EndpointSubset{{Addresses: addresses,
			Ports: []corev1.EndpointPort{{Name: name, Port: p, Protocol: proto}}}}}
	if have, err = getOrCreate(ctx, c, ep); err != nil {
		return err
	}
	if got := have.(*corev1.Endpoints); !equality.Semantic.DeepEqual(got.Subsets, ep.Subsets) {
		got = got.DeepCopy()
		got.Subsets = ep.Subsets
		if err := write(ctx, c, got, ""); err != nil {
			return err
		}
	}

	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: apiService,
			Labels: map[string]string{discoveryv1.LabelServiceName: apiService}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &p, Protocol: &proto}}}
	if len(addrs) > 0 && addrs[0].Is6() {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	if have, err = getOrCreate(ctx, c, slice); err != nil {
		return err
	}
	if got := have.(*discoveryv1.EndpointSlice); !equality.Semantic.DeepEqual(got.Endpoints, slice.Endpoints) || !equality.Semantic.DeepEqual(got.Ports, slice.Ports) {
		got = got.DeepCopy()
		got.Endpoints, got.Ports = slice.Endpoints, slice.Ports
		return write(ctx, c, got, "")
	}
	return nil
}

// FrontProxy is how extension API servers know the aggregating API server.
type FrontProxy struct {
	CA           []byte   // PEM
	AllowedNames []string // of the client certificate
	// Names of the headers that say who the user is. None: X-Remote-User, X-Remote-Uid, X-Remote-Group and X-Remote-Extra-.
	UserHeaders, UIDHeaders, GroupHeaders, ExtraPrefixes []string
}

// Authentication publishes, for extension API servers, who signs client certificates and how the API server proxies to
// them: the ConfigMap kube-system/extension-apiserver-authentication.
func Authentication(ctx context.Context, c Client, clientCA []byte, proxy *FrontProxy) error {
	data := map[string]string{}
	if len(clientCA) > 0 {
		data["client-ca-file"] = string(clientCA)
	}
	if proxy != nil {
		names := proxy.AllowedNames
		if names == nil {
			names = []string{}
		}
		or := func(headers []string, d string) []string {
			if len(headers) == 0 {
				return []string{d}
			}
			return headers
		}
		for k, v := range map[string][]string{"requestheader-allowed-names": names,
			"requestheader-username-headers": or(proxy.UserHeaders, "X-Remote-User"), "requestheader-uid-headers": or(proxy.UIDHeaders, "X-Remote-Uid"),
			"requestheader-group-headers": or(proxy.GroupHeaders, "X-Remote-Group"), "requestheader-extra-headers-prefix": or(proxy.ExtraPrefixes, "X-Remote-Extra-")} {
			b, err := json.Marshal(v)
			if err != nil {
				return err
			}
			data[k] = string(b)
		}
		data["requestheader-client-ca-file"] = string(proxy.CA)
	}
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "extension-apiserver-authentication"}, Data: data}
	have, err := getOrCreate(ctx, c, want)
	if err != nil {
		return err
	}
	if got := have.(*corev1.ConfigMap); !maps.Equal(got.Data, data) {
		got = got.DeepCopy()
		got.Data = data
		return write(ctx, c, got, "")
	}
	return nil
}

// LegacyTokenTracking makes sure of the ConfigMap that tells since when (a date, UTC) the use of tokens in Secrets is
// tracked. Who cleans them up waits for as long after that day.
func LegacyTokenTracking(ctx context.Context, c Client, now time.Time) error {
	_, err := getOrCreate(ctx, c, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-apiserver-legacy-service-account-token-tracking"},
		Data:       map[string]string{"since": now.UTC().Format(time.DateOnly)}})
	return err
}

// getOrCreate returns what is there, or what the server made of want.
func getOrCreate(ctx context.Context, c Client, want api.Object) (api.Object, error) {
	k, _ := builtin.Table().Of(want)
	for {
		have, err := c.Get(ctx, k, want.GetNamespace(), want.GetName(), metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return have, err
		}
		if have, err = c.Create(ctx, k, want, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
			return have, err
		}
	}
}

// write updates an object; when somebody else was faster, theirs stands until the next time.
func write(ctx context.Context, c Client, o api.Object, subresource string) error {
	k, _ := builtin.Table().Of(o)
	if _, err := c.Update(ctx, k, o, subresource, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
		return err
	}
	return nil
}
