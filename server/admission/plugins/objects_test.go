package plugins

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/memstore"
)

func TestPodSecurity(t *testing.T) {
	labelled := func(name string, l ...string) *corev1.Namespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
		for i := 0; i < len(l); i += 2 {
			ns.Labels["pod-security.kubernetes.io/"+l[i]] = l[i+1]
		}
		return ns
	}
	p, err := newPodSecurity(Deps{Store: memstore.New(labelled("a", "enforce", "baseline"), labelled("free"), labelled("warned", "warn", "restricted"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	privileged := func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	}
	at := func(ns string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Namespace = ns } }
	expect(t, "a plain pod", run(t, p, create(newPod())), "")
	expect(t, "a privileged pod", run(t, p, create(newPod(privileged))), `pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)`)
	expect(t, "where all is allowed", run(t, p, create(newPod(privileged, at("free")))), "")
	var warnings []string
	r := create(newPod(at("warned")))
	r.Warn = func(s string) { warnings = append(warnings, s) }
	expect(t, "warned", run(t, p, r), "")
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], `would violate PodSecurity "restricted:latest": `) {
		t.Errorf("%q", warnings)
	}
	expect(t, "bad labels", run(t, p, create(labelled("new", "enforce", "nonsense"))), "pod-security.kubernetes.io/enforce")
}

func TestPriority(t *testing.T) {
	never := corev1.PreemptNever
	st := memstore.New(&schedulingv1.PriorityClass{ObjectMeta: named("high"), Value: 1000, PreemptionPolicy: &never})
	p := &priority{st}
	class := func(n string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.PriorityClassName = n } }
	o := newPod(class("high"))
	expect(t, "class", run(t, p, create(o)), "")
	if *o.Spec.Priority != 1000 || *o.Spec.PreemptionPolicy != corev1.PreemptNever {
		t.Errorf("%+v", o.Spec)
	}
	o = newPod()
	expect(t, "none", run(t, p, create(o)), "")
	if *o.Spec.Priority != 0 || *o.Spec.PreemptionPolicy != corev1.PreemptLowerPriority || o.Spec.PriorityClassName != "" {
		t.Errorf("%+v", o.Spec)
	}
	expect(t, "unknown", run(t, p, create(newPod(class("low")))), `pods "p" is forbidden: no PriorityClass with name low was found`)
	five := int32(5)
	expect(t, "by hand", run(t, p, create(newPod(class("high"), func(p *corev1.Pod) { p.Spec.Priority = &five }))),
		"the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name")
	st.Put(&schedulingv1.PriorityClass{ObjectMeta: named("usual"), Value: 7, GlobalDefault: true})
	o = newPod()
	expect(t, "the default", run(t, p, create(o)), "")
	if *o.Spec.Priority != 7 || o.Spec.PriorityClassName != "usual" {
		t.Errorf("%+v", o.Spec)
	}
	expect(t, "a second default", run(t, p, create(&schedulingv1.PriorityClass{ObjectMeta: named("other"), GlobalDefault: true})), "PriorityClass usual is already marked as default. Only one default can exist")
	old := o.DeepCopy()
	o.Spec.Priority, o.Spec.PreemptionPolicy = nil, nil
	expect(t, "update", run(t, p, update(o, old, "")), "")
	if *o.Spec.Priority != 7 || o.Spec.PreemptionPolicy == nil {
		t.Errorf("%+v", o.Spec)
	}
}

