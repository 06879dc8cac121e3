package plugins

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// defaultIngressClass gives an Ingress that asks for no class the default one.
type defaultIngressClass struct{ st store.Store }

func (*defaultIngressClass) Name() string { return "DefaultIngressClass" }
func (*defaultIngressClass) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && is(k, "networking.k8s.io", "ingresses") && sub == ""
}

func (p *defaultIngressClass) Admit(_ context.Context, r *admission.Request) error {
	o, ok := r.Object.(*networkingv1.Ingress)
	if !ok || o.Spec.IngressClassName != nil {
		return nil
	}
	if _, ok := o.Annotations["kubernetes.io/ingress.class"]; ok {
		return nil
	}
	var def *networkingv1.IngressClass
	for c := range read.All[*networkingv1.IngressClass](p.st, "") {
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true" {
			continue
		}
		if def == nil || def.CreationTimestamp.Before(&c.CreationTimestamp) {
			def = c
		}
	}
	if def != nil {
		o.Spec.IngressClassName = &def.Name
	}
	return nil
}
