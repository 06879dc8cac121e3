package alloc

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api/codec"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// claimsPrefix holds a key for each node port that a server is about to give away, as long as that takes. Its objects are
// Leases, for want of a smaller kind; the key alone matters.
const claimsPrefix = "/registry/skiff/nodeports/"

// claimSeconds is after how long a claim whose server died is forgotten. It is longer than any request takes.
const claimSeconds = 120

// Share makes the allocator safe beside others on the same store: a node port is claimed by a key of its own before
// it is written into a Service.
func (a *Allocator) Share(ctx context.Context) error {
	a.shared = true
	return a.st.Register(ctx, claimsPrefix, codec.For(read.Kind[*coordinationv1.Lease]()))
}

// reserve claims the port beside other servers. It reports false when another server has it, or is about to.
func (c *claim) reserve(ctx context.Context, port int) (bool, error) {
	if !c.a.shared || c.dryRun {
		return true, nil
	}
	key := claimsPrefix + strconv.Itoa(port)
	e, err := c.a.st.Create(ctx, key, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: strconv.Itoa(port)}}, claimSeconds)
	if errors.Is(err, store.ErrExists) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.claims = append(c.claims, e)
	// Whoever held the claim before had written the Service by then, and the cache has reached this claim's revision.
	for svc := range read.All[*corev1.Service](c.a.st, "") {
		if (c.old == nil || svc.UID != c.old.UID) && slices.Contains(portsOf(svc), port) {
			return false, nil
		}
	}
	return true, nil
}

// forget gives the claims back. One that cannot be is forgotten by itself.
func (c *claim) forget() {
	if len(c.claims) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, e := range c.claims {
		_, _ = c.a.st.Delete(ctx, e.Key, e.Rev)
	}
	c.claims = nil
}
