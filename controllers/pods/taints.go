package pods

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Tolerates reports whether one toleration covers one taint.
func Tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	}
	return false
}

// ToleratesAll reports whether the tolerations cover every taint that has one of the effects.
func ToleratesAll(ts []corev1.Toleration, taints []corev1.Taint, effects ...corev1.TaintEffect) bool {
	for i := range taints {
		if slices.Contains(effects, taints[i].Effect) &&
			!slices.ContainsFunc(ts, func(t corev1.Toleration) bool { return Tolerates(&t, &taints[i]) }) {
			return false
		}
	}
	return true
}
