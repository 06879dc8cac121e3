package codec

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	admissionregistrationv1alpha1 "k8s.io/api/admissionregistration/v1alpha1"
	admissionregistrationv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	batchv1beta1 "k8s.io/api/batch/v1beta1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	discoveryv1beta1 "k8s.io/api/discovery/v1beta1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	flowcontrolv1beta1 "k8s.io/api/flowcontrol/v1beta1"
	flowcontrolv1beta2 "k8s.io/api/flowcontrol/v1beta2"
	flowcontrolv1beta3 "k8s.io/api/flowcontrol/v1beta3"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	nodev1beta1 "k8s.io/api/node/v1beta1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1alpha1 "k8s.io/api/storage/v1alpha1"
	storagev1beta1 "k8s.io/api/storage/v1beta1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsinstall "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	resourcev1beta1 "k8s.io/dynamic-resource-allocation/api/v1beta1"
	apiregistrationv1beta1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1beta1"
	utiljson "sigs.k8s.io/json"

	"github.com/skiff-sh/skiff/api"
)

// Upstream keeps some kinds in a version that it no longer serves by default (CustomResourceDefinition, the mutating
// admission policies), and an object that nobody has written since an earlier release is still in that release's version.

// olderScheme knows the Go types of those versions.
var olderScheme = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	apiextensionsinstall.Install(s)
	for _, add := range []func(*runtime.Scheme) error{
		admissionregistrationv1alpha1.AddToScheme, admissionregistrationv1beta1.AddToScheme, apiregistrationv1beta1.AddToScheme,
		appsv1beta1.AddToScheme, appsv1beta2.AddToScheme, batchv1beta1.AddToScheme, certificatesv1beta1.AddToScheme,
		coordinationv1beta1.AddToScheme, discoveryv1beta1.AddToScheme, extensionsv1beta1.AddToScheme,
		flowcontrolv1beta1.AddToScheme, flowcontrolv1beta2.AddToScheme, flowcontrolv1beta3.AddToScheme,
		networkingv1beta1.AddToScheme, nodev1beta1.AddToScheme, policyv1beta1.AddToScheme, rbacv1beta1.AddToScheme,
		resourcev1.AddToScheme, resourcev1beta1.AddToScheme, resourcev1beta2.AddToScheme, schedulingv1beta1.AddToScheme,
		storagev1alpha1.AddToScheme, storagev1beta1.AddToScheme,
	} {
		utilruntime.Must(add(s))
	}
	return s
})

// decodeOlder makes an object of the codec's row from bytes in another version: protobuf in raw, or, where that is nil,
// JSON.
func (c *Codec) decodeOlder(gvk schema.GroupVersionKind, raw, text []byte) (api.Object, error) {
	if gvk.Kind != c.kind.Kind || gvk.Group != c.kind.Group && gvk.Group != extensionsv1beta1.GroupName {
		return nil, fmt.Errorf("found %s", gvk)
	}
	old, err := olderScheme().New(gvk)
	if err != nil {
		return nil, fmt.Errorf("found %s, a version that is not known", gvk)
	}
	if raw == nil {
		err = utiljson.UnmarshalCaseSensitivePreserveInts(text, old)
	} else if m, ok := old.(interface{ Unmarshal([]byte) error }); ok {
		err = m.Unmarshal(raw)
	} else {
		err = fmt.Errorf("%T has no protobuf form", old)
	}
	if err != nil {
		return nil, err
	}
	hub := c.kind.New()
	if err := upgrade(gvk, old, hub); err != nil {
		return nil, fmt.Errorf("found %s: %w", gvk, err)
	}
	hub.GetObjectKind().SetGroupVersionKind(c.kind.GroupVersionKind())
	return hub, nil
}

// upgrade fills hub with what an older version says. Most versions became stable with their fields as they were; the rest
// is put right one by one.
func upgrade(gvk schema.GroupVersionKind, old runtime.Object, hub api.Object) error {
	s := olderScheme()
	switch {
	case gvk.Group == apiextensions.GroupName: // two steps, as there is a type between the versions
		s.Default(old)
		between := &apiextensions.CustomResourceDefinition{}
		if err := s.Convert(old, between, nil); err != nil {
			return err
		}
		return s.Convert(between, hub, nil)
	case gvk.GroupVersion() == resourceV1beta1:
		return s.Convert(old, hub, nil)
	}
	b, err := json.Marshal(old)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, hub); err != nil {
		return err
	}
	switch hub := hub.(type) {
	case *networkingv1.Ingress:
		before := &networkingv1beta1.Ingress{} // extensions/v1beta1 looks the same
		if err := json.Unmarshal(b, before); err != nil {
			return err
		}
		upgradeIngress(before, hub)
	case *policyv1.PodDisruptionBudget:
		hub.Spec.Selector = upgradeBudgetSelector(hub.Spec.Selector)
	case *discoveryv1.EndpointSlice:
		for i, e := range old.(*discoveryv1beta1.EndpointSlice).Endpoints {
			upgradeTopology(e.Topology, &hub.Endpoints[i])
		}
	case *flowcontrolv1.PriorityLevelConfiguration:
		upgradeShares(old, hub)
	}
	return nil
}