func TestStorage(t *testing.T) {
	yes := true
	class := func(name string, age time.Duration, def string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Now().Add(-age)),
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": def}}, AllowVolumeExpansion: &yes}
	}
	st := memstore.New(class("old", 3*time.Hour, "true"), class("new", time.Hour, "true"), class("plain", time.Minute, "false"),
		&storagev1.StorageClass{ObjectMeta: named("rigid")})
	newClaim := func() *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: inA("c"), Spec: corev1.PersistentVolumeClaimSpec{
			Resources: corev1.VolumeResourceRequirements{Requests: resources("storage", "1Gi")}}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	}
	c := newClaim()
	expect(t, "default", run(t, &defaultStorageClass{st}, create(c)), "")
	if *c.Spec.StorageClassName != "new" {
		t.Errorf("%s", *c.Spec.StorageClassName)
	}
	expect(t, "protect", run(t, storageProtection{}, create(c)), "")
	v := &corev1.PersistentVolume{ObjectMeta: named("v")}
	expect(t, "protect", run(t, storageProtection{}, create(v)), "")
	attributes := &storagev1.VolumeAttributesClass{ObjectMeta: named("gold")}
	expect(t, "protect", run(t, storageProtection{}, create(attributes)), "")
	if c.Finalizers[0] != "kubernetes.io/pvc-protection" || v.Finalizers[0] != "kubernetes.io/pv-protection" || attributes.Finalizers[0] != "kubernetes.io/vac-protection" {
		t.Errorf("%v %v %v", c.Finalizers, v.Finalizers, attributes.Finalizers)
	}
	none, empty := newClaim(), ""
	none.Spec.StorageClassName = &empty
	expect(t, "no class is a choice", run(t, &defaultStorageClass{st}, create(none)), "")
	if *none.Spec.StorageClassName != "" {
		t.Error("changed")
	}
	grow := func(from *corev1.PersistentVolumeClaim) error {
		to := from.DeepCopy()
		to.Spec.Resources.Requests = resources("storage", "2Gi")
		return run(t, &claimResize{st}, update(to, from, ""))
	}
	expect(t, "grow", grow(c), "")
	pending := c.DeepCopy()
	pending.Status.Phase = corev1.ClaimPending
	expect(t, "pending", grow(pending), "Only bound persistent volume claims can be expanded")
	rigid, name := c.DeepCopy(), "rigid"
	rigid.Spec.StorageClassName = &name
	expect(t, "rigid", grow(rigid), "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}

func TestIngressAndRuntimeClass(t *testing.T) {
	st := memstore.New(&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx", Annotations: map[string]string{"ingressclass.kubernetes.io/is-default-class": "true"}}},
		&nodev1.RuntimeClass{ObjectMeta: named("vm"), Handler: "kata", Overhead: &nodev1.Overhead{PodFixed: resources("cpu", "100m")},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"kvm": "yes"}, Tolerations: []corev1.Toleration{{Key: "kvm", Operator: "Exists"}}}})
	i := &networkingv1.Ingress{ObjectMeta: inA("i")}
	expect(t, "ingress", run(t, &defaultIngressClass{st}, create(i)), "")
	if *i.Spec.IngressClassName != "nginx" {
		t.Error("no class")
	}
	class := func(n string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.RuntimeClassName = &n } }
	p := &runtimeClass{st}
	o := newPod(class("vm"))
	for range 2 {
		expect(t, "vm", run(t, p, create(o)), "")
	}
	if o.Spec.Overhead.Cpu().String() != "100m" || o.Spec.NodeSelector["kvm"] != "yes" || len(o.Spec.Tolerations) != 1 {
		t.Errorf("%+v", o.Spec)
	}
	expect(t, "unknown", run(t, p, create(newPod(class("x")))), `pods "p" is forbidden: pod rejected: RuntimeClass "x" not found`)
	expect(t, "overhead alone", run(t, p, create(newPod(func(p *corev1.Pod) { p.Spec.Overhead = resources("cpu", "1") }))), "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	expect(t, "conflict", run(t, p, create(newPod(class("vm"), func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kvm": "no"} }))),
		"conflict: runtimeClass.scheduling.nodeSelector[kvm] = yes; pod.spec.nodeSelector[kvm] = no")
}

