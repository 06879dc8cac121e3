// Package devicetaint deletes pods that use devices with NoExecute taints that their claims do not tolerate, or no
// longer (KEP-5055).
//
// Invariant: a pod is deleted only while a device that a claim holds for it has such a taint, and never before the
// shortest of the tolerations that apply has run out. Only controllers/ may import devicetaint.
package devicetaint

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// Plan evicts the pod, says when it will have to go, or lets it stay (0).
func Plan(p *corev1.Pod, claims []*resourcev1.ResourceClaim, taints func(resourcev1.DeviceRequestAllocationResult) []resourcev1.DeviceTaint, now time.Time) (actions []plan.Action, again time.Duration) {
	if p.DeletionTimestamp != nil || pods.Finished(p) {
		return nil, 0
	}
	var due time.Time
	for _, c := range claims {
		if t := deadline(c, taints, now); !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if due.IsZero() {
		return nil, 0
	}
	if left := due.Sub(now); left > 0 {
		return nil, left
	}
	marked := p.DeepCopy()
	actions = append(actions, plan.Normal(p, "DeviceTaintManagerEviction", "Marking for deletion"))
	if pods.SetCondition(marked, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByDeviceTaintManager",
		Message: "Device Taint manager: deleting due to NoExecute taint", LastTransitionTime: metav1.NewTime(now)}) {
		actions = append(actions, plan.Status(marked))
	}
	return append(actions, plan.Delete{Obj: p}), 0
}

// deadline is when the pods of a claim must go; zero if they may stay.
func deadline(c *resourcev1.ResourceClaim, taints func(resourcev1.DeviceRequestAllocationResult) []resourcev1.DeviceTaint, now time.Time) (due time.Time) {
	for _, r := range c.Status.Allocation.Devices.Results {
		for _, t := range taints(r) {
			if t.Effect != resourcev1.DeviceTaintEffectNoExecute {
				continue
			}
			at := now
			if t.TimeAdded != nil {
				at = t.TimeAdded.Time
			}
			grace, ever := tolerated(r.Tolerations, t)
			if at = at.Add(grace); !ever && (due.IsZero() || at.Before(due)) {
				due = at
			}
		}
	}
	return due
}

// tolerated is for how long a taint is borne, or that it is borne for ever.
func tolerated(list []resourcev1.DeviceToleration, t resourcev1.DeviceTaint) (grace time.Duration, ever bool) {
	first := true
	for _, tol := range list {
		if tol.Effect != resourcev1.DeviceTaintEffectNoExecute || tol.Key != "" && tol.Key != t.Key ||
			tol.Operator != resourcev1.DeviceTolerationOpExists && tol.Value != t.Value {
			continue
		}
		if tol.TolerationSeconds == nil {
			return 0, true
		}
		if d := time.Duration(max(*tol.TolerationSeconds, 0)) * time.Second; first || d < grace {
			grace, first = d, false
		}
	}
	return grace, false
}

// Indexes: slices, and claims with devices, by "driver/pool"; claims by the UID of each pod that they are reserved for.
const (
	byPool = "pool"
	byUser = "user"
)

type controller struct {
	reconcile.Deps
	pods   *client.Cache[*corev1.Pod]
	claims *client.Cache[*resourcev1.ResourceClaim]
	slices *client.Cache[*resourcev1.ResourceSlice]
}

// New is the device taint eviction controller. Its keys are pods.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	c := &controller{Deps: d, pods: client.CacheOf[*corev1.Pod](cs), claims: client.CacheOf[*resourcev1.ResourceClaim](cs), slices: client.CacheOf[*resourcev1.ResourceSlice](cs)}
	c.slices.AddIndex(byPool, func(s *resourcev1.ResourceSlice) []string { return []string{s.Spec.Driver + "/" + s.Spec.Pool.Name} })
	c.claims.AddIndex(byPool, func(c *resourcev1.ResourceClaim) (out []string) {
		seen := map[string]bool{}
		for _, r := range results(c) {
			if k := r.Driver + "/" + r.Pool; !seen[k] {
				seen[k], out = true, append(out, k)
			}
		}
		return out
	})
	c.claims.AddIndex(byUser, func(c *resourcev1.ResourceClaim) (out []string) {
		for _, r := range c.Status.ReservedFor {
			out = append(out, string(r.UID))
		}
		return out
	})
	return reconcile.Controller{
		Name: "device-taint-eviction-controller",
		Inputs: []reconcile.Input{
			reconcile.Map(cs, func(old, new *corev1.Pod) []reconcile.Key {
				if new == nil || old != nil && old.Spec.NodeName == new.Spec.NodeName || new.Spec.NodeName == "" || len(c.claims.By(byUser, string(new.UID))) == 0 {
					return nil
				}
				return []reconcile.Key{plan.KeyOf(new)}
			}),
			reconcile.Map(cs, func(_, new *resourcev1.ResourceClaim) []reconcile.Key {
				if new == nil {
					return nil
				}
				return users(new)
			}),
			reconcile.Map(cs, c.sliceChanged),
		},
		Writes:    []string{"pods", "pods/status"},
		Reconcile: c.reconcile,
	}
}

func results(c *resourcev1.ResourceClaim) []resourcev1.DeviceRequestAllocationResult {
	if c.Status.Allocation == nil {
		return nil
	}
	return c.Status.Allocation.Devices.Results
}

func users(c *resourcev1.ResourceClaim) (keys []reconcile.Key) {
	if len(results(c)) == 0 {
		return nil
	}
	for _, r := range c.Status.ReservedFor {
		if r.APIGroup == "" && r.Resource == "pods" {
			keys = append(keys, reconcile.Key{Namespace: c.Namespace, Name: r.Name})
		}
	}
	return keys
}

// sliceChanged makes the users of a pool due when taints that evict come or go in it.
func (c *controller) sliceChanged(old, new *resourcev1.ResourceSlice) (keys []reconcile.Key) {
	for _, s := range []*resourcev1.ResourceSlice{old, new} {
		if s == nil || !evicts(s) {
			continue
		}
		for _, claim := range c.claims.By(byPool, s.Spec.Driver+"/"+s.Spec.Pool.Name) {
			keys = append(keys, users(claim)...)
		}
		break
	}
	return keys
}

func evicts(s *resourcev1.ResourceSlice) bool {
	for i := range s.Spec.Devices {
		for _, t := range s.Spec.Devices[i].Taints {
			if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
				return true
			}
		}
	}
	return false
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	p, ok := c.pods.Get(key.Namespace, key.Name)
	if !ok || p.Spec.NodeName == "" {
		return reconcile.Result{}, nil
	}
	var held []*resourcev1.ResourceClaim
	for _, claim := range c.claims.By(byUser, string(p.UID)) {
		if len(results(claim)) > 0 {
			held = append(held, claim)
		}
	}
	actions, again := Plan(p, held, c.taints, c.Clock.Now())
	return reconcile.Result{After: again}, plan.Apply(ctx, c.Deps, actions...)
}

// taints are those of an allocated device, as the newest generation of its pool has it.
func (c *controller) taints(r resourcev1.DeviceRequestAllocationResult) (out []resourcev1.DeviceTaint) {
	newest := int64(-1)
	for _, s := range c.slices.By(byPool, r.Driver+"/"+r.Pool) {
		if s.Spec.Pool.Generation < newest {
			continue
		}
		for i := range s.Spec.Devices {
			if s.Spec.Devices[i].Name == r.Device {
				newest, out = s.Spec.Pool.Generation, s.Spec.Devices[i].Taints
			}
		}
	}
	return out
}
