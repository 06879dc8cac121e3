// Package rootca publishes the cluster's CA certificate as the ConfigMap kube-root-ca.crt in every namespace, where
// projected service account volumes find it.
//
// Invariant: the ConfigMap's data is exactly the CA that the controller was given. Only controllers/ may import
// rootca.
package rootca

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	name                  = "kube-root-ca.crt"
	dataKey               = "ca.crt"
	descriptionAnnotation = "kubernetes.io/description"
	description           = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// New is the root CA publisher. Its keys are namespaces; ca is in PEM.
func New(d reconcile.Deps, ca []byte) reconcile.Controller {
	namespaces, configs := client.CacheOf[*corev1.Namespace](d.Caches), client.CacheOf[*corev1.ConfigMap](d.Caches)
	return reconcile.Controller{
		Name: "root-ca-certificate-publisher-controller",
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.Namespace](d.Caches),
			reconcile.Map(d.Caches, func(old, new *corev1.ConfigMap) []reconcile.Key {
				if old != nil && old.Name == name {
					return []reconcile.Key{{Name: old.Namespace}}
				}
				return nil
			}),
		},
		Writes: []string{"configmaps"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			ns, ok := namespaces.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			have, _ := configs.Get(key.Name, name)
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(ns, have, string(ca))...)
		},
	}
}

// Plan creates or repairs the ConfigMap of a namespace that lives. Have is nil where there is none.
func Plan(ns *corev1.Namespace, have *corev1.ConfigMap, ca string) []plan.Action {
	if ns.DeletionTimestamp != nil || ns.Status.Phase != corev1.NamespaceActive {
		return nil
	}
	want := map[string]string{dataKey: ca}
	switch {
	case have == nil:
		return []plan.Action{plan.Create{IfMissing: true, Obj: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name, Annotations: map[string]string{descriptionAnnotation: description}},
			Data:       want}}}
	case maps.Equal(have.Data, want) && len(have.Annotations[descriptionAnnotation]) > 0:
		return nil
	}
	cm := have.DeepCopy()
	cm.Data = want
	if cm.Annotations == nil {
		cm.Annotations = map[string]string{}
	}
	cm.Annotations[descriptionAnnotation] = description
	return []plan.Action{plan.Update{Obj: cm}}
}
