package plugins

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// Two plugins look at changes of a pod that runs: whether its node can do what is asked for.

// changedOn is the node of a pod whose spec an update changes; nil if there is nothing to judge.
func changedOn(st store.Store, r *admission.Request) (now, before *corev1.Pod, node *corev1.Node, err error) {
	now, before = pod(r), nil
	if before, _ = r.Old.(*corev1.Pod); now == nil || before == nil || now.Spec.NodeName == "" || equality.Semantic.DeepEqual(now.Spec, before.Spec) {
		return nil, nil, nil, nil
	}
	node, ok := read.Get[*corev1.Node](st, "", now.Spec.NodeName)
	if !ok {
		return now, before, nil, forbidden(r, "node %q not found", now.Spec.NodeName)
	}
	return now, before, node, nil
}

// podResize refuses a resize that the node has no room for.
type podResize struct{ st store.Store }

func (*podResize) Name() string { return "PodResizeValidator" }
func (*podResize) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Update && isPod(k) && sub == "resize"
}

func (a *podResize) Validate(_ context.Context, r *admission.Request) error {
	p, _, node, err := changedOn(a.st, r)
	if p == nil || err != nil {
		return err
	}
	refuse := func(cause metav1.CauseType, format string, args ...any) error {
		e := forbidden(r, format, args...)
		e.ErrStatus.Details.Causes = append(e.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
		return e
	}
	if system, ok := node.Labels[corev1.LabelOSStable]; ok && system != "linux" {
		return refuse("UnsupportedPlatform", "pod resize is only supported on linux nodes, node %q is %q", node.Name, system)
	}
	want := resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{})
	var lacking []string
	if cpu, room := want.Cpu(), node.Status.Allocatable.Cpu(); cpu.Cmp(*room) > 0 {
		lacking = append(lacking, fmt.Sprintf("cpu, requested: %d, allocatable: %d", cpu.MilliValue(), room.MilliValue()))
	}
	if memory, room := want.Memory(), node.Status.Allocatable.Memory(); memory.Cmp(*room) > 0 {
		lacking = append(lacking, fmt.Sprintf("memory, requested: %d, allocatable: %d", memory.Value(), room.Value()))
	}
	if len(lacking) > 0 {
		return refuse("NodeCapacity", "node didn't have enough allocatable resources: %s", strings.Join(lacking, "; "))
	}
	return nil
}

// nodeFeatures refuses an update that needs what the node's agent does not say it can do (KEP-5328).
type nodeFeatures struct{ st store.Store }

func (*nodeFeatures) Name() string { return "NodeDeclaredFeatureValidator" }
func (*nodeFeatures) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Update && isPod(k) && (sub == "" || sub == "resize")
}

// release is the version whose features pods may need.
var release = version.MustParseSemantic("1.36.0")

func (a *nodeFeatures) Validate(_ context.Context, r *admission.Request) error {
	p, before, node, missing := changedOn(a.st, r)
	if p == nil {
		return nil
	}
	needs, err := nodedeclaredfeatures.DefaultFramework.InferForPodUpdate(&nodedeclaredfeatures.PodInfo{Spec: &before.Spec, Status: &before.Status},
		&nodedeclaredfeatures.PodInfo{Spec: &p.Spec, Status: &p.Status}, release)
	switch {
	case err != nil:
		return forbidden(r, "failed to infer pod capability requirements: %v", err)
	case needs.IsEmpty():
		return nil
	case missing != nil:
		return missing
	}
	result, err := nodedeclaredfeatures.DefaultFramework.MatchNode(needs, node)
	if err != nil {
		return forbidden(r, "failed to match pod requirements against node %q: %v", node.Name, err)
	}
	if !result.IsMatch {
		return forbidden(r, "pod update requires features %s which are not available on node %q", strings.Join(result.UnsatisfiedRequirements, ", "), node.Name)
	}
	return nil
}
