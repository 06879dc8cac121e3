package bootstrap

import (
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
)

// Objects are the objects that every cluster has, in an order in which they can be created. They are the caller's own.
func Objects() []api.Object {
	var out []api.Object
	for _, name := range []string{corev1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		out = append(out, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}})
	}
	lower := corev1.PreemptLowerPriority
	out = append(out,
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "system-node-critical"}, Value: 2000001000, PreemptionPolicy: &lower,
			Description: "Used for system critical pods that must not be moved from their current node."},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "system-cluster-critical"}, Value: 2000000000, PreemptionPolicy: &lower,
			Description: "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."})
	for _, o := range parsedRoles() {
		out = append(out, o.DeepCopyObject().(api.Object))
	}
	return out
}
