package authz

import (
	"errors"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/internal/podref"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

var errNodeRules = errors.New("node authorizer does not support user rule resolution")

// nodes is the node authorizer: a node may read what the pods bound to it refer to, and write what is its own.
type nodes struct {
	st store.Store
	mu sync.RWMutex
	// pods by node and then by "namespace/name", so that a decision need not look at all pods.
	pods map[string]map[string]*corev1.Pod
}

func newNodes(st store.Store) *nodes {
	return &nodes{st: st, pods: map[string]map[string]*corev1.Pod{}}
}

func (n *nodes) replace(old, obj api.Object) {
	was, _ := old.(*corev1.Pod)
	is, _ := obj.(*corev1.Pod)
	n.mu.Lock()
	defer n.mu.Unlock()
	if was != nil && was.Spec.NodeName != "" && (is == nil || is.Spec.NodeName != was.Spec.NodeName) {
		set := n.pods[was.Spec.NodeName]
		if delete(set, was.Namespace+"/"+was.Name); len(set) == 0 {
			delete(n.pods, was.Spec.NodeName)
		}
	}
	if is == nil || is.Spec.NodeName == "" {
		return
	}
	set := n.pods[is.Spec.NodeName]
	if set == nil {
		set = map[string]*corev1.Pod{}
		n.pods[is.Spec.NodeName] = set
	}
	set[is.Namespace+"/"+is.Name] = is
}

// anyPod reports whether f holds for a pod of the node in the namespace. Before it says no it asks the cache too: a
// node that has just seen a pod bound to it may ask faster than this index learns of the binding.
func (n *nodes) anyPod(node, namespace string, f func(*corev1.Pod) bool) bool {
	n.mu.RLock()
	for _, p := range n.pods[node] {
		if p.Namespace == namespace && f(p) {
			n.mu.RUnlock()
			return true
		}
	}
	n.mu.RUnlock()
	for p := range read.All[*corev1.Pod](n.st, namespace) {
		if p.Spec.NodeName == node && f(p) {
			return true
		}
	}
	return false
}

// authorize decides by the resource; the reason says why not, in upstream's words.
func (n *nodes) authorize(node string, at authorizer.Attributes) (bool, string) {
	if node == "" {
		return false, fmt.Sprintf("unknown node for user %q", at.GetUser().GetName())
	}
	if at.IsResourceRequest() {
		switch at.GetAPIGroup() + "/" + at.GetResource() {
		case "/secrets", "/configmaps":
			return n.readRelated(node, at)
		case "/persistentvolumeclaims":
			if at.GetSubresource() == "status" {
				return n.claimStatus(node, at)
			}
			return n.getRelated(node, at)
		case "/persistentvolumes", "resource.k8s.io/resourceclaims", "storage.k8s.io/volumeattachments":
			return n.getRelated(node, at)
		case "/serviceaccounts":
			return n.serviceAccount(node, at)
		case "/nodes":
			return n.self(node, at)
		case "/pods":
			return n.pod(node, at)
		case "coordination.k8s.io/leases":
			return lease(node, at)
		case "storage.k8s.io/csinodes":
			return csiNode(node, at)
		case "resource.k8s.io/resourceslices":
			return n.resourceSlice(node, at)
		case "certificates.k8s.io/podcertificaterequests":
			return false, ""
		}
	}
	t := targetOf(at)
	for i := range uniform {
		if t.allowedBy(&uniform[i]) {
			return true, ""
		}
	}
	return false, ""
}

// uniform is what every node may do with resources that are not told apart by node.
var uniform = func() []rbacv1.PolicyRule {
	reads := []string{"get", "list", "watch"}
	rule := func(verbs []string, groups []string, resources ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{Verbs: verbs, APIGroups: groups, Resources: resources}
	}
	return []rbacv1.PolicyRule{
		rule([]string{"create"}, []string{"authentication.k8s.io"}, "tokenreviews"),
		rule([]string{"create"}, []string{"authorization.k8s.io"}, "subjectaccessreviews", "localsubjectaccessreviews"),
		rule(reads, []string{""}, "services"),
		rule([]string{"create", "update", "patch"}, []string{"", "events.k8s.io"}, "events"),
		rule([]string{"get"}, []string{""}, "endpoints"),
		rule([]string{"create", "get", "list", "watch"}, []string{"certificates.k8s.io"}, "certificatesigningrequests"),
		rule(reads, []string{"storage.k8s.io"}, "csidrivers"),
		rule(reads, []string{"node.k8s.io"}, "runtimeclasses"),
	}
}()

func (n *nodes) readRelated(node string, at authorizer.Attributes) (bool, string) {
	switch {
	case !at.IsReadOnly():
		return false, "can only read resources of this type"
	case at.GetSubresource() != "":
		return false, "cannot read subresource"
	case at.GetNamespace() == "":
		return false, "can only read namespaced object of this type"
	}
	return n.related(node, at)
}

func (n *nodes) getRelated(node string, at authorizer.Attributes) (bool, string) {
	switch {
	case at.GetVerb() != "get":
		return false, "can only get individual resources of this type"
	case at.GetSubresource() != "":
		return false, "cannot get subresource"
	}
	return n.related(node, at)
}

func (n *nodes) claimStatus(node string, at authorizer.Attributes) (bool, string) {
	if v := at.GetVerb(); v != "update" && v != "patch" {
		return false, "can only get/update/patch this type"
	}
	return n.related(node, at)
}

func (n *nodes) serviceAccount(node string, at authorizer.Attributes) (bool, string) {
	switch {
	case at.GetVerb() == "get" && at.GetSubresource() == "":
		return n.readRelated(node, at)
	case at.GetVerb() != "create" || at.GetName() == "":
		return false, "can only create tokens for individual service accounts"
	case at.GetSubresource() != "token":
		return false, "can only create token subresource of serviceaccount"
	}
	return n.related(node, at)
}

func (n *nodes) self(node string, at authorizer.Attributes) (bool, string) {
	switch at.GetSubresource() + " " + at.GetVerb() {
	case " create", " update", " patch", "status update", "status patch":
		return true, "" // NodeRestriction sees to it that a node writes only itself
	case " get", " list", " watch":
		switch at.GetName() {
		case node:
			return true, ""
		case "":
			return false, fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node)
		default:
			return false, fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, at.GetName())
		}
	}
	return false, ""
}