func TestPodTopologyLabels(t *testing.T) {
	p := &podTopologyLabels{memstore.New(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z", "x": "y"}}})}
	o := newPod(on("n1"))
	expect(t, "pod", run(t, p, create(o)), "")
	if len(o.Labels) != 1 || o.Labels[corev1.LabelTopologyZone] != "z" {
		t.Errorf("%v", o.Labels)
	}
}

func request(t *testing.T, cn string, org ...string) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: org}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestCertificates(t *testing.T) {
	csr := func(signer string, req []byte) *certificatesv1.CertificateSigningRequest {
		return &certificatesv1.CertificateSigningRequest{ObjectMeta: named("r"), Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer, Request: req}}
	}
	a := csr("example.com/x", nil)
	for _, m := range []may{{"approve signers/example.com/x"}, {"approve signers/example.com/*"}} {
		expect(t, "approve", run(t, &certificateApproval{m}, update(a, a, "approval")), "")
	}
	expect(t, "approve", run(t, &certificateApproval{may{"approve signers/other"}}, update(a, a, "approval")), `user not permitted to approve requests with signerName "example.com/x"`)
	signed := a.DeepCopy()
	signed.Status.Certificate = []byte("x")
	expect(t, "sign", run(t, &certificateSigning{may{}}, update(signed, a, "status")), `user not permitted to sign requests with signerName "example.com/x"`)
	expect(t, "sign", run(t, &certificateSigning{may{"sign signers/example.com/x"}}, update(signed, a, "status")), "")
	expect(t, "nothing signed", run(t, &certificateSigning{may{}}, update(a, a, "status")), "")
	const client = "kubernetes.io/kube-apiserver-client"
	expect(t, "masters", run(t, certificateSubject{}, create(csr(client, request(t, "x", "system:masters")))), "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
	expect(t, "others", run(t, certificateSubject{}, create(csr(client, request(t, "x", "y")))), "")
}

func TestEscalation(t *testing.T) {
	get := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	more := rbacv1.PolicyRule{Verbs: []string{"get", "delete"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	h := holds{own: []rbacv1.PolicyRule{get}, roles: map[string][]rbacv1.PolicyRule{"small": {get}, "big": {more}}}
	role := func(rules ...rbacv1.PolicyRule) *rbacv1.Role { return &rbacv1.Role{ObjectMeta: inA("r"), Rules: rules} }
	bind := func(name string) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: inA("b"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}}
	}
	const text = `is forbidden: user "ann" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}`
	p := &escalation{h, may{}}
	expect(t, "own rights", run(t, p, create(role(get))), "")
	expect(t, "more", run(t, p, create(role(more))), `roles.rbac.authorization.k8s.io "r" `+text)
	expect(t, "bind own", run(t, p, create(bind("small"))), "")
	expect(t, "bind more", run(t, p, create(bind("big"))), `rolebindings.rbac.authorization.k8s.io "b" `+text)
	expect(t, "bind nothing", run(t, p, create(bind("lost"))), `"lost" not found`)
	expect(t, "may escalate", run(t, &escalation{h, may{"escalate roles/r"}}, update(role(more), role(get), "")), "")
	expect(t, "may escalate any", run(t, &escalation{h, may{"escalate roles/"}}, create(role(more))), "")
	expect(t, "may bind", run(t, &escalation{h, may{"bind clusterroles/big"}}, create(bind("big"))), "")
	r := create(role(more))
	r.User = &user.DefaultInfo{Name: "root", Groups: []string{"system:masters"}}
	expect(t, "masters", run(t, p, r), "")
	agg := &rbacv1.ClusterRole{ObjectMeta: named("x"), AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}
	expect(t, "aggregation", run(t, p, create(agg)), "must have cluster-admin privileges to use the aggregationRule")
	finalized := role(more)
	finalized.Finalizers = []string{"x/y"}
	expect(t, "garbage collection", run(t, p, update(role(more), finalized, "")), "")
}

func TestNodeRestriction(t *testing.T) {
	yes := true
	me := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u"}}
	st := memstore.New(me, newPod(on("n1")))
	p := &nodeRestriction{st, may{}}
	asNode := func(r *admission.Request) error { r.User = node; return run(t, p, r) }
	mirror := func(p *corev1.Pod) {
		p.Spec.NodeName, p.Annotations = "n1", map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "u", Controller: &yes}}
	}
	expect(t, "somebody else", run(t, p, create(newPod())), "")
	expect(t, "a pod", asNode(create(newPod(on("n1")))), `pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods`)
	expect(t, "a mirror pod", asNode(create(newPod(mirror))), "")
	expect(t, "elsewhere", asNode(create(newPod(mirror, on("n2")))), `node "n1" can only create pods with spec.nodeName set to itself`)
	expect(t, "with a secret", asNode(create(newPod(mirror, func(p *corev1.Pod) {
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
	}))), `node "n1" can not create pods that reference secrets`)
	expect(t, "delete", asNode(&admission.Request{Operation: admission.Delete, Old: newPod(on("n1"))}), "")
	expect(t, "delete another's", asNode(&admission.Request{Operation: admission.Delete, Old: newPod(on("n2"))}), `node "n1" can only delete pods with spec.nodeName set to itself`)
	expect(t, "status", asNode(update(newPod(on("n1")), newPod(on("n1")), "status")), "")
	expect(t, "another's status", asNode(update(newPod(on("n2")), newPod(on("n2")), "status")), `node "n1" can only update pod status for pods with spec.nodeName set to itself`)
	expect(t, "labels", asNode(update(newPod(on("n1"), func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), newPod(on("n1")), "status")), `node "n1" cannot update labels through pod status`)
	labelled := func(k string) *corev1.Node {
		n := me.DeepCopy()
		n.Labels = map[string]string{k: "v"}
		return n
	}
	expect(t, "itself", asNode(create(labelled("kubernetes.io/hostname"))), "")
	expect(t, "a label", asNode(create(labelled("example.com/x"))), "")
	expect(t, "a role", asNode(create(labelled("node-role.kubernetes.io/master"))), `node "n1" is not allowed to set the following labels: node-role.kubernetes.io/master`)
	expect(t, "a changed role", asNode(update(labelled("node-restriction.kubernetes.io/x"), me, "")), "is not allowed to modify labels: node-restriction.kubernetes.io/x")
	expect(t, "another", asNode(create(&corev1.Node{ObjectMeta: named("n2")})), `node "n1" is not allowed to modify node "n2"`)
	tainted := me.DeepCopy()
	tainted.Spec.Taints = []corev1.Taint{{Key: "k"}}
	expect(t, "taints", asNode(update(me, tainted, "")), `node "n1" is not allowed to modify taints`)
	expect(t, "a serving request", asNode(create(&certificatesv1.CertificateSigningRequest{ObjectMeta: named("r"),
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: "kubernetes.io/kubelet-serving", Request: request(t, "system:node:n2")}})), "can only create a node CSR with CN=system:node:n1")
}
