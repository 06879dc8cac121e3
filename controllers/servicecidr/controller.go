// Package servicecidr keeps the ServiceCIDRs' condition and finalizer: a range goes only when no address of it is in
// use that no other range covers.
//
// Invariant: the finalizer is removed only when every range of the object lies within another one, or none of its
// addresses is allocated, and the deletion has been known long enough that no allocator still takes from it. Only
// controllers/ may import servicecidr.
package servicecidr

import (
	"context"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// settle is how long a range that is being deleted stays, so that all allocators hear of it.
	settle = 10 * time.Second
)

// New is the ServiceCIDR controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	ranges, addresses := client.CacheOf[*networkingv1.ServiceCIDR](cs), client.CacheOf[*networkingv1.IPAddress](cs)
	return reconcile.Controller{
		Name: "service-cidr-controller",
		Inputs: []reconcile.Input{
			reconcile.Map(cs, func(old, new *networkingv1.ServiceCIDR) (keys []reconcile.Key) {
				r := new
				if r == nil {
					r = old
				} else {
					keys = append(keys, plan.KeyOf(r))
				}
				// Those that are being deleted may depend on this one's coming or going.
				for _, other := range ranges.List("") {
					if other.Name != r.Name && other.DeletionTimestamp != nil {
						keys = append(keys, plan.KeyOf(other))
					}
				}
				return keys
			}),
			reconcile.Map(cs, func(old, new *networkingv1.IPAddress) (keys []reconcile.Key) {
				if new != nil {
					return nil
				}
				for _, r := range ranges.List("") {
					if r.DeletionTimestamp != nil {
						keys = append(keys, plan.KeyOf(r))
					}
				}
				return keys
			}),
		},
		Writes: []string{"networking.k8s.io/servicecidrs", "networking.k8s.io/servicecidrs/status"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			r, ok := ranges.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			actions, again := Plan(r, ranges.List(""), addresses.List(""), d.Clock.Now())
			return reconcile.Result{After: again}, plan.Apply(ctx, d, actions...)
		},
	}
}

// Plan is the range's next step; all includes the range itself.
func Plan(r *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress, now time.Time) (actions []plan.Action, again time.Duration) {
	has := slices.Contains(r.Finalizers, finalizer)
	switch {
	case r.DeletionTimestamp == nil && !has:
		next := r.DeepCopy()
		next.Finalizers = append(next.Finalizers, finalizer)
		return []plan.Action{plan.Update{Obj: next}}, 0
	case r.DeletionTimestamp == nil:
		return ready(r, metav1.Condition{Status: metav1.ConditionTrue, Message: "Kubernetes Service CIDR is ready"}, now), 0
	case !has:
		return nil, 0
	case needed(r, all, addresses):
		return ready(r, metav1.Condition{Status: metav1.ConditionFalse, Reason: networkingv1.ServiceCIDRReasonTerminating,
			Message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"}, now), 0
	}
	if left := r.DeletionTimestamp.Add(settle).Sub(now); left > 0 {
		return nil, left
	}
	next := r.DeepCopy()
	next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == finalizer })
	return []plan.Action{plan.Update{Obj: next}}, 0
}

// ready brings the Ready condition up to date.
func ready(r *networkingv1.ServiceCIDR, c metav1.Condition, now time.Time) []plan.Action {
	c.Type, c.LastTransitionTime = networkingv1.ServiceCIDRConditionReady, metav1.NewTime(now)
	next := r.DeepCopy()
	at := slices.IndexFunc(next.Status.Conditions, func(o metav1.Condition) bool { return o.Type == c.Type })
	if at < 0 {
		next.Status.Conditions = append(next.Status.Conditions, c)
		return []plan.Action{plan.Status(next)}
	}
	old := &next.Status.Conditions[at]
	if old.Status == c.Status && old.Reason == c.Reason && old.Message == c.Message {
		return nil
	}
	if old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
	}
	*old = c
	return []plan.Action{plan.Status(next)}
}

// needed reports whether an address would be left without a range.
func needed(r *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, addresses []*networkingv1.IPAddress) bool {
	own, others := prefixes(r), []netip.Prefix(nil)
	for _, o := range all {
		if o.UID != r.UID && o.DeletionTimestamp == nil {
			others = append(others, prefixes(o)...)
		}
	}
	in := func(ps []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return slices.ContainsFunc(addresses, func(a *networkingv1.IPAddress) bool {
		ip, err := netip.ParseAddr(a.Name)
		return err == nil && in(own, ip) && !in(others, ip)
	})
}

func prefixes(r *networkingv1.ServiceCIDR) (out []netip.Prefix) {
	for _, s := range r.Spec.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, p)
		}
	}
	return out
}
