package attachdetach

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/nodelifecycle"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/controllers/protection"
	"github.com/skiff-sh/skiff/reconcile"
)

// Indexes of attachments.
const (
	byNode   = "node"
	byVolume = "volume"
)

type controller struct {
	reconcile.Deps
	pods        *client.Cache[*corev1.Pod] // by node and by claim
	nodes       *client.Cache[*corev1.Node]
	claims      *client.Cache[*corev1.PersistentVolumeClaim]
	volumes     *client.Cache[*corev1.PersistentVolume]
	attachments *client.Cache[*storagev1.VolumeAttachment]
	drivers     *client.Cache[*storagev1.CSIDriver]

	mu       sync.Mutex
	unwanted map[string]time.Time // by attachment
}

// New is the attach/detach controller. Its keys are nodes.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	c := &controller{Deps: d, pods: nodelifecycle.PodsByNode(cs), nodes: client.CacheOf[*corev1.Node](cs),
		claims: client.CacheOf[*corev1.PersistentVolumeClaim](cs), volumes: client.CacheOf[*corev1.PersistentVolume](cs),
		attachments: client.CacheOf[*storagev1.VolumeAttachment](cs), drivers: client.CacheOf[*storagev1.CSIDriver](cs), unwanted: map[string]time.Time{}}
	protection.PodsByClaim(cs)
	c.attachments.AddIndex(byNode, func(a *storagev1.VolumeAttachment) []string { return []string{a.Spec.NodeName} })
	c.attachments.AddIndex(byVolume, func(a *storagev1.VolumeAttachment) []string {
		return []string{ptr.Deref(a.Spec.Source.PersistentVolumeName, "")}
	})
	return reconcile.Controller{
		Name: "persistentvolume-attach-detach-controller",
		Inputs: []reconcile.Input{
			reconcile.Map(cs, c.podChanged), reconcile.Map(cs, c.nodeChanged), reconcile.Map(cs, c.attachmentChanged),
			reconcile.Map(cs, func(old, new *corev1.PersistentVolumeClaim) []reconcile.Key {
				if new == nil || old != nil && old.Spec.VolumeName == new.Spec.VolumeName {
					return nil
				}
				return c.nodesOf(new.Namespace, new.Name)
			}),
			reconcile.Map(cs, func(old, new *corev1.PersistentVolume) []reconcile.Key {
				if new == nil || old != nil || new.Spec.CSI == nil {
					return nil
				}
				return c.nodesUsing(new)
			}),
			reconcile.Map(cs, c.driverChanged),
		},
		Writes:    []string{"storage.k8s.io/volumeattachments", "nodes/status"},
		Reconcile: c.reconcile,
	}
}

// podChanged makes the node of a pod with claims due when the pod comes to it or stops to need its volumes.
func (c *controller) podChanged(old, new *corev1.Pod) (keys []reconcile.Key) {
	if old != nil && new != nil && old.Spec.NodeName == new.Spec.NodeName && gone(old) == gone(new) {
		return nil
	}
	for _, p := range []*corev1.Pod{old, new} {
		if p != nil && p.Spec.NodeName != "" && len(protection.ClaimsOf(p)) > 0 {
			return []reconcile.Key{{Name: p.Spec.NodeName}}
		}
	}
	return nil
}

// gone reports whether the pod's containers have ended for good, so that its volumes are not needed.
func gone(p *corev1.Pod) bool {
	if pods.Finished(p) {
		return true
	}
	return p.DeletionTimestamp != nil && len(p.Status.ContainerStatuses) > 0 &&
		!slices.ContainsFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Terminated == nil && s.State.Waiting == nil })
}

func (c *controller) nodeChanged(old, new *corev1.Node) []reconcile.Key {
	if new == nil {
		return []reconcile.Key{plan.KeyOf(old)}
	}
	if old != nil && slices.Equal(old.Status.VolumesInUse, new.Status.VolumesInUse) && slices.Equal(old.Status.VolumesAttached, new.Status.VolumesAttached) &&
		len(old.Spec.Taints) == len(new.Spec.Taints) {
		return nil
	}
	if len(new.Status.VolumesInUse)+len(new.Status.VolumesAttached) == 0 && len(c.attachments.By(byNode, new.Name)) == 0 {
		return nil
	}
	return []reconcile.Key{plan.KeyOf(new)}
}

// attachmentChanged tells the pods; when one is gone, nodes that wait for the volume are due.
func (c *controller) attachmentChanged(old, new *storagev1.VolumeAttachment) []reconcile.Key {
	a := new
	if a == nil {
		a = old
	}
	keys := []reconcile.Key{{Name: a.Spec.NodeName}}
	pv, ok := c.volumes.Get("", ptr.Deref(a.Spec.Source.PersistentVolumeName, ""))
	if !ok {
		return keys
	}
	if new == nil {
		return append(keys, c.nodesUsing(pv)...)
	}
	if old == nil {
		return keys // what it says was told already, or nobody knows
	}
	for _, event := range Told(old, new, c.users(pv, func(node string) bool { return node == a.Spec.NodeName })) {
		e := event.(plan.Event)
		c.Events.Eventf(e.About, e.Type, e.Reason, "%s", e.Message)
	}
	return keys
}

