package plugins

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
)

var (
	ann  = &user.DefaultInfo{Name: "ann", Groups: []string{"system:authenticated"}}
	node = &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
)

// may is an authorizer that allows "verb resource/name".
type may []string

func (m may) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if slices.Contains(m, a.GetVerb()+" "+a.GetResource()+"/"+a.GetName()) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// holds is a user's rules, and the roles that exist.
type holds struct {
	own   []rbacv1.PolicyRule
	roles map[string][]rbacv1.PolicyRule
}

func (h holds) PolicyRules(user.Info, string) ([]rbacv1.PolicyRule, error) { return h.own, nil }
func (h holds) RoleRules(ref rbacv1.RoleRef, _ string) ([]rbacv1.PolicyRule, error) {
	if r, ok := h.roles[ref.Name]; ok {
		return r, nil
	}
	return nil, apierrors.NewNotFound(rbacv1.Resource("clusterrole"), ref.Name)
}

// run asks one plugin, both its ways, if it handles the request.
func run(t *testing.T, p admission.Plugin, r *admission.Request) error {
	t.Helper()
	if r.User == nil {
		r.User = ann
	}
	if r.Kind == nil {
		o := r.Object
		if o == nil {
			o = r.Old
		}
		k, ok := builtin.Table().Of(o.(api.Object))
		if !ok {
			t.Fatalf("%T is no kind", o)
		}
		r.Kind = k
	}
	m, ok := r.Object.(metav1.Object)
	if !ok {
		m, _ = r.Old.(metav1.Object)
	}
	if m != nil && r.Name == "" {
		r.Name = m.GetName()
	}
	if m != nil && r.Namespace == "" {
		r.Namespace = m.GetNamespace()
	}
	c := admission.NewChain(nil, p)
	if err := c.Admit(t.Context(), r); err != nil {
		return err
	}
	return c.Validate(t.Context(), r)
}

func create(o runtime.Object) *admission.Request {
	return &admission.Request{Operation: admission.Create, Object: o}
}
func update(o, old runtime.Object, sub string) *admission.Request {
	return &admission.Request{Operation: admission.Update, Object: o, Old: old, Subresource: sub}
}

// expect compares an error's text with what it must contain; "" is no error.
func expect(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s:\ngot  %v\nwant %s", what, err, want)
	}
}

func newPod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func resources(s ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(s); i += 2 {
		l[corev1.ResourceName(s[i])] = resource.MustParse(s[i+1])
	}
	return l
}

func with(requests, limits corev1.ResourceList) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
	}
}

func on(n string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = n } }

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name} }
func inA(name string) metav1.ObjectMeta   { return metav1.ObjectMeta{Namespace: "a", Name: name} }

func chainOf(t *testing.T, d Deps) []string {
	t.Helper()
	d.Store, d.Kinds, d.Authorizer, d.Rules = memstore.New(), builtin.Table(), may{}, holds{}
	c, err := Chain(d)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range c.Plugins() {
		names = append(names, p.Name())
		_, m := p.(admission.Mutator)
		_, v := p.(admission.Validator)
		if !m && !v {
			t.Errorf("%s does nothing", p.Name())
		}
	}
	return names
}

func TestOrder(t *testing.T) {
	want := []string{"NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction", "TaintNodesByCondition", "PodSecurity", "Priority",
		"DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection", "PersistentVolumeClaimResize", "RuntimeClass",
		"CertificateApproval", "CertificateSigning", "ClusterTrustBundleAttest", "CertificateSubjectRestriction", "DefaultIngressClass",
		"PodTopologyLabels", "NodeDeclaredFeatureValidator", "PodResizeValidator", "RBACEscalation", "WebhookExpressions", "PolicyExpressions",
		"MutatingAdmissionPolicy", "MutatingAdmissionWebhook", "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota"}
	if names := chainOf(t, Deps{}); !slices.Equal(names, want) {
		t.Errorf("got  %v\nwant %v", names, want)
	}
}

