package dropin

import (
	"os"
	"time"

	"github.com/google/uuid"
	componentbase "k8s.io/component-base/config/v1alpha1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/reconcile"
)

// leader is upstream's flags about who of several leads.
type leader struct {
	elect           bool
	namespace, name string
	lock            string
	duration        time.Duration
	renew, retry    time.Duration
}

func (l *leader) flags(f *flags, name string) {
	f.BoolVar(&l.elect, "leader-elect", true, "lead only while a Lease is held: others may stand by")
	f.StringVar(&l.name, "leader-elect-resource-name", name, "the Lease's name")
	f.StringVar(&l.namespace, "leader-elect-resource-namespace", "kube-system", "the Lease's namespace")
	f.StringVar(&l.lock, "leader-elect-resource-lock", "leases", "leases is the only kind")
	f.DurationVar(&l.duration, "leader-elect-lease-duration", 15*time.Second, "how long others wait after the last renewal")
	f.DurationVar(&l.renew, "leader-elect-renew-deadline", 10*time.Second, "how long the leader tries to renew")
	f.DurationVar(&l.retry, "leader-elect-retry-period", 2*time.Second, "how often the Lease is tried for")
}

// file takes what a configuration file says and no flag has said.
func (l *leader) file(f *flags, c *componentbase.LeaderElectionConfiguration) {
	if c.LeaderElect != nil && !f.Changed("leader-elect") {
		l.elect = *c.LeaderElect
	}
	if c.ResourceName != "" && !f.Changed("leader-elect-resource-name") {
		l.name = c.ResourceName
	}
	if c.ResourceNamespace != "" && !f.Changed("leader-elect-resource-namespace") {
		l.namespace = c.ResourceNamespace
	}
	for name, d := range map[string]struct {
		from time.Duration
		to   *time.Duration
	}{"lease-duration": {c.LeaseDuration.Duration, &l.duration}, "renew-deadline": {c.RenewDeadline.Duration, &l.renew}, "retry-period": {c.RetryPeriod.Duration, &l.retry}} {
		if d.from > 0 && !f.Changed("leader-elect-"+name) {
			*d.to = d.from
		}
	}
}

func (l *leader) make(p *process, c client.Interface) (*reconcile.Leader, error) {
	if !l.elect {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return &reconcile.Leader{Client: c, Namespace: l.namespace, Name: l.name, Identity: host + "_" + uuid.NewString(), Log: p.log,
		Duration: l.duration, RenewDeadline: l.renew, Retry: l.retry}, nil
}