func (n *nodes) pod(node string, at authorizer.Attributes) (bool, string) {
	switch at.GetSubresource() + " " + at.GetVerb() {
	case " get":
		return n.getRelated(node, at)
	case " list", " watch":
		if selects(at, "spec.nodeName", node) {
			return true, ""
		}
		if at.GetName() != "" {
			return n.related(node, at)
		}
		return false, "can only list/watch pods with spec.nodeName field selector"
	case " create", " delete", "status update", "status patch", "eviction create":
		return true, "" // NodeRestriction sees to it that they are pods of this node
	}
	return false, ""
}

func (n *nodes) resourceSlice(node string, at authorizer.Attributes) (bool, string) {
	if at.GetSubresource() != "" {
		return false, "cannot authorize ResourceSlice subresources"
	}
	switch at.GetVerb() {
	case "create":
		return true, ""
	case "get", "update", "patch", "delete":
		return n.related(node, at)
	case "watch", "list", "deletecollection":
		// In resource.k8s.io/v1 the field is spec.nodeName; before it was nodeName.
		if selects(at, "nodeName", node) || selects(at, "spec.nodeName", node) {
			return true, ""
		}
		return false, "can only list/watch/deletecollection resourceslices with nodeName field selector"
	}
	return false, "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

func lease(node string, at authorizer.Attributes) (bool, string) {
	switch at.GetVerb() {
	case "get", "create", "update", "patch", "delete":
	default:
		return false, "can only get, create, update, patch, or delete a node lease"
	}
	if at.GetNamespace() != corev1.NamespaceNodeLease {
		return false, fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
	}
	if at.GetVerb() != "create" && at.GetName() != node {
		return false, "can only access node lease with the same name as the requesting node"
	}
	return true, ""
}

func csiNode(node string, at authorizer.Attributes) (bool, string) {
	switch at.GetVerb() {
	case "get", "create", "update", "patch", "delete":
	default:
		return false, "can only get, create, update, patch, or delete a CSINode"
	}
	if at.GetSubresource() != "" {
		return false, "cannot authorize CSINode subresources"
	}
	if at.GetVerb() != "create" && at.GetName() != node {
		return false, "can only access CSINode with the same name as the requesting node"
	}
	return true, ""
}

func selects(at authorizer.Attributes, field, value string) bool {
	reqs, _ := at.GetFieldSelector()
	for _, r := range reqs {
		if r.Field == field && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) && r.Value == value {
			return true
		}
	}
	return false
}

// related finds a way from the object to the node.
func (n *nodes) related(node string, at authorizer.Attributes) (bool, string) {
	namespace, name := at.GetNamespace(), at.GetName()
	if name == "" {
		return false, "No Object name found"
	}
	ok := false
	switch at.GetResource() {
	case "secrets":
		ok = n.anyPod(node, namespace, func(p *corev1.Pod) bool { return !mirror(p) && podref.Has(p, podref.Secret, name) }) ||
			n.secretOfVolume(node, namespace, name)
	case "configmaps":
		ok = n.anyPod(node, namespace, func(p *corev1.Pod) bool { return !mirror(p) && podref.Has(p, podref.ConfigMap, name) })
	case "serviceaccounts":
		ok = n.anyPod(node, namespace, func(p *corev1.Pod) bool { return !mirror(p) && p.Spec.ServiceAccountName == name })
	case "persistentvolumeclaims":
		ok = n.claim(node, namespace, name)
	case "persistentvolumes":
		pv, found := read.Get[*corev1.PersistentVolume](n.st, "", name)
		ok = found && pv.Spec.ClaimRef != nil && n.claim(node, pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name)
	case "resourceclaims":
		ok = n.anyPod(node, namespace, func(p *corev1.Pod) bool { return !mirror(p) && podref.Has(p, podref.ResourceClaim, name) })
	case "pods":
		ok = n.anyPod(node, namespace, func(p *corev1.Pod) bool { return p.Name == name })
	case "volumeattachments":
		va, found := read.Get[*storagev1.VolumeAttachment](n.st, "", name)
		ok = found && va.Spec.NodeName == node
	case "resourceslices":
		s, found := read.Get[*resourcev1.ResourceSlice](n.st, "", name)
		ok = found && s.Spec.NodeName != nil && *s.Spec.NodeName == node
	}
	if !ok {
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return true, ""
}

func (n *nodes) claim(node, namespace, name string) bool {
	return n.anyPod(node, namespace, func(p *corev1.Pod) bool { return !mirror(p) && podref.Has(p, podref.Claim, name) })
}

// secretOfVolume reports whether a volume whose claim a pod of the node uses names the secret. Volumes with secrets are
// few and the question is asked last, so there is no index for it.
func (n *nodes) secretOfVolume(node, namespace, name string) bool {
	for pv := range read.All[*corev1.PersistentVolume](n.st, "") {
		if ref := pv.Spec.ClaimRef; ref != nil && podref.VolumeHasSecret(pv, namespace, name) && n.claim(node, ref.Namespace, ref.Name) {
			return true
		}
	}
	return false
}

// mirror pods are made by nodes, so what they refer to must give a node nothing.
func mirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}
