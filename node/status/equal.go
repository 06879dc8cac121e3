package status

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

func equal(a, b *corev1.NodeStatus) bool { return equality.Semantic.DeepEqual(a, b) }