// A plugin has the name that it is asked for by, and its place.
func TestChosenPlugins(t *testing.T) {
	var all []string
	told := Settings{
		"EventRateLimit":     []byte(`{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Server, qps: 1, burst: 1}]}`),
		"ImagePolicyWebhook": []byte("imagePolicy: {kubeConfigFile: " + imageServer(t, nil) + "}"),
	}
	for _, e := range catalog() {
		all = append(all, e.name)
		if p, err := e.plugin(Deps{Store: memstore.New(), Kinds: builtin.Table(), Settings: told}); err != nil || p != nil && p.Name() != e.name {
			t.Errorf("%s calls itself %s, or: %v", e.name, p.Name(), err)
		}
	}
	names := chainOf(t, Deps{Enable: all, Settings: told})
	if i, j := slices.Index(names, "AlwaysPullImages"), slices.Index(names, "PodSecurity"); i < 0 || i > j || names[len(names)-1] != "AlwaysDeny" {
		t.Errorf("got %v", names)
	}
	if names := chainOf(t, Deps{Disable: []string{"LimitRanger", "ResourceQuota"}}); slices.Contains(names, "LimitRanger") || slices.Contains(names, "ResourceQuota") {
		t.Errorf("got %v", names)
	}
	for want, d := range map[string]Deps{
		`enable-admission-plugins plugin "Nonsense" is unknown`:                             {Enable: []string{"Nonsense"}},
		`disable-admission-plugins plugin "Nonsense" is unknown`:                            {Disable: []string{"Nonsense"}},
		`couldn't init admission plugin "ImagePolicyWebhook": no config specified`:          {Enable: []string{"ImagePolicyWebhook"}},
		"[AlwaysDeny] in enable-admission-plugins and disable-admission-plugins overlapped": {Enable: []string{"AlwaysDeny"}, Disable: []string{"AlwaysDeny"}},
	} {
		if _, err := Chain(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestNamespaceLifecycle(t *testing.T) {
	st := memstore.New(&corev1.Namespace{ObjectMeta: named("a")},
		&corev1.Namespace{ObjectMeta: named("old"), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}})
	p := &namespaceLifecycle{st}
	at := func(ns string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "c"}}
	}
	expect(t, "a namespace that is there", run(t, p, create(at("a"))), "")
	err := run(t, p, create(at("none")))
	expect(t, "one that is not", err, `namespaces "none" not found`)
	if !apierrors.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	err = run(t, p, create(at("old")))
	expect(t, "one that ends", err, `configmaps "c" is forbidden: unable to create new content in namespace old because it is being terminated`)
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("no cause: %v", err)
	}
	expect(t, "an update in one that ends", run(t, p, update(at("old"), at("old"), "")), "")
	expect(t, "a cluster's object", run(t, p, create(&corev1.Node{ObjectMeta: named("n")})), "")
	for _, ns := range []string{"default", "kube-system", "kube-public"} {
		expect(t, ns, run(t, p, &admission.Request{Operation: admission.Delete, Old: &corev1.Namespace{ObjectMeta: named(ns)}}), "this namespace may not be deleted")
	}
	expect(t, "another", run(t, p, &admission.Request{Operation: admission.Delete, Old: &corev1.Namespace{ObjectMeta: named("a")}}), "")
}

