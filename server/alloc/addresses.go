package alloc

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

const managedBy = "ipallocator.k8s.io"

var (
	errFull      = errors.New("range is full")
	errAllocated = errors.New("provided IP is already allocated")
	errOutside   = errors.New("the provided network does not match the current range")
)

// orphanAfter is how old an IPAddress must be before a claim may take it over when its Service does not exist: a
// server that died between the two writes leaves one behind.
const orphanAfter = time.Minute

// addresses fills in the cluster addresses that the Service is still without, and reserves those it names itself.
func (c *claim) addresses(ctx context.Context) error {
	svc := c.svc
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	var had []string
	if c.old != nil {
		had = addressesOf(c.old)
	}
	svc.Spec.ClusterIPs = slices.Clone(svc.Spec.ClusterIPs)
	for i, family := range svc.Spec.IPFamilies {
		if i == len(svc.Spec.ClusterIPs) {
			svc.Spec.ClusterIPs = append(svc.Spec.ClusterIPs, "")
		}
		ip := svc.Spec.ClusterIPs[i]
		if ip != "" && slices.Contains(had, ip) {
			continue
		}
		got, err := c.address(ctx, family, ip)
		if err != nil {
			return err
		}
		svc.Spec.ClusterIPs[i] = got
	}
	if len(svc.Spec.ClusterIPs) > 0 {
		svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	}
	return nil
}

// address reserves one address: the given one, or any.
func (c *claim) address(ctx context.Context, family corev1.IPFamily, ip string) (string, error) {
	path := field.NewPath("spec", "clusterIPs")
	if ip == "" {
		got, err := c.anyAddress(ctx, family)
		switch {
		case errors.Is(err, errFull):
			return "", apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP for Service %q: %w", c.svc.Name, err))
		case err != nil:
			return "", invalid(c.svc, field.ErrorList{field.Invalid(path, c.svc.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP: %v", err))})
		}
		return got, nil
	}
	addr, err := netip.ParseAddr(ip) // families has checked it
	if err == nil {
		err = c.givenAddress(ctx, addr)
	}
	if err != nil {
		return "", invalid(c.svc, field.ErrorList{field.Invalid(path, c.svc.Spec.ClusterIPs, fmt.Sprintf("failed to allocate IP %v: %v", ip, err))})
	}
	return ip, nil
}

func (c *claim) givenAddress(ctx context.Context, addr netip.Addr) error {
	in := false
	for _, p := range c.a.ranges() {
		first, last := span(p)
		if p.Contains(addr) {
			if addr.Less(first) || last.Less(addr) {
				return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", addr, p)
			}
			in = true
		}
	}
	if !in {
		return errOutside
	}
	return c.take(ctx, addr)
}

// anyAddress tries the upper part of each range from a random place on, and then the lower part, which is meant for
// addresses that users choose (KEP-3070).
func (c *claim) anyAddress(ctx context.Context, family corev1.IPFamily) (string, error) {
	for _, p := range c.a.ranges() {
		if (family == corev1.IPv6Protocol) != p.Addr().Is6() {
			continue
		}
		first, last := span(p)
		size := distance(first, last) + 1
		offset := band(size, 256, 16)
		for _, part := range [][2]int{{offset, size}, {0, offset}} {
			n := part[1] - part[0]
			if n <= 0 {
				continue
			}
			start := c.a.random(n)
			for i := range n {
				addr := add(first, part[0]+(start+i)%n)
				if _, ok := read.Get[*networkingv1.IPAddress](c.a.st, "", addr.String()); ok {
					continue
				}
				if err := c.take(ctx, addr); err == nil {
					return addr.String(), nil
				} else if !errors.Is(err, errAllocated) {
					return "", err
				}
			}
		}
	}
	return "", errFull
}

// take creates the IPAddress object, which is the reservation.
func (c *claim) take(ctx context.Context, addr netip.Addr) error {
	name, k := addr.String(), read.Kind[*networkingv1.IPAddress]()
	if c.dryRun {
		if _, ok := read.Get[*networkingv1.IPAddress](c.a.st, "", name); ok {
			return errAllocated
		}
		return nil
	}
	family := corev1.IPv4Protocol
	if addr.Is6() {
		family = corev1.IPv6Protocol
	}
	obj := &networkingv1.IPAddress{
		TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uuid.NewString()), Generation: 1,
			CreationTimestamp: metav1.NewTime(c.a.now().Truncate(time.Second)),
			Labels: map[string]string{networkingv1.LabelIPAddressFamily: string(family),
				networkingv1.LabelManagedBy: managedBy}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: c.svc.Namespace, Name: c.svc.Name}},
	}
	for range 2 {
		_, err := c.a.st.Create(ctx, k.Key("", name), obj, 0)
		if err == nil {
			c.ips = append(c.ips, name)
			return nil
		}
		if !errors.Is(err, store.ErrExists) {
			return err
		}
		if !c.a.freeOrphan(ctx, name) {
			break
		}
	}
	return errAllocated
}

