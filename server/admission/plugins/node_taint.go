package plugins

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// taintNodesByCondition keeps pods off a new node until it is known to be ready.
type taintNodesByCondition struct{}

func (taintNodesByCondition) Name() string { return "TaintNodesByCondition" }
func (taintNodesByCondition) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && is(k, "", "nodes") && sub == ""
}

func (taintNodesByCondition) Admit(_ context.Context, r *admission.Request) error {
	n, ok := r.Object.(*corev1.Node)
	if !ok {
		return nil
	}
	t := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	if !slices.ContainsFunc(n.Spec.Taints, func(x corev1.Taint) bool { return x.MatchTaint(&t) }) {
		n.Spec.Taints = append(n.Spec.Taints, t)
	}
	return nil
}