func TestServiceAccount(t *testing.T) {
	no := false
	st := memstore.New(
		&corev1.ServiceAccount{ObjectMeta: inA("default"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}}},
		&corev1.ServiceAccount{ObjectMeta: inA("quiet"), AutomountServiceAccountToken: &no},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "strict", Annotations: map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"}},
			Secrets: []corev1.ObjectReference{{Name: "ok"}}})
	p := &serviceAccount{st}

	o := newPod()
	expect(t, "default", run(t, p, create(o)), "")
	if o.Spec.ServiceAccountName != "default" || o.Spec.ImagePullSecrets[0].Name != "pull" || len(o.Spec.Volumes) != 1 {
		t.Fatalf("%+v", o.Spec)
	}
	v, m := o.Spec.Volumes[0], o.Spec.Containers[0].VolumeMounts[0]
	if !strings.HasPrefix(v.Name, "kube-api-access-") || len(v.Name) != len("kube-api-access-")+5 || m.Name != v.Name || !m.ReadOnly || m.MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
		t.Errorf("%+v %+v", v, m)
	}
	s := v.Projected.Sources
	if *v.Projected.DefaultMode != 0o644 || len(s) != 3 || s[0].ServiceAccountToken.Path != "token" || *s[0].ServiceAccountToken.ExpirationSeconds != 3607 ||
		s[1].ConfigMap.Name != "kube-root-ca.crt" || s[2].DownwardAPI.Items[0].FieldRef.FieldPath != "metadata.namespace" {
		t.Errorf("%+v", s)
	}
	before := o.DeepCopy()
	expect(t, "again", run(t, p, create(o)), "")
	if len(o.Spec.Volumes) != 1 || len(o.Spec.Containers[0].VolumeMounts) != 1 || o.Spec.Volumes[0].Name != before.Spec.Volumes[0].Name {
		t.Errorf("the second time changed %+v", o.Spec)
	}

	o = newPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" })
	expect(t, "no automount", run(t, p, create(o)), "")
	if len(o.Spec.Volumes) != 0 {
		t.Errorf("%+v", o.Spec.Volumes)
	}
	o = newPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "nobody" })
	expect(t, "unknown", run(t, p, create(o)), `pods "p" is forbidden: error looking up service account a/nobody: serviceaccount "nobody" not found`)
	secret := func(n string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.ServiceAccountName = "strict"
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: n}}}}
		}
	}
	expect(t, "mountable", run(t, p, create(newPod(secret("ok")))), "")
	expect(t, "not mountable", run(t, p, create(newPod(secret("other")))), `volume with secret.secretName="other" is not allowed because service account strict does not reference that secret`)
	mirror := func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }
	expect(t, "a mirror pod", run(t, p, create(newPod(mirror))), "")
	expect(t, "one with a secret", run(t, p, create(newPod(secret("ok"), mirror, func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }))), "a mirror pod may not reference secrets")
}

func TestServiceAccountWaitsForDefault(t *testing.T) {
	st := memstore.New()
	time.AfterFunc(20*time.Millisecond, func() { st.Put(&corev1.ServiceAccount{ObjectMeta: inA("default")}) })
	expect(t, "an account that comes", run(t, &serviceAccount{st}, create(newPod())), "")
}

func TestTolerationSeconds(t *testing.T) {
	o := newPod()
	expect(t, "pod", run(t, defaultTolerationSeconds{map[string]int64{corev1.TaintNodeUnreachable: 7}}, create(o)), "")
	if ts := o.Spec.Tolerations; len(ts) != 2 || *ts[0].TolerationSeconds != 300 || *ts[1].TolerationSeconds != 7 {
		t.Errorf("%v", ts)
	}
}

func TestTolerationsAndTaints(t *testing.T) {
	o := newPod()
	for range 2 {
		expect(t, "pod", run(t, defaultTolerationSeconds{}, create(o)), "")
	}
	if len(o.Spec.Tolerations) != 2 || o.Spec.Tolerations[0].Key != "node.kubernetes.io/not-ready" || *o.Spec.Tolerations[1].TolerationSeconds != 300 || o.Spec.Tolerations[1].Key != "node.kubernetes.io/unreachable" {
		t.Errorf("%+v", o.Spec.Tolerations)
	}
	o = newPod(func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Operator: "Exists"}} })
	expect(t, "pod", run(t, defaultTolerationSeconds{}, create(o)), "")
	if len(o.Spec.Tolerations) != 1 {
		t.Errorf("%+v", o.Spec.Tolerations)
	}
	n := &corev1.Node{ObjectMeta: named("n")}
	for range 2 {
		expect(t, "node", run(t, taintNodesByCondition{}, create(n)), "")
	}
	if len(n.Spec.Taints) != 1 || n.Spec.Taints[0].Key != "node.kubernetes.io/not-ready" || n.Spec.Taints[0].Effect != "NoSchedule" {
		t.Errorf("%+v", n.Spec.Taints)
	}
}
