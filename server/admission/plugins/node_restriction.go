package plugins

import (
	"context"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	kubelet "k8s.io/kubelet/pkg/apis"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/podref"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// nodeRestriction lets a node write itself and the pods that are bound to it, and nothing of other nodes.
type nodeRestriction struct {
	st store.Store
	a  authorizer.Authorizer
}

func (*nodeRestriction) Name() string { return "NodeRestriction" }
func (*nodeRestriction) Handles(op admission.Operation, k *api.Kind, _ string) bool {
	if !in(op, admission.Create, admission.Update, admission.Delete) {
		return false
	}
	switch k.GroupResource().String() {
	case "pods", "nodes", "persistentvolumeclaims", "serviceaccounts", "leases.coordination.k8s.io", "csinodes.storage.k8s.io",
		"resourceslices.resource.k8s.io", "certificatesigningrequests.certificates.k8s.io":
		return true
	}
	return false
}

// Admit implements admission.Mutator, though it changes nothing: the check comes before the other plugins' work.
func (p *nodeRestriction) Admit(ctx context.Context, r *admission.Request) error {
	if r.User == nil || !strings.HasPrefix(r.User.GetName(), "system:node:") || !slices.Contains(r.User.GetGroups(), user.NodesGroup) {
		return nil
	}
	node := strings.TrimPrefix(r.User.GetName(), "system:node:")
	if node == "" {
		return forbidden(r, "could not determine node from user %q", r.User.GetName())
	}
	switch r.Kind.Plural {
	case "pods":
		return p.pod(ctx, node, r)
	case "nodes":
		return p.node(node, r)
	case "persistentvolumeclaims":
		return p.claim(node, r)
	case "serviceaccounts":
		return p.token(ctx, node, r)
	case "leases":
		if r.Namespace != corev1.NamespaceNodeLease {
			return forbidden(r, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		if nameOf(r) != node {
			return forbidden(r, "can only access node lease with the same name as the requesting node")
		}
	case "csinodes":
		if nameOf(r) != node {
			return forbidden(r, "can only access CSINode with the same name as the requesting node")
		}
	case "resourceslices":
		return p.slice(node, r)
	case "certificatesigningrequests":
		return p.csr(node, r)
	}
	return nil
}

func (p *nodeRestriction) pod(ctx context.Context, node string, r *admission.Request) error {
	switch r.Subresource {
	case "":
		switch r.Operation {
		case admission.Create:
			return p.mirror(ctx, node, r)
		case admission.Delete:
			if old, ok := r.Old.(*corev1.Pod); !ok || old.Spec.NodeName != node {
				return forbidden(r, "node %q can only delete pods with spec.nodeName set to itself", node)
			}
			return nil
		}
		return forbidden(r, "unexpected operation %q, node %q can only create and delete mirror pods", r.Operation, node)
	case "status":
		return p.podStatus(node, r)
	case "eviction":
		o, ok, err := read.Fresh[*corev1.Pod](ctx, p.st, r.Namespace, r.Name)
		if err != nil {
			return forbidden(r, "%w", err)
		}
		if !ok {
			return notFound("pods", r.Name)
		}
		if o.Spec.NodeName != node {
			return forbidden(r, "node %s can only evict pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return forbidden(r, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", r.Subresource)
}

func (p *nodeRestriction) podStatus(node string, r *admission.Request) error {
	old, ok := r.Old.(*corev1.Pod)
	o := pod(r)
	if !ok || o == nil || r.Operation != admission.Update {
		return forbidden(r, "unexpected operation %q", r.Operation)
	}
	switch {
	case old.Spec.NodeName != node:
		return forbidden(r, "node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !equality.Semantic.DeepEqual(old.Labels, o.Labels):
		return forbidden(r, "node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, o.Status.ResourceClaimStatuses):
		return forbidden(r, "node %q cannot update resource claim statues", node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, o.Status.ExtendedResourceClaimStatus):
		return forbidden(r, "node %q cannot update extended resource claim status", node)
	}
	return nil
}

// mirror allows a node to make only mirror pods of its own that refer to nothing in the API.
func (p *nodeRestriction) mirror(ctx context.Context, node string, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return forbidden(r, "unexpected type %T", r.Object)
	}
	if _, ok := o.Annotations[corev1.MirrorPodAnnotationKey]; !ok {
		return forbidden(r, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if o.Spec.NodeName != node {
		return forbidden(r, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	switch len(o.OwnerReferences) {
	case 0:
		return forbidden(r, "node %q can only create pods with an owner reference set to itself", node)
	case 1:
	default:
		return forbidden(r, "node %q can only create pods with a single owner reference set to itself", node)
	}
	owner := o.OwnerReferences[0]
	switch {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node:
		return forbidden(r, "node %q can only create pods with an owner reference set to itself", node)
	case owner.Controller == nil || !*owner.Controller:
		return forbidden(r, "node %q can only create pods with a controller owner reference set to itself", node)
	case owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion:
		return forbidden(r, "node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	n, ok, err := read.Fresh[*corev1.Node](ctx, p.st, "", node)
	if err != nil {
		return forbidden(r, "error looking up node %s to verify uid: %v", node, err)
	}
	if !ok {
		return notFound("nodes", node)
	}
	if owner.UID != n.UID {
		return forbidden(r, "node %s UID mismatch: expected %s got %s", node, owner.UID, n.UID)
	}
	for kind := range podref.All(o) {
		return forbidden(r, "node %q can not create pods that reference %s", node, kind)
	}
	if o.Spec.ServiceAccountName != "" || projectsToken(o) {
		return forbidden(r, "node %q can not create pods that reference %s", node, "serviceaccounts")
	}
	return nil
}

func (p *nodeRestriction) node(node string, r *admission.Request) error {
	if name := nameOf(r); name != node {
		return forbidden(r, "node %q is not allowed to modify node %q", node, name)
	}
	n, ok := r.Object.(*corev1.Node)
	if !ok {
		return nil
	}
	switch r.Operation {
	case admission.Create:
		if bad := forbiddenLabels(n.Labels, nil); len(bad) > 0 {
			return forbidden(r, "node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", "))
		}
	case admission.Update:
		old, ok := r.Old.(*corev1.Node)
		if !ok {
			return forbidden(r, "unexpected type %T", r.Old)
		}
		if !equality.Semantic.DeepEqual(n.Spec.Taints, old.Spec.Taints) {
			return forbidden(r, "node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(n.OwnerReferences, old.OwnerReferences) {
			return forbidden(r, "node %q is not allowed to modify ownerReferences", node)
		}
		if bad := forbiddenLabels(n.Labels, old.Labels); len(bad) > 0 {
			return forbidden(r, "is not allowed to modify labels: %s", strings.Join(bad, ", "))
		}
	}
	return nil
}

// forbiddenLabels is those labels that differ and that a node must not decide about, sorted.
func forbiddenLabels(labels, old map[string]string) []string {
	var out []string
	check := func(key string) {
		domain, _, ok := strings.Cut(key, "/")
		if !ok {
			domain = ""
		}
		under := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
		if under(corev1.LabelNamespaceNodeRestriction) || ((under("kubernetes.io") || under("k8s.io")) && !kubelet.IsKubeletLabel(key)) {
			out = append(out, key)
		}
	}
	for k, v := range labels {
		if o, ok := old[k]; !ok || o != v {
			check(k)
		}
	}
	for k := range old {
		if _, ok := labels[k]; !ok {
			check(k)
		}
	}
	slices.Sort(out)
	return out
}

func (p *nodeRestriction) claim(node string, r *admission.Request) error {
	if r.Subresource != "status" {
		return forbidden(r, "may only update PVC status")
	}
	old, ok := r.Old.(*corev1.PersistentVolumeClaim)
	c, ok2 := r.Object.(*corev1.PersistentVolumeClaim)
	if !ok || !ok2 || r.Operation != admission.Update {
		return forbidden(r, "unexpected operation %q", r.Operation)
	}
	clean := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
		return c
	}
	if !equality.Semantic.DeepEqual(clean(old), clean(c)) {
		return forbidden(r, "node %q is not allowed to update fields other than status.quantity and status.conditions", node)
	}
	return nil
}

// token allows a node tokens that are bound to a pod of its own, for audiences that the pod asks for.
func (p *nodeRestriction) token(ctx context.Context, node string, r *admission.Request) error {
	if r.Operation != admission.Create || r.Subresource != "token" {
		return nil
	}
	tr, ok := r.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return forbidden(r, "unexpected type %T", r.Object)
	}
	ref := tr.Spec.BoundObjectRef
	if ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "" {
		return forbidden(r, "node requested token not bound to a pod")
	}
	if ref.UID == "" {
		return forbidden(r, "node requested token with a pod binding without a uid")
	}
	o, ok, err := read.Fresh[*corev1.Pod](ctx, p.st, r.Namespace, ref.Name)
	if err != nil {
		return forbidden(r, "%w", err)
	}
	if !ok {
		return notFound("pods", ref.Name)
	}
	if ref.UID != o.UID {
		return forbidden(r, "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID)
	}
	if o.Spec.NodeName != node {
		return forbidden(r, "node requested token bound to a pod scheduled on a different node")
	}
	audience := ""
	switch len(tr.Spec.Audiences) {
	case 0:
	case 1:
		audience = tr.Spec.Audiences[0]
	default:
		return forbidden(r, "node may only request 0 or 1 audiences")
	}
	if p.asksFor(o, audience) || allowed(ctx, p.a, r, authorizer.AttributesRecord{Verb: "request-serviceaccounts-token-audience",
		Namespace: r.Namespace, APIVersion: "v1", Resource: audience, Name: r.Name}) {
		return nil
	}
	return forbidden(r, "audience %q not found in pod spec volume, %s is not authorized to request tokens for this audience", audience, r.User.GetName())
}

// asksFor reports whether a volume of the pod, or the CSI driver of one, takes tokens for the audience.
func (p *nodeRestriction) asksFor(o *corev1.Pod, audience string) bool {
	driver := func(name string) bool {
		d, ok := read.Get[*storagev1.CSIDriver](p.st, "", name)
		return ok && slices.ContainsFunc(d.Spec.TokenRequests, func(t storagev1.TokenRequest) bool { return t.Audience == audience })
	}
	for _, v := range o.Spec.Volumes {
		claim := ""
		switch {
		case v.Projected != nil:
			if slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
				return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
			}) {
				return true
			}
		case v.CSI != nil:
			if driver(v.CSI.Driver) {
				return true
			}
		case v.Ephemeral != nil:
			claim = o.Name + "-" + v.Name
		case v.PersistentVolumeClaim != nil:
			claim = v.PersistentVolumeClaim.ClaimName
		}
		if c, ok := read.Get[*corev1.PersistentVolumeClaim](p.st, o.Namespace, claim); ok && claim != "" {
			if pv, ok := read.Get[*corev1.PersistentVolume](p.st, "", c.Spec.VolumeName); ok && pv.Spec.CSI != nil && driver(pv.Spec.CSI.Driver) {
				return true
			}
		}
	}
	return false
}

func (p *nodeRestriction) slice(node string, r *admission.Request) error {
	o, verb := r.Object, "create"
	switch r.Operation {
	case admission.Update:
		return nil
	case admission.Delete:
		o, verb = r.Old, "delete"
	}
	if s, ok := o.(*resourcev1.ResourceSlice); !ok || s.Spec.NodeName == nil || *s.Spec.NodeName != node {
		return forbidden(r, "can only %s ResourceSlice with the same NodeName as the requesting node", verb)
	}
	return nil
}

func (p *nodeRestriction) csr(node string, r *admission.Request) error {
	csr, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
	if r.Operation != admission.Create || !ok ||
		(csr.Spec.SignerName != certificatesv1.KubeletServingSignerName && csr.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName) {
		return nil
	}
	req, err := parseCSR(csr.Spec.Request)
	if err != nil {
		return forbidden(r, "unable to parse csr: %w", err)
	}
	if req.Subject.CommonName != "system:node:"+node {
		return forbidden(r, "can only create a node CSR with CN=system:node:%s", node)
	}
	return nil
}