var resourceV1beta1 = schema.GroupVersion{Group: resourcev1.GroupName, Version: "v1beta1"}

func upgradeIngress(old *networkingv1beta1.Ingress, hub *networkingv1.Ingress) {
	backend := func(b *networkingv1beta1.IngressBackend) *networkingv1.IngressBackend {
		if b == nil {
			return nil
		}
		out := &networkingv1.IngressBackend{Resource: b.Resource}
		if b.ServiceName != "" || b.ServicePort.StrVal != "" || b.ServicePort.IntVal != 0 {
			out.Service = &networkingv1.IngressServiceBackend{Name: b.ServiceName,
				Port: networkingv1.ServiceBackendPort{Name: b.ServicePort.StrVal, Number: b.ServicePort.IntVal}}
		}
		return out
	}
	hub.Spec.DefaultBackend = backend(old.Spec.Backend)
	for i, r := range old.Spec.Rules {
		if r.HTTP == nil {
			continue
		}
		for j, p := range r.HTTP.Paths {
			to := &hub.Spec.Rules[i].HTTP.Paths[j]
			to.Backend = *backend(&p.Backend)
			if to.PathType == nil {
				implementation := networkingv1.PathTypeImplementationSpecific
				to.PathType = &implementation
			}
		}
	}
}

// budgetLabel is in the selectors of budgets whose empty selector means the opposite in the other version.
const budgetLabel = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match"

// upgradeBudgetSelector keeps what a selector of policy/v1beta1 matched, where an empty one matched nothing.
func upgradeBudgetSelector(old *metav1.LabelSelector) *metav1.LabelSelector {
	if old == nil {
		return nil
	}
	only := func(op metav1.LabelSelectorOperator) bool {
		return len(old.MatchLabels) == 0 && len(old.MatchExpressions) == 1 && old.MatchExpressions[0].Key == budgetLabel &&
			old.MatchExpressions[0].Operator == op
	}
	switch {
	case len(old.MatchLabels) == 0 && len(old.MatchExpressions) == 0:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: budgetLabel, Operator: metav1.LabelSelectorOpExists}}}
	case only(metav1.LabelSelectorOpDoesNotExist):
		return &metav1.LabelSelector{}
	}
	old.MatchExpressions = slices.DeleteFunc(old.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool { return r.Key == budgetLabel })
	return old
}

// upgradeTopology spreads the labels that an endpoint had in discovery.k8s.io/v1beta1 over the fields of v1.
func upgradeTopology(old map[string]string, e *discoveryv1.Endpoint) {
	rest := maps.Clone(old)
	if zone, ok := rest[corev1.LabelTopologyZone]; ok {
		e.Zone = &zone
		delete(rest, corev1.LabelTopologyZone)
	}
	if host, ok := rest[corev1.LabelHostname]; ok && e.NodeName != nil && *e.NodeName == host {
		delete(rest, corev1.LabelHostname)
	}
	if len(rest) > 0 {
		e.DeprecatedTopology = rest
	}
}

// upgradeShares takes over a level's shares: under another name, or where no shares at all were told by an annotation.
func upgradeShares(old runtime.Object, hub *flowcontrolv1.PriorityLevelConfiguration) {
	var shares int32
	switch old := old.(type) {
	case *flowcontrolv1beta1.PriorityLevelConfiguration:
		if old.Spec.Limited != nil {
			shares = old.Spec.Limited.AssuredConcurrencyShares
		}
	case *flowcontrolv1beta2.PriorityLevelConfiguration:
		if old.Spec.Limited != nil {
			shares = old.Spec.Limited.AssuredConcurrencyShares
		}
	case *flowcontrolv1beta3.PriorityLevelConfiguration:
		if old.Spec.Limited != nil {
			shares = old.Spec.Limited.NominalConcurrencyShares
		}
	}
	_, none := hub.Annotations[flowcontrolv1beta3.PriorityLevelPreserveZeroConcurrencySharesKey]
	delete(hub.Annotations, flowcontrolv1beta3.PriorityLevelPreserveZeroConcurrencySharesKey)
	if hub.Spec.Limited != nil {
		hub.Spec.Limited.NominalConcurrencyShares = nil
		if shares > 0 || none {
			hub.Spec.Limited.NominalConcurrencyShares = &shares
		}
	}
}
