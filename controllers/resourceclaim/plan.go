// Package resourceclaim makes the ResourceClaims that pods ask for by template, and takes claims back from pods that
// need them no longer.
//
// Invariant: a claim that was made for a pod is owned by it and noted in its status; a pod is taken off a claim's
// reservedFor only when it has ended, was never going to start, or a live read shows that it is gone; and the
// allocation is cleared only with the last reservation. Only controllers/ may import resourceclaim.
package resourceclaim

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// nameLength bounds the prefix of a generated name, which gets five letters more.
const nameLength = 57

// done reports whether the pod will not use its claims any more: it has ended, or is deleted and never had a node.
func done(p *corev1.Pod) bool {
	return pods.Finished(p) || p.DeletionTimestamp != nil && p.Spec.NodeName == ""
}

// View is where the planner looks other objects up.
type View struct {
	Claim    func(name string) (*resourcev1.ResourceClaim, bool)
	Template func(name string) (*resourcev1.ResourceClaimTemplate, bool)
	// Made are the claims that the pod controls.
	Made func(*corev1.Pod) []*resourcev1.ResourceClaim
}

// nameOf is the claim that the pod's status names for one of its claims; "" means that none is needed.
func nameOf(p *corev1.Pod, pc *corev1.PodResourceClaim) (name string, known bool) {
	if pc.ResourceClaimName != nil {
		return *pc.ResourceClaimName, true
	}
	for _, s := range p.Status.ResourceClaimStatuses {
		if s.Name == pc.Name {
			return ptr.Deref(s.ResourceClaimName, ""), true
		}
	}
	return "", false
}

// PlanPod makes what the pod lacks. For a pod that came to its node without the scheduler it also reserves.
func PlanPod(p *corev1.Pod, v View) ([]plan.Action, error) {
	if p.DeletionTimestamp != nil || pods.Finished(p) {
		return nil, nil
	}
	var creates []plan.Action
	found := map[string]string{}
	for i := range p.Spec.ResourceClaims {
		pc := &p.Spec.ResourceClaims[i]
		if pc.ResourceClaimTemplateName == nil {
			continue
		}
		if name, known := nameOf(p, pc); known {
			if c, ok := v.Claim(name); name == "" || ok && metav1.IsControlledBy(c, p) {
				continue
			} else if ok {
				return nil, fmt.Errorf("PodResourceClaim %s: ResourceClaim %s/%s was not created for Pod %s/%s (Pod is not owner)", pc.Name, p.Namespace, name, p.Namespace, p.Name)
			}
		}
		made := v.Made(p)
		if at := slices.IndexFunc(made, func(c *resourcev1.ResourceClaim) bool {
			return c.Annotations[resourcev1.PodResourceClaimAnnotation] == pc.Name && c.DeletionTimestamp == nil
		}); at >= 0 {
			found[pc.Name] = made[at].Name
			continue
		}
		t, ok := v.Template(*pc.ResourceClaimTemplateName)
		if !ok {
			return nil, fmt.Errorf("PodResourceClaim %s: resource claim template %q: resourceclaimtemplate.resource.k8s.io %q not found",
				pc.Name, *pc.ResourceClaimTemplateName, *pc.ResourceClaimTemplateName)
		}
		creates = append(creates, plan.Create{Obj: claimFor(p, pc, t)})
	}
	if len(creates) > 0 {
		return creates, nil // their names are noted when they are seen
	}
	if len(found) > 0 {
		return []plan.Action{note(p, found)}, nil
	}
	return reserve(p, v), nil
}

// claimFor makes the pod's claim from a template.
func claimFor(p *corev1.Pod, pc *corev1.PodResourceClaim, t *resourcev1.ResourceClaimTemplate) *resourcev1.ResourceClaim {
	t = t.DeepCopy()
	annotations := map[string]string{}
	maps.Copy(annotations, t.Spec.Annotations)
	annotations[resourcev1.PodResourceClaimAnnotation] = pc.Name
	prefix := p.Name + "-" + pc.Name + "-"
	if n := len(prefix); n > nameLength { // each part keeps its share
		prefix = p.Name[:len(p.Name)*nameLength/n] + "-" + pc.Name[:len(pc.Name)*nameLength/n]
	}
	return &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, GenerateName: prefix, Labels: t.Spec.Labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID, Controller: ptr.To(true)}}},
		Spec: t.Spec.Spec,
	}
}

// note writes the claims' names into the pod's status.
func note(p *corev1.Pod, found map[string]string) plan.Action {
	statuses := []map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		statuses = append(statuses, map[string]string{"name": name, "resourceClaimName": found[name]})
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{"resourceClaimStatuses": statuses}})
	if err != nil {
		panic(err) // strings go into JSON
	}
	return plan.Patch{Obj: p, Subresource: "status", Type: types.StrategicMergePatchType, Data: data}
}

// reserve adds a pod with a node to its allocated claims; the scheduler does so for those that it places.
func reserve(p *corev1.Pod, v View) (actions []plan.Action) {
	if p.Spec.NodeName == "" {
		return nil
	}
	for i := range p.Spec.ResourceClaims {
		name, known := nameOf(p, &p.Spec.ResourceClaims[i])
		c, ok := v.Claim(name)
		if !known || !ok || c.Status.Allocation == nil || reservedFor(c, p) || len(c.Status.ReservedFor) >= resourcev1.ResourceClaimReservedForMaxSize {
			continue
		}
		c = c.DeepCopy()
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
		actions = append(actions, plan.Status(c))
	}
	return actions
}

func reservedFor(c *resourcev1.ResourceClaim, p *corev1.Pod) bool {
	return slices.ContainsFunc(c.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID })
}

// PlanClaim is the claim's next step. Uses reports whether a pod still uses the claim, and pod finds one in the cache.
func PlanClaim(c *resourcev1.ResourceClaim, uses func(resourcev1.ResourceClaimConsumerReference) bool, pod func(name string) (*corev1.Pod, bool)) []plan.Action {
	var left []resourcev1.ResourceClaimConsumerReference
	for _, r := range c.Status.ReservedFor {
		if r.APIGroup != "" || r.Resource != "pods" || uses(r) { // what others are, others know
			left = append(left, r)
		}
	}
	protected := slices.Contains(c.Finalizers, resourcev1.Finalizer)
	unused := len(left) == 0
	switch {
	case len(left) < len(c.Status.ReservedFor) || unused && protected && c.DeletionTimestamp != nil && c.Status.Allocation != nil:
		next := c.DeepCopy()
		next.Status.ReservedFor = left
		if unused && protected {
			next.Status.Allocation = nil
		}
		return []plan.Action{plan.Status(next)}
	case unused && protected && c.Status.Allocation == nil && (c.DeletionTimestamp != nil || !fresh(c, pod)):
		next := c.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		return []plan.Action{plan.Update{Obj: next}}
	case unused && c.DeletionTimestamp == nil && !fresh(c, pod):
		return []plan.Action{plan.Delete{Obj: c}}
	}
	return nil
}

// fresh reports whether the claim may still be wanted: nobody's in particular, or of a pod that has not ended or that
// nobody has seen yet (the garbage collector looks after those that are gone).
func fresh(c *resourcev1.ResourceClaim, pod func(name string) (*corev1.Pod, bool)) bool {
	ref := metav1.GetControllerOfNoCopy(c)
	if ref == nil || ref.Kind != "Pod" || ref.APIVersion != "v1" {
		return true
	}
	p, ok := pod(ref.Name)
	return !ok || p.UID == ref.UID && !done(p)
}
