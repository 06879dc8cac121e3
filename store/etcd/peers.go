package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Peers makes the embedded member one of several. All members trust the same authority, and nobody else.
type Peers struct {
	// Name tells the members apart; it never changes.
	Name string
	// URL is where the other members reach this one ("https://10.0.0.1:2380"). ClientURL is where a member that joins
	// asks to be added ("https://10.0.0.1:2379").
	URL, ClientURL string
	// CertFile, KeyFile and CAFile prove this member to the others, and them to it. The certificate is for servers and
	// for clients.
	CertFile, KeyFile, CAFile string
	// Join is ClientURLs of members of the cluster to join at the first start. None: the member starts a cluster, or
	// goes on with what its folder holds.
	Join []string
}

func (p *Peers) tls() transport.TLSInfo {
	// A member may have more addresses than its certificate names; the authority signs for members alone.
	return transport.TLSInfo{CertFile: p.CertFile, KeyFile: p.KeyFile, TrustedCAFile: p.CAFile, ClientCertAuth: true, SkipClientSANVerify: true}
}

// configure changes a single member's configuration into that of one of several, and asks to be added where it is new.
func (p *Peers) configure(ctx context.Context, c *embed.Config) error {
	peer, err := url.Parse(p.URL)
	if err != nil {
		return fmt.Errorf("the peers' address: %w", err)
	}
	clients, err := url.Parse(p.ClientURL)
	if err != nil {
		return fmt.Errorf("the clients' address: %w", err)
	}
	c.Name = p.Name
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	c.PeerTLSInfo, c.ClientTLSInfo = p.tls(), p.tls()
	c.ElectionMs = 10 * c.TickMs                            // the members are a network apart
	c.SnapshotCount, c.SnapshotCatchUpEntries = 10000, 5000 // a member that was away catches up from the log
	c.StrictReconfigCheck = true
	c.InitialCluster = c.InitialClusterFromName(p.Name)
	switch _, err := os.Stat(filepath.Join(c.Dir, "member")); {
	case err == nil || len(p.Join) == 0:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	c.ClusterState = embed.ClusterStateFlagExisting
	c.InitialCluster, err = p.join(ctx)
	return err
}

// join adds this member to the cluster and returns etcd's list of all members, this one included. It may be called
// again after a start that failed.
func (p *Peers) join(ctx context.Context) (string, error) {
	info := p.tls()
	tc, err := info.ClientConfig()
	if err != nil {
		return "", err
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: p.Join, TLS: tc, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return "", err
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	list, err := cli.MemberList(ctx)
	if err != nil {
		return "", fmt.Errorf("joining etcd through %s: %w", strings.Join(p.Join, ", "), err)
	}
	members := list.Members
	known := false
	for _, m := range members {
		known = known || len(m.PeerURLs) > 0 && m.PeerURLs[0] == p.URL
	}
	// The cluster refuses a new member while another is about to start (its quorum would be at risk).
	for wait := 100 * time.Millisecond; !known; wait = min(2*wait, 2*time.Second) {
		added, err := cli.MemberAdd(ctx, []string{p.URL})
		if err == nil {
			members = added.Members
			break
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("joining etcd through %s: %w", strings.Join(p.Join, ", "), err)
		case <-time.After(wait):
		}
	}
	var all []string
	for _, m := range members {
		for _, u := range m.PeerURLs {
			name := m.Name
			if u == p.URL {
				name = p.Name
			}
			all = append(all, name+"="+u)
		}
	}
	return strings.Join(all, ","), nil
}

// advertise tells the cluster where this member is, when that has changed since it joined.
func (m *member) advertise(ctx context.Context, at string) error {
	self := m.etcd.Server.MemberID()
	for _, one := range m.etcd.Server.Cluster().Members() {
		if one.ID != self || len(one.PeerURLs) == 1 && one.PeerURLs[0] == at {
			continue
		}
		if _, err := m.client.MemberUpdate(ctx, uint64(self), []string{at}); err != nil {
			return fmt.Errorf("etcd: the peers' address cannot become %s: %w", at, err)
		}
	}
	return nil
}
