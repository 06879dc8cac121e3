// Package nodeipam gives every node a range of pod addresses of its own.
//
// Invariant: no two nodes get overlapping ranges, and a range that a node has is never changed. Only controllers/ may
// import nodeipam.
package nodeipam

import (
	"context"
	"encoding/json"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the node address controller: it cuts ranges of nodeBits bits (24) out of cluster. One worker, so that two
// nodes never choose the same range at once.
func New(d reconcile.Deps, cluster netip.Prefix, nodeBits int) reconcile.Controller {
	nodes := client.CacheOf[*corev1.Node](d.Caches)
	return reconcile.Controller{
		Name: "node-ipam-controller", Workers: 1,
		Inputs: []reconcile.Input{
			reconcile.Own[*corev1.Node](d.Caches),
			reconcile.Map(d.Caches, func(old, new *corev1.Node) []reconcile.Key {
				if new != nil {
					return nil
				}
				return waiting(nodes.List("")) // a range became free
			}),
		},
		Writes: []string{"nodes"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			node, ok := nodes.Get("", key.Name)
			if !ok || node.Spec.PodCIDR != "" {
				return reconcile.Result{}, nil
			}
			actions := Plan(node, nodes.List(""), cluster, nodeBits)
			err := plan.Apply(ctx, d, actions...)
			if err == nil && len(actions) > 0 {
				// Other nodes choose next: they must see this choice.
				if live, err := client.Get[*corev1.Node](ctx, d.Client, "", key.Name); err == nil {
					err = nodes.WaitFor(ctx, live.ResourceVersion)
					return reconcile.Result{}, err
				}
			}
			return reconcile.Result{}, err
		},
	}
}

func waiting(nodes []*corev1.Node) (keys []reconcile.Key) {
	for _, n := range nodes {
		if n.Spec.PodCIDR == "" {
			keys = append(keys, plan.KeyOf(n))
		}
	}
	return keys
}

// Plan gives the node the first range that no node overlaps.
func Plan(node *corev1.Node, all []*corev1.Node, cluster netip.Prefix, nodeBits int) []plan.Action {
	var used []netip.Prefix
	for _, n := range all {
		for _, s := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
			if p, err := netip.ParsePrefix(s); err == nil {
				used = append(used, p)
			}
		}
	}
	free, ok := firstFree(cluster, nodeBits, used)
	if !ok {
		return []plan.Action{plan.Normal(node, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", node.Name)}
	}
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"podCIDR": free.String(), "podCIDRs": []string{free.String()}}})
	if err != nil {
		panic(err)
	}
	return []plan.Action{plan.Patch{Obj: node, Type: types.StrategicMergePatchType, Data: data}}
}

// firstFree finds the lowest prefix of the given length within cluster that overlaps none of used.
func firstFree(cluster netip.Prefix, bits int, used []netip.Prefix) (netip.Prefix, bool) {
	taken := make(map[netip.Addr]bool, len(used))
	var odd []netip.Prefix // ranges of another size, cut by hand
	for _, u := range used {
		if u.Bits() == bits {
			taken[u.Masked().Addr()] = true
		} else {
			odd = append(odd, u)
		}
	}
candidates:
	for p := netip.PrefixFrom(cluster.Masked().Addr(), bits); cluster.Contains(p.Addr()); p = next(p) {
		if taken[p.Addr()] {
			continue
		}
		for _, u := range odd {
			if u.Overlaps(p) {
				continue candidates
			}
		}
		return p, true
	}
	return netip.Prefix{}, false
}

// next is the following prefix of the same length; past the last one it is invalid, which no range contains.
func next(p netip.Prefix) netip.Prefix {
	b := p.Addr().AsSlice()
	for bit := p.Bits() - 1; bit >= 0; bit-- {
		mask := byte(1) << (7 - bit%8)
		b[bit/8] ^= mask
		if b[bit/8]&mask != 0 {
			a, _ := netip.AddrFromSlice(b)
			return netip.PrefixFrom(a, p.Bits())
		}
	}
	return netip.Prefix{}
}
