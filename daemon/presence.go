package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/server/bootstrap"
	"github.com/skiff-sh/skiff/store/etcd"
)

// Upstream's times, so that servers of both kinds judge one another alike.
const (
	presenceEvery    = 10 * time.Second
	presenceTTL      = 15   // seconds after which a server that does not renew counts as gone
	identityDuration = 3600 // seconds that a server's identity Lease lasts without renewal
	identityLabel    = "apiserver.kubernetes.io/identity"
)

// presence tells the cluster that this API server lives: in etcd among the servers, from whose list the endpoints of the
// Service kubernetes are made, and as a Lease with the server's identity.
type presence struct {
	self     client.Interface
	store    *etcd.Store
	at       netip.AddrPort
	service  netip.Addr // the cluster address of the Service kubernetes; invalid: there is none
	hostName string
	holder   string
	log      *slog.Logger
	told     string    // the last error, which is not told again
	swept    time.Time // when the identities of dead servers were last looked through
}

func (a *APIServer) presence(self client.Interface, st *etcd.Store) *presence {
	p := &presence{self: self, store: st, at: a.Advertise, hostName: a.HostName, log: a.Log}
	if len(a.Server.ServiceCIDRs) > 0 && !a.NoEndpoints {
		p.service = a.Server.ServiceCIDRs[0].Masked().Addr().Next()
	}
	p.holder = p.name() + "_" + uuid.NewString()
	return p
}

// name is the identity's: one for each address and machine, so that a restarted server takes its old Lease up.
func (p *presence) name() string {
	sum := sha256.Sum256([]byte(p.hostName + "/" + p.at.String()))
	return "apiserver-" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// run renews until ctx ends, then takes the server off the list. Errors are told and tried again: a cluster whose
// endpoints cannot be written (a loopback address may not be one) still serves.
func (p *presence) run(ctx context.Context) error {
	entry, err := p.store.Presence(p.at.Addr().String())
	if err != nil {
		return err
	}
	tick := time.NewTicker(presenceEvery)
	defer tick.Stop()
	for {
		p.tell(p.renew(ctx, entry))
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := entry.Remove(bye); err != nil {
			return nil // etcd is gone too; the entry runs out by itself
		}
		p.tell(p.endpoints(bye))
		return nil
	}
}

func (p *presence) tell(err error) {
	if err == nil {
		p.told = ""
		return
	}
	if p.told != err.Error() {
		p.told = err.Error()
		p.log.Warn("the server cannot announce itself", "err", err)
	}
}

func (p *presence) renew(ctx context.Context, entry *etcd.Presence) error {
	if err := entry.Renew(ctx, presenceTTL); err != nil {
		return fmt.Errorf("the server's entry in etcd: %w", err)
	}
	if err := p.identity(ctx); err != nil {
		return fmt.Errorf("the server's identity: %w", err)
	}
	if err := p.endpoints(ctx); err != nil {
		return err
	}
	return p.sweep(ctx, time.Now())
}

// endpoints leads the Service kubernetes to all living servers. The last one to go leaves its own address there.
func (p *presence) endpoints(ctx context.Context) error {
	if !p.service.IsValid() {
		return nil
	}
	alive, err := p.store.Servers(ctx)
	if err != nil {
		return err
	}
	var addrs []netip.Addr
	for _, s := range alive {
		if a, err := netip.ParseAddr(s); err == nil {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	return bootstrap.KubernetesService(ctx, p.self, p.service, addrs, int(p.at.Port()))
}

func (p *presence) identity(ctx context.Context) error {
	now, seconds, name := metav1.NowMicro(), int32(identityDuration), p.name()
	lease, err := client.Get[*coordinationv1.Lease](ctx, p.self, metav1.NamespaceSystem, name)
	if apierrors.IsNotFound(err) {
		_, err = client.Create(ctx, p.self, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: name,
				Labels: map[string]string{identityLabel: "kube-apiserver", "kubernetes.io/hostname": p.hostName}},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: &p.holder, LeaseDurationSeconds: &seconds, RenewTime: &now}})
		return err
	}
	if err != nil {
		return err
	}
	lease = lease.DeepCopy()
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &p.holder, &seconds, &now
	_, err = client.Update(ctx, p.self, lease)
	return err
}

// sweep removes, once in an hour, the identity Leases that have run out. A server that lives after all writes its own again.
func (p *presence) sweep(ctx context.Context, now time.Time) error {
	if now.Sub(p.swept) < identityDuration*time.Second {
		return nil
	}
	leases, err := client.List[*coordinationv1.Lease](ctx, p.self, metav1.NamespaceSystem,
		metav1.ListOptions{LabelSelector: identityLabel + "=kube-apiserver"})
	if err != nil {
		return err
	}
	for _, l := range leases {
		if l.Name == p.name() || !lapsed(l, now) {
			continue
		}
		if err := client.Delete[*coordinationv1.Lease](ctx, p.self, l.Namespace, l.Name, l.UID); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("the identity of a dead server: %w", err)
		}
	}
	p.swept = now
	return nil
}

// lapsed reports whether a Lease is over; one that tells no end is.
func lapsed(l *coordinationv1.Lease, now time.Time) bool {
	s := l.Spec
	return s.RenewTime == nil || s.LeaseDurationSeconds == nil ||
		s.RenewTime.Add(time.Duration(*s.LeaseDurationSeconds)*time.Second).Before(now)
}