func (c *controller) driverChanged(old, new *storagev1.CSIDriver) (keys []reconcile.Key) {
	if old != nil && new != nil && ptr.Deref(old.Spec.AttachRequired, true) == ptr.Deref(new.Spec.AttachRequired, true) {
		return nil
	}
	for _, pv := range c.volumes.List("") {
		if pv.Spec.CSI != nil && (old != nil && pv.Spec.CSI.Driver == old.Name || new != nil && pv.Spec.CSI.Driver == new.Name) {
			keys = append(keys, c.nodesUsing(pv)...)
		}
	}
	return keys
}

func (c *controller) nodesOf(namespace, claim string) (keys []reconcile.Key) {
	for _, p := range c.pods.By(protection.ByClaim, namespace+"/"+claim) {
		if p.Spec.NodeName != "" {
			keys = append(keys, reconcile.Key{Name: p.Spec.NodeName})
		}
	}
	return keys
}

func (c *controller) nodesUsing(pv *corev1.PersistentVolume) []reconcile.Key {
	if r := pv.Spec.ClaimRef; r != nil {
		return c.nodesOf(r.Namespace, r.Name)
	}
	return nil
}

// users are the pods that need the volume on the nodes that on picks.
func (c *controller) users(pv *corev1.PersistentVolume, on func(node string) bool) (out []*corev1.Pod) {
	r := pv.Spec.ClaimRef
	if r == nil {
		return nil
	}
	for _, p := range c.pods.By(protection.ByClaim, r.Namespace+"/"+r.Name) {
		if p.Spec.NodeName != "" && !gone(p) && on(p.Spec.NodeName) {
			out = append(out, p)
		}
	}
	return out
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	now := c.Clock.Now()
	node, _ := c.nodes.Get("", key.Name)
	in := Input{Name: key.Name, Node: node, Wanted: c.wanted(key.Name), Attachments: c.attachments.By(byNode, key.Name), Now: now,
		Elsewhere: func(pv string) []*storagev1.VolumeAttachment {
			return slices.DeleteFunc(c.attachments.By(byVolume, pv), func(a *storagev1.VolumeAttachment) bool { return a.Spec.NodeName == key.Name })
		},
		Users: func(pv *corev1.PersistentVolume) []*corev1.Pod {
			return c.users(pv, func(node string) bool { return node != key.Name })
		},
		Volume: func(name string) (*corev1.PersistentVolume, bool) { return c.volumes.Get("", name) }}
	in.Unwanted = c.idleSince(in, now)
	actions, again := Plan(in)
	return reconcile.Result{After: again}, plan.Apply(ctx, c.Deps, actions...)
}

// wanted are the volumes of the node's pods that need attaching.
func (c *controller) wanted(node string) (out []Volume) {
	at := map[string]int{}
	for _, p := range c.pods.By(nodelifecycle.ByNode, node) {
		if gone(p) {
			continue
		}
		for _, name := range protection.ClaimsOf(p) {
			pv, ok := c.bound(p.Namespace, name)
			if !ok || !c.attachable(pv) {
				continue
			}
			i, known := at[pv.Name]
			if !known {
				i = len(out)
				at[pv.Name], out = i, append(out, Volume{PV: pv})
			}
			out[i].Pods = append(out[i].Pods, p)
		}
	}
	return out
}

func (c *controller) bound(namespace, claim string) (*corev1.PersistentVolume, bool) {
	pvc, ok := c.claims.Get(namespace, claim)
	if !ok || pvc.Spec.VolumeName == "" {
		return nil, false
	}
	pv, ok := c.volumes.Get("", pvc.Spec.VolumeName)
	return pv, ok && pv.Spec.ClaimRef != nil && pv.Spec.ClaimRef.UID == pvc.UID
}

// attachable reports whether the volume's driver wants to attach; one that does not say does.
func (c *controller) attachable(pv *corev1.PersistentVolume) bool {
	if pv.Spec.CSI == nil {
		return false
	}
	d, ok := c.drivers.Get("", pv.Spec.CSI.Driver)
	return !ok || ptr.Deref(d.Spec.AttachRequired, true)
}

// idleSince keeps since when each of the node's attachments has not been wanted.
func (c *controller) idleSince(in Input, now time.Time) func(string) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := map[string]bool{}
	for _, v := range in.Wanted {
		wanted[AttachmentName(v.PV.Spec.CSI.VolumeHandle, v.PV.Spec.CSI.Driver, in.Name)] = true
	}
	idle := map[string]time.Time{}
	for _, a := range in.Attachments {
		if wanted[a.Name] || a.DeletionTimestamp != nil {
			delete(c.unwanted, a.Name)
			continue
		}
		if _, ok := c.unwanted[a.Name]; !ok {
			c.unwanted[a.Name] = now
		}
		idle[a.Name] = c.unwanted[a.Name]
	}
	return func(name string) time.Time { return idle[name] }
}
