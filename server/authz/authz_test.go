package authz

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/internal/memstore"
)

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: strings.Split(groups, ","), Resources: strings.Fields(resources), ResourceNames: names}
}

func ref(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func clusterBinding(name, role string, s ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: ref("ClusterRole", role), Subjects: s}
}

func binding(ns, name, kind, role string, s ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, RoleRef: ref(kind, role), Subjects: s}
}

func group(n string) rbacv1.Subject { return rbacv1.Subject{Kind: "Group", Name: n} }
func usr(n string) rbacv1.Subject   { return rbacv1.Subject{Kind: "User", Name: n} }
func account(ns, n string) rbacv1.Subject {
	return rbacv1.Subject{Kind: "ServiceAccount", Namespace: ns, Name: n}
}

// ask reads "verb group/resource/sub namespace/name" or "verb /path".
func ask(u user.Info, s string) authorizer.AttributesRecord {
	f := strings.Fields(s)
	if strings.HasPrefix(f[1], "/") {
		return authorizer.AttributesRecord{User: u, Verb: f[0], Path: f[1]}
	}
	r := strings.SplitN(f[1], "/", 3)
	a := authorizer.AttributesRecord{User: u, Verb: f[0], ResourceRequest: true, Resource: r[1], APIVersion: "v1"}
	if r[0] != "core" {
		a.APIGroup = r[0]
	}
	if len(r) == 3 {
		a.Subresource = r[2]
	}
	if len(f) > 2 {
		a.Namespace, a.Name, _ = strings.Cut(f[2], "/")
	}
	return a
}

// started runs an authorizer on the objects; it must be in a synctest bubble, whose Wait lets it see later changes.
func started(t testing.TB, objs ...api.Object) (*Authorizer, *memstore.Store) {
	st := memstore.New(objs...)
	a := New(st)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a, st
}

