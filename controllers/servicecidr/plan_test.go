package servicecidr

import (
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/controllers/plan"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func cidr(name, prefix string, deleted time.Duration, finalizers ...string) *networkingv1.ServiceCIDR {
	r := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Finalizers: finalizers}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{prefix}}}
	if deleted > 0 {
		r.DeletionTimestamp = &metav1.Time{Time: now.Add(-deleted)}
	}
	return r
}

func TestRangeGoesOnlyWhenNobodyNeedsIt(t *testing.T) {
	used := []*networkingv1.IPAddress{{ObjectMeta: metav1.ObjectMeta{Name: "10.1.0.7"}}}
	elsewhere := []*networkingv1.IPAddress{{ObjectMeta: metav1.ObjectMeta{Name: "10.2.0.7"}}}
	for name, c := range map[string]struct {
		r         *networkingv1.ServiceCIDR
		other     *networkingv1.ServiceCIDR
		addresses []*networkingv1.IPAddress
		want      string
		again     time.Duration
	}{
		"new":                     {r: cidr("a", "10.1.0.0/16", 0), want: "finalizer on"},
		"lives":                   {r: cidr("a", "10.1.0.0/16", 0, finalizer), addresses: used, want: "True"},
		"deleted in use":          {r: cidr("a", "10.1.0.0/16", time.Minute, finalizer), addresses: used, want: "False Terminating"},
		"deleted, used by others": {r: cidr("a", "10.1.0.0/16", time.Minute, finalizer), addresses: elsewhere, want: "finalizer off"},
		"deleted, covered":        {r: cidr("a", "10.1.0.0/16", time.Minute, finalizer), other: cidr("b", "10.0.0.0/8", 0), addresses: used, want: "finalizer off"},
		"both deleted":            {r: cidr("a", "10.1.0.0/16", time.Minute, finalizer), other: cidr("b", "10.0.0.0/8", time.Minute), addresses: used, want: "False Terminating"},
		"deleted just now":        {r: cidr("a", "10.1.0.0/16", 4*time.Second, finalizer), again: 6 * time.Second},
		"deleted, unprotected":    {r: cidr("a", "10.1.0.0/16", time.Minute)},
	} {
		t.Run(name, func(t *testing.T) {
			all := []*networkingv1.ServiceCIDR{c.r}
			if c.other != nil {
				all = append(all, c.other)
			}
			actions, again := Plan(c.r, all, c.addresses, now)
			got := ""
			for _, a := range actions {
				u := a.(plan.Update)
				next := u.Obj.(*networkingv1.ServiceCIDR)
				switch {
				case u.Subresource == "status":
					cond := next.Status.Conditions[0]
					if got = string(cond.Status); cond.Reason != "" {
						got += " " + cond.Reason
					}
				case len(next.Finalizers) > 0:
					got = "finalizer on"
				default:
					got = "finalizer off"
				}
			}
			if got != c.want || again != c.again {
				t.Errorf("%q again in %v, want %q in %v", got, again, c.want, c.again)
			}
		})
	}
}
