package core

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
)

// others are the objects beside nodes and pods that rules ask about.
type others struct {
	services      map[string]map[string]*corev1.Service // by namespace and name
	selectors     map[[3]string]*metav1.LabelSelector   // of controllers, by kind, namespace and name
	family        int                                   // counts changes of either
	budgets       map[types.NamespacedName]budget
	budgetChanges int
	storage
	inventory
}

func newOthers() others {
	return others{services: map[string]map[string]*corev1.Service{}, selectors: map[[3]string]*metav1.LabelSelector{},
		budgets: map[types.NamespacedName]budget{}, storage: newStorage(), inventory: newInventory()}
}

// Kinds are zero values of all kinds that a Cluster wants to know, those first that others' rules build upon.
func Kinds() []api.Object {
	return []api.Object{&corev1.Namespace{}, &corev1.Node{}, &storagev1.CSINode{}, &storagev1.CSIDriver{}, &storagev1.StorageClass{},
		&storagev1.CSIStorageCapacity{}, &storagev1.VolumeAttachment{}, &corev1.PersistentVolume{}, &corev1.PersistentVolumeClaim{},
		&resourcev1.DeviceClass{}, &resourcev1.ResourceSlice{}, &resourcev1.ResourceClaim{}, &corev1.Service{},
		&corev1.ReplicationController{}, &appsv1.ReplicaSet{}, &appsv1.StatefulSet{}, &policyv1.PodDisruptionBudget{}, &corev1.Pod{}}
}

// Set takes a new or changed object of one of Kinds. A pod without a node is ignored: it is asked about with Decide. It
// reports whether something changed that may let a waiting pod find a node.
func (c *Cluster) Set(o api.Object) bool {
	name := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	switch o := o.(type) {
	case *corev1.Node:
		return c.setNode(o)
	case *corev1.Pod:
		return c.setPod(o)
	case *corev1.Namespace:
		labels := o.Labels
		if labels == nil {
			labels = map[string]string{}
		}
		return c.setNamespace(o.Name, labels)
	case *corev1.Service:
		c.setService(o)
	case *corev1.ReplicationController:
		if o.Spec.Selector != nil {
			c.setSelector("ReplicationController", name, &metav1.LabelSelector{MatchLabels: o.Spec.Selector})
		}
	case *appsv1.ReplicaSet:
		c.setSelector("ReplicaSet", name, o.Spec.Selector)
	case *appsv1.StatefulSet:
		c.setSelector("StatefulSet", name, o.Spec.Selector)
	case *policyv1.PodDisruptionBudget:
		c.budgetChanges++
		if b, ok := budgetOf(o); ok {
			c.budgets[name] = b
		} else {
			delete(c.budgets, name)
		}
	default:
		return c.setStorage(name, o) || c.setInventory(name, o)
	}
	return true
}

// Delete forgets an object.
func (c *Cluster) Delete(o api.Object) {
	name := types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
	switch o := o.(type) {
	case *corev1.Node:
		c.dropNode(o.Name)
	case *corev1.Pod:
		c.Forget(o.UID)
		c.forgetStandIn(o.UID)
		c.lift(o.UID)
	case *corev1.Namespace:
		c.setNamespace(o.Name, nil)
	case *corev1.Service:
		delete(c.services[o.Namespace], o.Name)
		c.family++
	case *corev1.ReplicationController:
		delete(c.selectors, [3]string{"ReplicationController", name.Namespace, name.Name})
	case *appsv1.ReplicaSet:
		delete(c.selectors, [3]string{"ReplicaSet", name.Namespace, name.Name})
	case *appsv1.StatefulSet:
		delete(c.selectors, [3]string{"StatefulSet", name.Namespace, name.Name})
	case *policyv1.PodDisruptionBudget:
		delete(c.budgets, name)
		c.budgetChanges++
	default:
		c.dropStorage(name, o)
		c.dropInventory(name, o)
	}
}

func (c *Cluster) setService(o *corev1.Service) {
	in := c.services[o.Namespace]
	if in == nil {
		in = map[string]*corev1.Service{}
		c.services[o.Namespace] = in
	}
	if old := in[o.Name]; old == nil || !maps.Equal(old.Spec.Selector, o.Spec.Selector) {
		c.family++
	}
	in[o.Name] = o
}

func (c *Cluster) setSelector(kind string, name types.NamespacedName, sel *metav1.LabelSelector) {
	key := [3]string{kind, name.Namespace, name.Name}
	old, ok := c.selectors[key]
	if c.selectors[key] = sel; ok && sameSelector(old, sel) {
		return
	}
	c.family++
}

func sameSelector(a, b *metav1.LabelSelector) bool {
	if a == nil || b == nil {
		return a == b
	}
	return maps.Equal(a.MatchLabels, b.MatchLabels) && slices.EqualFunc(a.MatchExpressions, b.MatchExpressions,
		func(x, y metav1.LabelSelectorRequirement) bool {
			return x.Key == y.Key && x.Operator == y.Operator && slices.Equal(x.Values, y.Values)
		})
}

// setPod takes a bound pod. One that changed only in what nobody asks about changes nothing.
func (c *Cluster) setPod(o *corev1.Pod) bool {
	if o.Spec.NodeName == "" {
		return false
	}
	ended := o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
	c.unnominate(o.UID)
	if known, ok := c.pods[o.UID]; ok && !ended && known.node.name == o.Spec.NodeName && maps.Equal(known.obj.Labels, o.Labels) &&
		(known.obj.DeletionTimestamp == nil) == (o.DeletionTimestamp == nil) && sameDemands(known.obj, o) {
		known.obj = o // its start time and conditions matter to preemption
		return false
	}
	c.settle(c.boundPod(o), o.Spec.NodeName)
	return true
}

// sameDemands reports whether nothing changed by which a bound pod's resources are reckoned.
func sameDemands(a, b *corev1.Pod) bool {
	if a.Generation != b.Generation {
		return false
	}
	return sameResized(a.Status.ContainerStatuses, b.Status.ContainerStatuses) &&
		sameResized(a.Status.InitContainerStatuses, b.Status.InitContainerStatuses) && len(a.Status.AllocatedResources) == len(b.Status.AllocatedResources) &&
		equalLists(a.Status.AllocatedResources, b.Status.AllocatedResources) && pendingResize(a) == pendingResize(b)
}

// pendingResize is why a resize waits, if one does: one that is infeasible counts for nothing.
func pendingResize(p *corev1.Pod) string {
	for i := range p.Status.Conditions {
		if c := &p.Status.Conditions[i]; c.Type == corev1.PodResizePending {
			return c.Reason
		}
	}
	return ""
}

func sameResized(a, b []corev1.ContainerStatus) bool {
	for i := range b {
		var old corev1.ContainerStatus
		if i < len(a) {
			old = a[i]
		}
		if !sameOrNew(old.AllocatedResources, b[i].AllocatedResources) {
			return false
		}
		if b[i].Resources == nil {
			continue
		}
		if old.Resources != nil && !equalLists(old.Resources.Requests, b[i].Resources.Requests) {
			return false
		}
	}
	return len(a) <= len(b)
}

// sameOrNew: a status that appears for the first time repeats what the specification says; what follows is a resize.
func sameOrNew(old, new corev1.ResourceList) bool { return len(old) == 0 || equalLists(old, new) }
