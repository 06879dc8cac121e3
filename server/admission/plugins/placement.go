package plugins

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// hardAntiAffinity lets pods demand to be apart from others by nothing but the node. It is off by default, as all
// plugins of this file.
type hardAntiAffinity struct{}

func (hardAntiAffinity) Name() string { return "LimitPodHardAntiAffinityTopology" }
func (hardAntiAffinity) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && isPod(k) && sub == ""
}

func (hardAntiAffinity) Validate(_ context.Context, r *admission.Request) error {
	p := pod(r)
	if p == nil || p.Spec.Affinity == nil || p.Spec.Affinity.PodAntiAffinity == nil {
		return nil
	}
	for _, term := range p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		if term.TopologyKey != corev1.LabelHostname {
			return apierrors.NewForbidden(r.Kind.GroupResource(), p.Name, fmt.Errorf(
				"affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey %v but only key %v is allowed", term.TopologyKey, corev1.LabelHostname))
		}
	}
	return nil
}

// extendedResourceToleration lets pods that ask for a device onto the nodes that are tainted with it.
type extendedResourceToleration struct{}

func (extendedResourceToleration) Name() string { return "ExtendedResourceToleration" }
func (extendedResourceToleration) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && isPod(k) && sub == ""
}

func (extendedResourceToleration) Admit(_ context.Context, r *admission.Request) error {
	p := pod(r)
	if p == nil {
		return nil
	}
	devices := map[string]bool{}
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for name := range c.Resources.Requests {
			if extended(string(name)) {
				devices[string(name)] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		t := corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}
		if i := slices.IndexFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool { return o.MatchToleration(&t) }); i >= 0 {
			p.Spec.Tolerations[i] = t
		} else {
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
	return nil
}

// extended reports whether a resource is one that somebody outside Kubernetes has named.
func extended(name string) bool {
	return strings.Contains(name, "/") && !strings.Contains(name, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0
}

// podNodeSelector adds the node selector of a namespace's annotation to its pods. Its configuration has the selector of
// namespaces without one, and by namespace the labels that selectors may ask for.
type podNodeSelector struct {
	st     store.Store
	usual  labels.Set
	listed map[string]labels.Set
}

const nodeSelectorAnnotation = "scheduler.alpha.kubernetes.io/node-selector"

func newPodNodeSelector(d Deps, b []byte) (admission.Plugin, error) {
	var c struct {
		Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
	}
	if err := yaml.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	p := &podNodeSelector{d.Store, nil, map[string]labels.Set{}}
	for namespace, text := range c.Selectors {
		set, err := labels.ConvertSelectorToLabelsMap(text)
		if err != nil {
			return nil, fmt.Errorf("podNodeSelectorPluginConfig: %s: %w", namespace, err)
		}
		if p.listed[namespace] = set; namespace == "clusterDefaultNodeSelector" {
			p.usual = set
		}
	}
	return p, nil
}

func (*podNodeSelector) Name() string { return "PodNodeSelector" }
func (*podNodeSelector) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && isPod(k) && sub == ""
}

func (a *podNodeSelector) Admit(ctx context.Context, r *admission.Request) error {
	want, err := a.check(ctx, r)
	if err != nil || pod(r) == nil {
		return err
	}
	pod(r).Spec.NodeSelector = labels.Merge(want, pod(r).Spec.NodeSelector)
	return a.Validate(ctx, r)
}

func (a *podNodeSelector) Validate(ctx context.Context, r *admission.Request) error {
	if _, err := a.check(ctx, r); err != nil || pod(r) == nil {
		return err
	}
	list := a.listed[r.Namespace]
	for k, v := range pod(r).Spec.NodeSelector {
		if got, ok := list[k]; len(list) > 0 && (!ok || got != v) {
			return apierrors.NewForbidden(r.Kind.GroupResource(), pod(r).Name,
				fmt.Errorf("pod node label selector labels conflict with its namespace whitelist"))
		}
	}
	return nil
}

// check reads the namespace's selector and refuses pods that contradict it.
func (a *podNodeSelector) check(ctx context.Context, r *admission.Request) (labels.Set, error) {
	ns, ok, err := read.Fresh[*corev1.Namespace](ctx, a.st, "", r.Namespace)
	switch {
	case err != nil:
		return nil, apierrors.NewInternalError(err)
	case !ok:
		return nil, apierrors.NewInternalError(fmt.Errorf("namespace %s does not exist", r.Namespace))
	}
	want := a.usual
	if text, said := ns.Annotations[nodeSelectorAnnotation]; said {
		if want, err = labels.ConvertSelectorToLabelsMap(text); err != nil {
			return nil, err
		}
	}
	if p := pod(r); p != nil && labels.Conflicts(want, p.Spec.NodeSelector) {
		return nil, apierrors.NewForbidden(r.Kind.GroupResource(), p.Name,
			fmt.Errorf("pod node label selector conflicts with its namespace node label selector"))
	}
	return want, nil
}
