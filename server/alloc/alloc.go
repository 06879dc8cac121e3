// Package alloc gives Services what only one of them may have: cluster addresses and node ports.
//
// Invariant: an address belongs to the Service that its IPAddress object names; the store creates that object once, so
// several servers never give the same address. Node ports are those of the Services in the store and of the claims
// under way in this server. What a failed write had claimed is given back.
//
// Only server imports alloc.
package alloc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// Allocator allocates for Services. It is safe for concurrent use.
type Allocator struct {
	st    store.Store
	cidrs []netip.Prefix // configured; ServiceCIDR objects add to them
	ports [2]int         // first and last

	mu sync.Mutex
	// taken is the node ports of claims that are not in the store yet.
	taken map[int]bool
	// shared: other servers allocate on the same store.
	shared bool

	random func(n int) int // in [0,n)
	now    func() time.Time
}

// New makes an allocator for the given service ranges (the first is the default family) and node ports from ports[0] to
// ports[1], both included; zero ports mean 30000 to 32767.
func New(st store.Store, cidrs []netip.Prefix, ports [2]int) *Allocator {
	if ports == [2]int{} {
		ports = [2]int{30000, 32767}
	}
	a := &Allocator{st: st, ports: ports, taken: map[int]bool{}, random: rand.IntN, now: time.Now}
	for _, c := range cidrs {
		a.cidrs = append(a.cidrs, c.Masked())
	}
	return a
}

// Claim completes a Service and reserves what it needs. old is nil for a new one, obj is nil for one that goes. done is
// called once with the outcome of the write; after an error it is not called. Errors are *errors.StatusError.
func (a *Allocator) Claim(ctx context.Context, obj, old api.Object, dryRun bool) (done func(ok bool), err error) {
	before, _ := old.(*corev1.Service)
	if obj == nil {
		return a.release(before, dryRun), nil
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("alloc: %T is no Service", obj))
	}
	if before != nil {
		carry(svc, before)
		dropUnused(svc, before)
	}
	c := &claim{a: a, svc: svc, old: before, dryRun: dryRun}
	if errs := c.families(); len(errs) > 0 {
		return nil, invalid(svc, errs)
	}
	if err := c.addresses(ctx); err != nil {
		c.finish(false)
		return nil, err
	}
	if err := c.nodePorts(ctx); err != nil {
		c.finish(false)
		return nil, err
	}
	return c.finish, nil
}

// release gives back what a deleted Service had. Its node ports are free by its being gone.
func (a *Allocator) release(svc *corev1.Service, dryRun bool) func(bool) {
	return func(ok bool) {
		if !ok || dryRun || svc == nil {
			return
		}
		for _, ip := range addressesOf(svc) {
			a.freeAddress(svc, ip)
		}
	}
}

// claim is what one write of a Service reserves.
type claim struct {
	a        *Allocator
	svc, old *corev1.Service
	dryRun   bool
	ips      []string // created for this write
	ports    []int    // taken for this write
	claims   []*store.Entry
}

func (c *claim) finish(ok bool) {
	c.forget()
	c.a.mu.Lock()
	for _, p := range c.ports {
		delete(c.a.taken, p)
	}
	c.a.mu.Unlock()
	if c.dryRun {
		return
	}
	if !ok {
		for _, ip := range c.ips {
			c.a.freeAddress(c.svc, ip)
		}
		return
	}
	if c.old == nil {
		return
	}
	keep := map[string]bool{}
	for _, ip := range addressesOf(c.svc) {
		keep[ip] = true
	}
	for _, ip := range addressesOf(c.old) {
		if !keep[ip] {
			c.a.freeAddress(c.old, ip)
		}
	}
}

// current waits until the cache knows all that has been written, on other servers too.
func (a *Allocator) current(ctx context.Context) error {
	rev, err := a.st.Revision(ctx)
	if err == nil {
		err = a.st.WaitFor(ctx, rev)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return nil
}

func invalid(svc *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, svc.Name, errs)
}
