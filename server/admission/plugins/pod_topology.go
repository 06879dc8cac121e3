package plugins

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// podTopologyLabels copies the zone and region of a node onto the pods that are bound to it.
type podTopologyLabels struct{ st store.Store }

func (*podTopologyLabels) Name() string { return "PodTopologyLabels" }
func (*podTopologyLabels) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && ((isPod(k) && (sub == "" || sub == "binding")) || is(k, "", "bindings"))
}

func (p *podTopologyLabels) Admit(_ context.Context, r *admission.Request) error {
	switch o := r.Object.(type) {
	case *corev1.Binding:
		if o.Target.Kind == "Node" || o.Target.Kind == "" {
			o.Labels = p.merge(o.Labels, o.Target.Name)
		}
	case *corev1.Pod:
		if o.Spec.NodeName != "" {
			o.Labels = p.merge(o.Labels, o.Spec.NodeName)
		}
	}
	return nil
}

func (p *podTopologyLabels) merge(labels map[string]string, node string) map[string]string {
	n, ok := read.Get[*corev1.Node](p.st, "", node)
	if !ok {
		return labels
	}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
		v, ok := n.Labels[key]
		if !ok {
			continue
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = v
	}
	return labels
}