func policy() []api.Object {
	return []api.Object{
		clusterRole("all", rule("*", "*", "*"), rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}),
		clusterRole("pods", rule("get list", "", "pods pods/log")),
		clusterRole("scale", rule("update", "*", "*/scale")),
		clusterRole("one", rule("get update", "", "configmaps", "mine")),
		clusterRole("urls", rbacv1.PolicyRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/api/*"}}),
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "secrets"}, Rules: []rbacv1.PolicyRule{rule("get", "", "secrets")}},
		clusterBinding("root", "all", group("roots")),
		clusterBinding("everybody", "urls", group("system:authenticated")),
		clusterBinding("scalers", "scale", account("kube-system", "hpa")),
		binding("a", "pods", "ClusterRole", "pods", usr("ann"), account("", "builder")),
		binding("a", "secrets", "Role", "secrets", usr("ann")),
		binding("b", "one", "ClusterRole", "one", usr("ann")),
		binding("c", "lost", "Role", "nowhere", usr("ann")),
	}
}

func TestRBAC(t *testing.T) {
	ann := &user.DefaultInfo{Name: "ann", Groups: []string{"system:authenticated"}}
	root := &user.DefaultInfo{Name: "bob", Groups: []string{"roots"}}
	hpa := &user.DefaultInfo{Name: "system:serviceaccount:kube-system:hpa"}
	builder := &user.DefaultInfo{Name: "system:serviceaccount:a:builder"}
	master := &user.DefaultInfo{Name: "m", Groups: []string{"system:masters"}}
	for _, c := range []struct {
		u      user.Info
		ask    string
		allow  bool
		reason string
	}{
		{ann, "get core/pods a/x", true, `RBAC: allowed by RoleBinding "pods/a" of ClusterRole "pods" to User "ann"`},
		{ann, "get core/pods/log a/x", true, `RBAC: allowed by RoleBinding "pods/a" of ClusterRole "pods" to User "ann"`},
		{ann, "get core/pods/exec a/x", false, ""},
		{ann, "delete core/pods a/x", false, ""},
		{ann, "get core/pods b/x", false, ""},
		{ann, "list core/pods", false, ""},
		{ann, "get apps/pods a/x", false, ""},
		{ann, "get core/secrets a/x", true, `RBAC: allowed by RoleBinding "secrets/a" of Role "secrets" to User "ann"`},
		{ann, "get core/configmaps b/mine", true, `RBAC: allowed by RoleBinding "one/b" of ClusterRole "one" to User "ann"`},
		{ann, "get core/configmaps b/yours", false, ""},
		{ann, "list core/configmaps b/", false, ""},
		{ann, "get core/configmaps c/x", false, `RBAC: role.rbac.authorization.k8s.io "nowhere" not found`},
		{ann, "get /healthz", true, `RBAC: allowed by ClusterRoleBinding "everybody" of ClusterRole "urls" to Group "system:authenticated"`},
		{ann, "get /api/v1", true, `RBAC: allowed by ClusterRoleBinding "everybody" of ClusterRole "urls" to Group "system:authenticated"`},
		{ann, "get /apis", false, ""},
		{ann, "post /healthz", false, ""},
		{root, "impersonate core/users x", true, `RBAC: allowed by ClusterRoleBinding "root" of ClusterRole "all" to Group "roots"`},
		{root, "put /anything", true, `RBAC: allowed by ClusterRoleBinding "root" of ClusterRole "all" to Group "roots"`},
		{hpa, "update apps/deployments/scale x/y", true, `RBAC: allowed by ClusterRoleBinding "scalers" of ClusterRole "scale" to ServiceAccount "hpa/kube-system"`},
		{hpa, "update apps/deployments x/y", false, ""},
		{hpa, "update apps/deployments/autoscale x/y", false, ""},
		{builder, "list core/pods a/", true, `RBAC: allowed by RoleBinding "pods/a" of ClusterRole "pods" to ServiceAccount "builder/a"`},
		{master, "get core/secrets kube-system/x", true, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _ := started(t, policy()...)
			synctest.Wait()
			d, reason, err := a.Authorize(t.Context(), ask(c.u, c.ask))
			if (d == authorizer.DecisionAllow) != c.allow || reason != c.reason || err != nil {
				t.Errorf("%s: %s: %v %q %v", c.u.GetName(), c.ask, d, reason, err)
			}
		})
	}
}

func TestIndexFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, st := started(t)
		if err := a.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		ann := &user.DefaultInfo{Name: "ann"}
		check := func(what string, want bool) {
			t.Helper()
			synctest.Wait()
			d, _, _ := a.Authorize(t.Context(), ask(ann, "get core/pods a/x"))
			if (d == authorizer.DecisionAllow) != want {
				t.Errorf("%s: %v", what, d)
			}
		}
		check("nothing", false)
		b := binding("a", "b", "ClusterRole", "r", usr("ann"))
		st.Put(b)
		check("a binding without its role", false)
		st.Put(clusterRole("r", rule("get", "", "pods")))
		check("the role came", true)
		st.Put(clusterRole("r", rule("list", "", "pods")))
		check("the role changed", false)
		st.Put(clusterRole("r", rule("*", "", "pods")))
		check("and again", true)
		st.Remove(clusterRole("r"))
		check("the role went", false)
		st.Put(clusterRole("r", rule("*", "", "pods")))
		changed := b.DeepCopy()
		changed.Subjects[0].Name = "bob"
		st.Put(changed)
		check("the subject changed", false)
		st.Put(b)
		check("and back", true)
		st.Remove(b)
		check("the binding went", false)
		st.Remove(clusterRole("r"))
		synctest.Wait()
		if len(a.rbac.users)+len(a.rbac.groups)+len(a.rbac.roles) != 0 {
			t.Errorf("the index keeps %v %v %v", a.rbac.users, a.rbac.groups, a.rbac.roles)
		}
	})
}

func TestRulesFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := started(t, policy()...)
		synctest.Wait()
		ann := &user.DefaultInfo{Name: "ann", Groups: []string{"system:authenticated"}}
		res, urls, incomplete, err := a.RulesFor(t.Context(), ann, "a")
		if len(res) != 2 || len(urls) != 1 || incomplete || err != nil {
			t.Errorf("%v %v %v %v", res, urls, incomplete, err)
		}
		if _, _, incomplete, err = a.RulesFor(t.Context(), ann, "c"); !incomplete || err == nil {
			t.Errorf("a lost role: %v %v", incomplete, err)
		}
	})
}

func TestNode(t *testing.T) {
	pod := func(name, node string, annotations map[string]string, volumes ...corev1.Volume) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, Annotations: annotations},
			Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: "sa-" + name, Volumes: volumes}}
	}
	secret := func(n string) corev1.Volume {
		return corev1.Volume{Name: n, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: n}}}
	}
	claim := corev1.Volume{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "vol"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef: &corev1.ObjectReference{Namespace: "a", Name: "data"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			NodeStageSecretRef: &corev1.SecretReference{Namespace: "csi", Name: "stage"}}}}}
	objs := []api.Object{pod("p1", "n1", nil, secret("s1"), claim), pod("p2", "n2", nil, secret("s2")),
		pod("m", "n1", map[string]string{corev1.MirrorPodAnnotationKey: "x"}, secret("s3")), pv}
	n1 := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
	const none = "no relationship found between node 'n1' and this object"
	for _, c := range []struct{ ask, reason string }{
		{"get core/secrets a/s1", ""},
		{"watch core/secrets a/s1", ""},
		{"get core/secrets a/s2", none},
		{"get core/secrets a/s3", none},
		{"list core/secrets a/", "No Object name found"},
		{"delete core/secrets a/s1", "can only read resources of this type"},
		{"get core/configmaps a/s1", none},
		{"get core/persistentvolumeclaims a/data", ""},
		{"get core/persistentvolumes /vol", ""},
		{"list core/persistentvolumes", "can only get individual resources of this type"},
		{"get core/secrets csi/stage", ""},
		{"create core/serviceaccounts/token a/sa-p1", ""},
		{"create core/serviceaccounts/token a/sa-p2", none},
		{"get core/serviceaccounts a/sa-p1", ""},
		{"get core/pods a/p1", ""},
		{"get core/pods a/m", ""},
		{"get core/pods a/p2", none},
		{"list core/pods", "can only list/watch pods with spec.nodeName field selector"},
		{"update core/pods/status a/p1", ""},
		{"create core/pods/eviction a/p1", ""},
		{"get core/nodes /n1", ""},
		{"get core/nodes /n2", "node 'n1' cannot read 'n2', only its own Node object"},
		{"list core/nodes", "node 'n1' cannot read all nodes, only its own Node object"},
		{"patch core/nodes/status /n1", ""},
		{"update coordination.k8s.io/leases kube-node-lease/n1", ""},
		{"update coordination.k8s.io/leases kube-node-lease/n2", "can only access node lease with the same name as the requesting node"},
		{"get coordination.k8s.io/leases x/n1", `can only access leases in the "kube-node-lease" system namespace`},
		{"get storage.k8s.io/csinodes /n1", ""},
		{"list core/services", ""},
		{"create core/events a/", ""},
		{"watch node.k8s.io/runtimeclasses", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, _ := started(t, objs...)
			synctest.Wait()
			d, reason, _ := a.Authorize(t.Context(), ask(n1, c.ask))
			if (d == authorizer.DecisionAllow) != (c.reason == "") || reason != c.reason {
				t.Errorf("%s: %v %q", c.ask, d, reason)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		a, st := started(t, objs...)
		synctest.Wait()
		list := ask(n1, "list core/pods")
		list.FieldSelectorRequirements = fields.OneTermEqualSelector("spec.nodeName", "n1").Requirements()
		if d, r, _ := a.Authorize(t.Context(), list); d != authorizer.DecisionAllow {
			t.Errorf("a node's own pods: %v %s", d, r)
		}
		// The index has not heard of this pod yet, but the cache has it.
		st.Put(pod("new", "n1", nil, secret("s4")))
		if d, r, _ := a.Authorize(t.Context(), ask(n1, "get core/secrets a/s4")); d != authorizer.DecisionAllow {
			t.Errorf("a pod that was bound just now: %v %s", d, r)
		}
		st.Remove(pod("new", "n1", nil))
		synctest.Wait()
		if d, _, _ := a.Authorize(t.Context(), ask(n1, "get core/secrets a/s4")); d == authorizer.DecisionAllow {
			t.Error("a pod that is gone")
		}
		if len(a.nodes.pods["n1"]) != 2 {
			t.Errorf("the index has %d pods of n1", len(a.nodes.pods["n1"]))
		}
	})
}

func BenchmarkAuthorize(b *testing.B) {
	x := newIndex()
	for _, o := range policy() {
		x.replace(nil, o)
	}
	for i := range 40 { // the first rules of a long role do not match
		r := clusterRole("big", rule("get list watch", "apps", "deployments daemonsets replicasets statefulsets"))
		for range i {
			r.Rules = append(r.Rules, r.Rules[0])
		}
		r.Rules = append(r.Rules, rule("get", "", "endpoints"))
		x.replace(clusterRole("big"), r)
	}
	x.replace(nil, binding("a", "big", "ClusterRole", "big", usr("ann")))
	a := &Authorizer{rbac: x}
	at := ask(&user.DefaultInfo{Name: "ann", Groups: []string{"system:authenticated"}}, "get core/endpoints a/x")
	b.ReportAllocs()
	for b.Loop() {
		if d, _, _ := a.Authorize(b.Context(), at); d != authorizer.DecisionAllow {
			b.Fatal(d)
		}
	}
}
