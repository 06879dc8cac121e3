package bootstrap

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/internal/memstore"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// counting is a client over a store that counts its writes.
type counting struct {
	st     *memstore.Store
	writes int
	lists  int
}

func (c *counting) Get(_ context.Context, k *api.Kind, ns, name string, _ metav1.GetOptions) (api.Object, error) {
	if e, ok := c.st.Snapshot("").Get(k.Key(ns, name)); ok {
		return e.Object, nil
	}
	return nil, apierrors.NewNotFound(k.GroupResource(), name)
}

func (c *counting) List(_ context.Context, k *api.Kind, ns string, _ metav1.ListOptions) ([]api.Object, metav1.ListMeta, error) {
	c.lists++
	var out []api.Object
	for e := range c.st.Snapshot("").Scan(k.Prefix(ns), "") {
		out = append(out, e.Object)
	}
	return out, metav1.ListMeta{}, nil
}

func (c *counting) Create(ctx context.Context, k *api.Kind, o api.Object, _ metav1.CreateOptions) (api.Object, error) {
	c.writes++
	e, err := c.st.Create(ctx, k.Key(o.GetNamespace(), o.GetName()), o, 0)
	if errors.Is(err, store.ErrExists) {
		return nil, apierrors.NewAlreadyExists(k.GroupResource(), o.GetName())
	}
	return e.Object, err
}

func (c *counting) Update(_ context.Context, _ *api.Kind, o api.Object, _ string, _ metav1.UpdateOptions) (api.Object, error) {
	c.writes++
	return c.st.Put(o), nil
}

func TestRoles(t *testing.T) {
	count := map[string]int{}
	names := map[string]bool{}
	for _, o := range parsedRoles() {
		kind := strings.TrimPrefix(reflect.TypeOf(o).String(), "*v1.")
		if id := kind + " " + o.GetNamespace() + "/" + o.GetName(); names[id] {
			t.Errorf("twice: %s", id)
		} else {
			names[id] = true
		}
		if !strings.Contains(o.GetName(), "skiff") {
			count[kind]++
		}
		if o.GetLabels()["kubernetes.io/bootstrapping"] != "rbac-defaults" || o.GetAnnotations()["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
			t.Errorf("%s: %v %v", o.GetName(), o.GetLabels(), o.GetAnnotations())
		}
	}
	if count["Role"] != 7 || count["RoleBinding"] != 7 || count["ClusterRole"] != 32+37 || count["ClusterRoleBinding"] != 13+37 {
		t.Errorf("%v", count)
	}
	for _, n := range []string{"ClusterRole /system:controller:root-ca-cert-publisher", "ClusterRoleBinding /system:controller:node-controller",
		"RoleBinding kube-system/system::extension-apiserver-authentication-reader", "ClusterRoleBinding /system:node", "ClusterRole /system:service-account-issuer-discovery"} {
		if !names[n] {
			t.Errorf("%s is missing", n)
		}
	}
}

func TestRoleContents(t *testing.T) {
	byName := map[string]api.Object{}
	for _, o := range parsedRoles() {
		byName[strings.TrimPrefix(reflect.TypeOf(o).String(), "*v1.")+" "+o.GetName()] = o
	}
	proxier := byName["ClusterRole system:kube-dns"].(*rbacv1.ClusterRole)
	if want := []rbacv1.PolicyRule{{Verbs: []string{"list", "watch"}, APIGroups: []string{""}, Resources: []string{"endpoints", "services"}}}; !reflect.DeepEqual(proxier.Rules, want) {
		t.Errorf("%v", proxier.Rules)
	}
	signer := byName["ClusterRole system:certificates.k8s.io:kubelet-serving-approver"].(*rbacv1.ClusterRole)
	if want := []rbacv1.PolicyRule{{Verbs: []string{"approve"}, APIGroups: []string{"certificates.k8s.io"}, Resources: []string{"signers"},
		ResourceNames: []string{"kubernetes.io/kubelet-serving"}}}; !reflect.DeepEqual(signer.Rules, want) {
		t.Errorf("%v", signer.Rules)
	}
	b := byName["RoleBinding system::leader-locking-kube-scheduler"].(*rbacv1.RoleBinding)
	if want := []rbacv1.Subject{{APIGroup: "rbac.authorization.k8s.io", Kind: "User", Name: "system:kube-scheduler"},
		{Kind: "ServiceAccount", Namespace: "kube-system", Name: "kube-scheduler"}}; !reflect.DeepEqual(b.Subjects, want) || b.RoleRef.Kind != "Role" {
		t.Errorf("%v", b)
	}
	admin, edit, view := byName["ClusterRole admin"].(*rbacv1.ClusterRole), byName["ClusterRole edit"].(*rbacv1.ClusterRole), byName["ClusterRole view"].(*rbacv1.ClusterRole)
	if len(view.Rules) == 0 || len(edit.Rules) <= len(view.Rules) || len(admin.Rules) <= len(edit.Rules) {
		t.Errorf("aggregated: admin %d, edit %d, view %d", len(admin.Rules), len(edit.Rules), len(view.Rules))
	}
	if edit.Labels["rbac.authorization.k8s.io/aggregate-to-admin"] != "true" || admin.AggregationRule.ClusterRoleSelectors[0].MatchLabels["rbac.authorization.k8s.io/aggregate-to-admin"] != "true" {
		t.Error("aggregation labels")
	}
	grants := func(r *rbacv1.ClusterRole, verb, resource string) bool {
		return slices.ContainsFunc(r.Rules, func(p rbacv1.PolicyRule) bool {
			return slices.Contains(p.Verbs, verb) && slices.Contains(p.Resources, resource)
		})
	}
	if grants(view, "get", "secrets") || !grants(edit, "get", "secrets") || grants(edit, "create", "rolebindings") || !grants(admin, "create", "rolebindings") {
		t.Error("view, edit and admin do not differ as they should")
	}
}