// freeOrphan removes an address whose Service does not exist or does not have it, when that is no passing state.
func (a *Allocator) freeOrphan(ctx context.Context, name string) bool {
	if a.current(ctx) != nil {
		return false
	}
	e, ok := read.Entry[*networkingv1.IPAddress](a.st, "", name)
	if !ok {
		return true
	}
	ip, ok := e.Object.(*networkingv1.IPAddress)
	if !ok || ip.Labels[networkingv1.LabelManagedBy] != managedBy || ip.Spec.ParentRef == nil || a.now().Sub(ip.CreationTimestamp.Time) < orphanAfter {
		return false
	}
	svc, ok := read.Get[*corev1.Service](a.st, ip.Spec.ParentRef.Namespace, ip.Spec.ParentRef.Name)
	if ok && slices.Contains(addressesOf(svc), name) {
		return false
	}
	_, err := a.st.Delete(ctx, e.Key, e.Rev)
	return err == nil
}

// freeAddress removes the IPAddress of a Service. The outcome of the Service's own write stands, so an error cannot be
// told to anybody: what stays behind is an orphan.
func (a *Allocator) freeAddress(svc *corev1.Service, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for range 3 {
		e, ok := read.Entry[*networkingv1.IPAddress](a.st, "", name)
		if !ok {
			if a.current(ctx) != nil {
				return
			}
			if e, ok = read.Entry[*networkingv1.IPAddress](a.st, "", name); !ok {
				return
			}
		}
		ip, ok := e.Object.(*networkingv1.IPAddress)
		if !ok || ip.Spec.ParentRef == nil || ip.Spec.ParentRef.Namespace != svc.Namespace || ip.Spec.ParentRef.Name != svc.Name {
			return
		}
		var conflict *store.Conflict
		if _, err := a.st.Delete(ctx, e.Key, e.Rev); !errors.As(err, &conflict) || a.current(ctx) != nil {
			return
		}
	}
}

// ranges are the configured ranges, then those of ServiceCIDR objects that are ready.
func (a *Allocator) ranges() []netip.Prefix {
	out := slices.Clone(a.cidrs)
	for o := range read.All[*networkingv1.ServiceCIDR](a.st, "") {
		if o.DeletionTimestamp != nil || !slices.ContainsFunc(o.Status.Conditions, func(c metav1.Condition) bool {
			return c.Type == networkingv1.ServiceCIDRConditionReady && c.Status == metav1.ConditionTrue
		}) {
			continue
		}
		for _, s := range o.Spec.CIDRs {
			if p, err := netip.ParsePrefix(s); err == nil && !slices.Contains(out, p.Masked()) {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}

// addressesOf is the cluster addresses of a Service, without "None".
func addressesOf(svc *corev1.Service) []string {
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return svc.Spec.ClusterIPs
}

// span is the first and the last address of a range that may be given: not the network's own, nor IPv4's broadcast.
func span(p netip.Prefix) (first, last netip.Addr) {
	first = p.Masked().Addr()
	bits := first.BitLen() - p.Bits()
	n := new(big.Int).Lsh(big.NewInt(1), uint(min(bits, 62)))
	last = add(first, int(n.Int64())-1)
	if bits > 1 && first.Is4() {
		last = last.Prev()
	}
	if bits > 0 {
		first = first.Next()
	}
	return first, last
}

func add(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	sum := new(big.Int).Add(new(big.Int).SetBytes(b), big.NewInt(int64(n)))
	out, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, len(b))))
	return out
}

func distance(a, b netip.Addr) int {
	d := new(big.Int).Sub(new(big.Int).SetBytes(b.AsSlice()), new(big.Int).SetBytes(a.AsSlice()))
	return int(d.Int64())
}

// band is how many values at the start of a range are left to those who choose them: between 16 and most, as a share
// of the range; nothing of a small range.
func band(size, most, step int) int {
	if size <= 16 {
		return 0
	}
	return min(max(size/step, 16), most)
}
