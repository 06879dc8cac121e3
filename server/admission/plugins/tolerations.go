package plugins

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// defaultTolerationSeconds lets every pod outlive some trouble with its node: for so many seconds by the taint, 300 where none
// are said.
type defaultTolerationSeconds struct{ seconds map[string]int64 }

func (defaultTolerationSeconds) Name() string { return "DefaultTolerationSeconds" }
func (defaultTolerationSeconds) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return isPod(k) && sub == "" && in(op, admission.Create, admission.Update)
}

func (a defaultTolerationSeconds) Admit(_ context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if slices.ContainsFunc(o.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
		}) {
			continue
		}
		seconds, said := a.seconds[key]
		if !said {
			seconds = 300
		}
		o.Spec.Tolerations = append(o.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists,
			Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	}
	return nil
}