func TestEnsure(t *testing.T) {
	c := &counting{st: memstore.New()}
	if err := Ensure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if c.writes != len(Objects()) || c.lists != 6 {
		t.Errorf("%d writes for %d objects, %d lists", c.writes, len(Objects()), c.lists)
	}
	c.writes = 0
	if err := Ensure(t.Context(), c); err != nil || c.writes != 0 {
		t.Errorf("the second start wrote %d times: %v", c.writes, err)
	}

	broken, _ := read.Get[*rbacv1.ClusterRole](c.st, "", "system:kube-scheduler")
	broken = broken.DeepCopy()
	broken.Rules, broken.Labels = broken.Rules[3:], nil
	broken.Rules = append(broken.Rules, rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"x"}, Resources: []string{"extra"}})
	c.st.Put(broken)
	unbound, _ := read.Get[*rbacv1.ClusterRoleBinding](c.st, "", "cluster-admin")
	unbound = unbound.DeepCopy()
	unbound.Subjects = nil
	c.st.Put(unbound)
	own, _ := read.Get[*rbacv1.ClusterRole](c.st, "", "system:discovery")
	own = own.DeepCopy()
	own.Rules, own.Annotations = nil, map[string]string{"rbac.authorization.kubernetes.io/autoupdate": "false"}
	c.st.Put(own)
	if err := Ensure(t.Context(), c); err != nil || c.writes != 2 {
		t.Errorf("%d writes: %v", c.writes, err)
	}
	fixed, _ := read.Get[*rbacv1.ClusterRole](c.st, "", "system:kube-scheduler")
	if _, changed := withRules(fixed.Rules, broken.Rules); changed || fixed.Labels["kubernetes.io/bootstrapping"] == "" || len(fixed.Rules) <= len(broken.Rules) {
		t.Errorf("not repaired: %v", fixed)
	}
	if kept, _ := read.Get[*rbacv1.ClusterRole](c.st, "", "system:discovery"); len(kept.Rules) != 0 {
		t.Error("a role that is not to be updated was")
	}
}

func TestKubernetesService(t *testing.T) {
	c := &counting{st: memstore.New()}
	ip, addr := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("192.168.1.5")
	for i, want := range []int{3, 0} {
		c.writes = 0
		if err := KubernetesService(t.Context(), c, ip, []netip.Addr{addr}, 6443); err != nil || c.writes != want {
			t.Errorf("run %d: %d writes, %v", i, c.writes, err)
		}
	}
	c.writes = 0
	if err := KubernetesService(t.Context(), c, ip, []netip.Addr{netip.MustParseAddr("192.168.1.6")}, 6443); err != nil || c.writes != 2 {
		t.Errorf("a new address: %d writes, %v", c.writes, err)
	}
	slice, _ := read.Get[*discoveryv1.EndpointSlice](c.st, "default", "kubernetes")
	svc, _ := read.Get[*corev1.Service](c.st, "default", "kubernetes")
	if slice.Endpoints[0].Addresses[0] != "192.168.1.6" || *slice.Ports[0].Port != 6443 || svc.Spec.ClusterIP != "10.96.0.1" || svc.Spec.Ports[0].TargetPort.IntValue() != 6443 {
		t.Errorf("%v %v", slice, svc)
	}
}

func TestAuthenticationAndServiceCIDR(t *testing.T) {
	c := &counting{st: memstore.New()}
	for range 2 {
		if err := Authentication(t.Context(), c, []byte("PEM"), &FrontProxy{CA: []byte("P2"), AllowedNames: []string{"front-proxy-client"}}); err != nil {
			t.Fatal(err)
		}
		if err := ServiceCIDR(t.Context(), c, netip.MustParsePrefix("10.96.0.0/16")); err != nil {
			t.Fatal(err)
		}
	}
	cm, _ := read.Get[*corev1.ConfigMap](c.st, "kube-system", "extension-apiserver-authentication")
	if cm.Data["client-ca-file"] != "PEM" || cm.Data["requestheader-allowed-names"] != `["front-proxy-client"]` || len(cm.Data) != 7 {
		t.Errorf("%v", cm.Data)
	}
	if c.writes != 3 {
		t.Errorf("%d writes", c.writes)
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{"  core: pods => get", "ClusterRole x\n  core pods get", "ClusterRole x\n  pods => get", "ClusterRole x\n  bind: Group", "ClusterRole"} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
