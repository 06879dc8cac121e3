package alloc

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/server/internal/read"
)

var errPortAllocated = errors.New("provided port is already allocated")

// nodePorts fills in the node ports that the Service is still without and reserves those it names itself.
func (c *claim) nodePorts(ctx context.Context) error {
	svc := c.svc
	exposed := svc.Spec.Type == corev1.ServiceTypeNodePort || svc.Spec.Type == corev1.ServiceTypeLoadBalancer
	if !exposed {
		return nil
	}
	had := map[int]bool{}
	if c.old != nil {
		if err := sameTwice(svc); err != nil {
			return err
		}
		for _, p := range portsOf(c.old) {
			had[p] = true
		}
	}
	if !needsPorts(svc, had) {
		return nil
	}
	if err := c.a.current(ctx); err != nil {
		return err
	}
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	used := c.a.used()
	for p := range had { // its own
		delete(used, p)
	}
	if err := c.listedPorts(ctx, used, had); err != nil {
		return err
	}
	return c.healthCheckPort(ctx, used, had)
}

// needsPorts reports whether anything must be reserved at all, so that most updates need not look at all Services.
func needsPorts(svc *corev1.Service, had map[int]bool) bool {
	for i := range svc.Spec.Ports {
		p := int(svc.Spec.Ports[i].NodePort)
		if (p == 0 && allocates(svc)) || (p != 0 && !had[p]) {
			return true
		}
	}
	hc := int(svc.Spec.HealthCheckNodePort)
	return needsHealthCheck(svc) && (hc == 0 || !had[hc])
}

func (c *claim) listedPorts(ctx context.Context, used map[int]bool, had map[int]bool) error {
	svc := c.svc
	mine := map[int]bool{} // one port may serve two protocols of one Service
	byPort := map[int32]int32{}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if p.NodePort == 0 {
			continue
		}
		n := int(p.NodePort)
		// A new Service shares a node port between protocols of one port alone, as upstream has it.
		shared := mine[n] && (c.old != nil || byPort[p.Port] == p.NodePort)
		byPort[p.Port] = p.NodePort
		if had[n] || shared {
			continue
		}
		if err := c.takePort(ctx, used, n); err != nil {
			return invalid(svc, field.ErrorList{field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), p.NodePort, err.Error())})
		}
		mine[n] = true
	}
	if !allocates(svc) {
		return nil
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if p.NodePort != 0 {
			continue
		}
		// The same port in another protocol shares the node port, in new Services only, as upstream does.
		if n, ok := byPort[p.Port]; ok && c.old == nil {
			p.NodePort = n
			continue
		}
		n, err := c.anyPort(ctx, used)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
		p.NodePort = int32(n)
		byPort[p.Port] = p.NodePort
	}
	return nil
}

// sameTwice says which node port a Service names twice for one protocol.
func sameTwice(svc *corev1.Service) error {
	type nodePort struct {
		Protocol corev1.Protocol
		NodePort int32
	}
	seen := map[nodePort]bool{}
	for _, p := range svc.Spec.Ports {
		n := nodePort{p.Protocol, p.NodePort}
		if n.NodePort != 0 && seen[n] {
			return fmt.Errorf("duplicate nodePort: %v", n)
		}
		seen[n] = true
	}
	return nil
}

func (c *claim) healthCheckPort(ctx context.Context, used map[int]bool, had map[int]bool) error {
	svc := c.svc
	if !needsHealthCheck(svc) {
		return nil
	}
	n := int(svc.Spec.HealthCheckNodePort)
	switch {
	case n == 0:
		n, err := c.anyPort(ctx, used)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort %v: %v", 0, err))
		}
		svc.Spec.HealthCheckNodePort = int32(n)
	case !had[n] && (c.old == nil || !needsHealthCheck(c.old)): // validation refuses another one
		if err := c.takePort(ctx, used, n); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %v", n, err))
		}
	}
	return nil
}

func (c *claim) takePort(ctx context.Context, used map[int]bool, n int) error {
	if !c.dryRun && (n < c.a.ports[0] || n > c.a.ports[1]) { // nor does upstream's dry run look at the range
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", c.a.ports[0], c.a.ports[1])
	}
	if used[n] {
		return errPortAllocated
	}
	used[n] = true
	switch ok, err := c.reserve(ctx, n); {
	case err != nil:
		return err
	case !ok:
		return errPortAllocated
	}
	c.a.taken[n] = true
	c.ports = append(c.ports, n)
	return nil
}

// anyPort prefers the upper part of the range: the lower is meant for ports that users choose (KEP-3668).
func (c *claim) anyPort(ctx context.Context, used map[int]bool) (int, error) {
	first, size := c.a.ports[0], c.a.ports[1]-c.a.ports[0]+1
	offset := band(size, 128, 32)
	for _, part := range [][2]int{{offset, size}, {0, offset}} {
		n := part[1] - part[0]
		if n <= 0 {
			continue
		}
		start := c.a.random(n)
		for i := range n {
			p := first + part[0] + (start+i)%n
			if used[p] {
				continue
			}
			if err := c.takePort(ctx, used, p); !errors.Is(err, errPortAllocated) {
				return p, err
			}
		}
	}
	return 0, errFull
}

// used is all ports of the Services in the store and of claims under way. The caller holds the lock.
func (a *Allocator) used() map[int]bool {
	used := make(map[int]bool, len(a.taken))
	for p := range a.taken {
		used[p] = true
	}
	for svc := range read.All[*corev1.Service](a.st, "") {
		for _, p := range portsOf(svc) {
			used[p] = true
		}
	}
	return used
}

// portsOf is the node ports that a Service holds.
func portsOf(svc *corev1.Service) []int {
	var out []int
	for i := range svc.Spec.Ports {
		if p := svc.Spec.Ports[i].NodePort; p != 0 {
			out = append(out, int(p))
		}
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		out = append(out, int(p))
	}
	return out
}

func allocates(svc *corev1.Service) bool {
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

func needsHealthCheck(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}
